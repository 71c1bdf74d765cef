// The metrics: Prometheus's text format, and what can be read from two looks at it.
// https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format

const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** All samples by metric name: [{labels, value}]. Lines that are none are left out. */
export function parseMetrics(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (found === null) continue;
    const [, name, labelText = "", valueText] = found;
    const labels = {};
    for (const [, key, value] of labelText.matchAll(LABEL)) labels[key] = value;
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value: valueText === "+Inf" ? Infinity : Number(valueText) });
  }
  return samples;
}

/** Sum of a metric over the series whose labels are `wanted`. */
export function total(samples, name, wanted = {}) {
  const matches = ({ labels }) => Object.entries(wanted).every(([key, value]) => labels[key] === value);
  return (samples.get(name) ?? []).filter(matches).reduce((sum, { value }) => sum + value, 0);
}

/** Cumulative counts [{upTo, count}] of a histogram between two looks; `earlier` null: since the start. */
export function buckets(now, earlier, name, wanted) {
  const count = (samples, le) => (samples === null ? 0 : total(samples, `${name}_bucket`, { ...wanted, le }));
  const bounds = new Set((now.get(`${name}_bucket`) ?? []).map(({ labels }) => labels.le));
  return [...bounds]
    .map((le) => ({ upTo: le === "+Inf" ? Infinity : Number(le), count: count(now, le) - count(earlier, le) }))
    .sort((a, b) => a.upTo - b.upTo);
}

/** The value that a share (0..1) of observations does not exceed, as far as buckets tell; null without observations. */
export function quantile(cumulative, share) {
  const all = cumulative.at(-1)?.count ?? 0;
  if (all <= 0) return null;
  const rank = share * all;
  let [low, below] = [0, 0];
  for (const { upTo, count } of cumulative) {
    if (count >= rank) return upTo === Infinity ? low : low + ((upTo - low) * (rank - below)) / (count - below || 1);
    [low, below] = [upTo, count];
  }
  return low;
}
