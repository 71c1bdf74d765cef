// Numbers and reasons as people read them. Probabilities and shares are 0..1 coming in.

const SPACE = "\u00a0";

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}${SPACE}%`;

/** A share whose exact size does not matter; what is there at all is never shown as 0. */
export function roughly(share) {
  if (share > 0 && share < 0.01) return `<${SPACE}1${SPACE}%`;
  if (share < 1 && share > 0.99) return `>${SPACE}99${SPACE}%`;
  return percent(share, 0);
}

export const gmacs = (value) => (value === null ? "cost not measured" : `${short(value)}${SPACE}GMACs`);

/** Three significant digits. */
export const short = (value) => (value >= 100 ? value.toFixed(0) : Number(value.toPrecision(3)).toString());

export function milliseconds(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)}${SPACE}s`;
  return `${ms >= 100 ? ms.toFixed(0) : ms.toFixed(1)}${SPACE}ms`;
}

/** A confidence or threshold. Never rounded up to 1, which it is not. */
export function confidence(value) {
  return value < 1 && value > 0.999 ? ">0.999" : value.toFixed(value > 0.99 ? 3 : 2);
}

export const count = (value) => value.toLocaleString("en");

export const plural = (number, one, many) => (number === 1 ? one : many);

const RISKS = {
  disagreement: (most) => `another label than the last exit's for at most ${most} of images`,
  accuracy_drop: (most) => `a right label lost for at most ${most} of images`,
};

/** Of `stages` among those up to the exit `number` that were run for an earlier request. */
export function fromBefore(stages, number) {
  if (stages <= 0) return "";
  if (stages === number) return ", from memory: nothing had to be computed again";
  return stages === 1 ? "; its first stage was known from before" : `; its first ${stages} stages were known from before`;
}

/** What a certificate promises. */
export function promise(certificate) {
  const most = `${short(100 * certificate.epsilon)}${SPACE}%`;
  const says = RISKS[certificate.risk]?.(most) ?? `${certificate.risk} of at most ${most}`;
  return `${says}, proved with ${short(100 * (1 - certificate.delta))}${SPACE}% confidence`;
}

/** Why an image left where it did. */
export function because(exit) {
  const at = `exit ${exit.number} of ${exit.of}`;
  switch (exit.reason) {
    case "confident":
      return `Left at ${at}: sure enough, ${confidence(exit.confidence)} against ${confidence(exit.threshold)}.`;
    case "final":
      return `Went all the way to ${at}, which takes what no other was sure of.`;
    case "deadline":
      return `Left at ${at}: the time was up.`;
    case "max_exit":
      return `Stopped at ${at}, as asked, at a confidence of ${confidence(exit.confidence)}.`;
    case "guard":
      return `Left at ${at}: the service limits what hard images may take, or a later exit had no usable answer.`;
    default:
      return `Left at ${at} (${exit.reason}).`;
  }
}
