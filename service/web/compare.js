// All exits side by side: the photo goes all the way, and each exit tells what it would have answered.

import { make, setDepth } from "./dom.js";
import * as words from "./words.js";

/** Thresholds by which nobody leaves before the last exit, as a query. */
export const allTheWay = (exits) => ({ thresholds: Array(exits - 1).fill("null").join(",") });

/** What each stage took for one photo, over all its requests: what was computed once is not computed again. */
export class StageTimes {
  #ms = new Map();

  /** `result.timing_ms.stages` are those that this request ran, the last one that of the exit it was answered at. */
  note({ exit, timing_ms: { stages } }) {
    stages.forEach((ms, index) => this.#ms.set(exit.number - stages.length + 1 + index, ms));
  }

  /** Milliseconds of the stages `from` to `to`, in words. */
  tell(from, to) {
    let sum = 0;
    for (let stage = from; stage <= to; stage += 1) {
      if (!this.#ms.has(stage)) return "known from before";
      sum += this.#ms.get(stage);
    }
    return words.milliseconds(sum);
  }
}

/** The table of what exits said. `reached`: their events in order; `times` of their stages; `thresholds` in force. */
export function comparison(reached, times, thresholds) {
  const leaves = leavesAt(reached, thresholds);
  const last = reached.at(-1).predictions[0].label;
  const head = reached.map(({ exit }) => {
    const cell = make("th", { scope: "col" }, make("span", { class: "dot" }), `Exit ${exit.number}`);
    setDepth(cell, exit.number, exit.of);
    return cell;
  });
  const rows = [
    ["Tokens", ({ exit }) => `${exit.grid} × ${exit.grid}`],
    ["Says", ({ predictions }) => make("strong", {}, predictions[0].label)],
    ["As the last exit", ({ predictions }) => (predictions[0].label === last ? "yes" : "no")],
    ["Confidence", ({ exit }) => words.confidence(exit.confidence)],
    ["GMACs so far", ({ compute }) => (compute.gmacs === null ? "not measured" : words.short(compute.gmacs))],
    ["Its stage takes", ({ exit }) => times.tell(exit.number, exit.number)],
    ["All stages so far", ({ exit }) => times.tell(1, exit.number)],
    ["By the budget in force", (_, index) => fate(index, leaves)],
  ];
  return [
    make("thead", {}, make("tr", {}, make("td"), ...head)),
    make("tbody", {}, ...rows.map(([name, cell]) => row(name, reached.map(cell), leaves))),
  ];
}

/** Index of the exit at which this photo leaves by `thresholds`. */
function leavesAt(reached, thresholds) {
  const found = reached.findIndex(({ exit }, index) => {
    const threshold = thresholds[index] ?? null;
    return threshold !== null && exit.confidence >= threshold;
  });
  return found === -1 ? reached.length - 1 : found;
}

function fate(index, leaves) {
  if (index === leaves) return "leaves here";
  return index < leaves ? "goes on" : "never computed";
}

function row(name, cells, leaves) {
  const made = cells.map((cell, index) => make("td", { class: index === leaves ? "chosen" : null }, cell));
  return make("tr", {}, make("th", { scope: "row" }, name), ...made);
}
