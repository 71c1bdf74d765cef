// The exits of the cascade, one card each: what it looks at, what it says, how sure it is, and what that cost.

import { make, setDepth, setShare } from "./dom.js";
import { drawTokens } from "./photo.js";
import * as words from "./words.js";

const WAITING = "Waits for a photo";

/** One exit's card. States: waiting, next (being computed), passed (not sure enough), taken, spared (never computed). */
class ExitCard {
  constructor(exit, model) {
    this.number = exit.number;
    this.exit = exit;
    this.of = model.exits.length;
    this.fullGmacs = model.worst_case.gmacs;
    this.canvas = make("canvas", { role: "img" });
    this.verdict = make("p", { class: "verdict" });
    this.fill = make("span", { class: "gauge-fill" });
    this.tick = make("span", { class: "gauge-tick", hidden: true });
    this.gauge = make("div", { class: "gauge", role: "img" }, this.fill, this.tick);
    this.gaugeWords = make("p", { class: "gauge-words" });
    this.top = make("ol", { class: "top" });
    this.cost = make("p", { class: "cost" });
    const tokens = make("span", { class: "tokens" }, `${exit.grid} × ${exit.grid} tokens`);
    this.element = make(
      "li",
      { class: "exit" },
      make("div", { class: "exit-head" }, make("h3", {}, `Exit ${exit.number}`), tokens),
      make("div", { class: "lens" }, this.canvas),
      make("div", { class: "exit-body" }, this.verdict, this.gauge, this.gaugeWords, this.top, this.cost),
    );
    setDepth(this.element, this.number, this.of);
    this.photo = null;
    this.threshold = null;
    this.clear(WAITING);
  }

  /** Nothing known of this photo. */
  clear(verdict, state = "waiting") {
    this.reached = null;
    this.mark(state, verdict);
    setShare(this.fill, 0);
    this.top.replaceChildren();
    if (this.exit.gmacs === null) this.#tellCost("", "");
    else this.#tellCost(words.gmacs(this.exit.gmacs), words.roughly(this.exit.gmacs / this.fullGmacs));
    this.showThreshold(this.threshold);
  }

  mark(state, verdict) {
    this.element.dataset.state = state;
    this.verdict.textContent = verdict;
  }

  showThreshold(threshold) {
    this.threshold = threshold;
    this.tick.hidden = threshold === null;
    if (threshold !== null) setShare(this.tick, threshold);
    const asked = threshold === null ? this.#untested() : `needs ${words.confidence(threshold)}`;
    const own = this.reached === null ? "" : `${words.confidence(this.reached.exit.confidence)} sure, `;
    this.gaugeWords.textContent = own + asked;
    this.gauge.setAttribute("aria-label", `Confidence: ${own}${asked}`);
  }

  #tellCost(...parts) {
    this.cost.replaceChildren(...parts.map((part) => make("span", {}, part)));
  }

  #untested() {
    return this.number === this.of ? "takes all that come" : "nobody leaves here";
  }

  show(reached, leaves) {
    const { exit, predictions, compute, elapsed_ms: elapsedMs } = reached;
    this.reached = reached;
    setShare(this.fill, exit.confidence);
    this.showThreshold(exit.threshold);
    this.mark(leaves ? "taken" : "passed", leaves ? "Leaves here" : "Not sure enough, goes on");
    this.top.replaceChildren(...predictions.map(predictionRow));
    const share = compute.gmacs === null || !compute.full_gmacs ? "" : `, ${words.roughly(compute.gmacs / compute.full_gmacs)}`;
    this.#tellCost(`${words.gmacs(compute.gmacs)}${share}`, words.milliseconds(elapsedMs));
  }

  redraw(photo, ratio) {
    const { state } = this.element.dataset;
    const shown = state === "waiting" || state === "spared" ? null : photo;
    drawTokens(this.canvas, shown, ratio, this.exit.grid);
    this.canvas.setAttribute(
      "aria-label",
      `${this.exit.grid} by ${this.exit.grid} tokens${shown ? " over the photo" : ", nothing computed"}`,
    );
  }
}

function predictionRow({ label, probability }) {
  const bar = make("span", { class: "bar" });
  setShare(bar, probability);
  return make(
    "li",
    {},
    make("span", { class: "label", title: label }, label),
    make("span", { class: "probability" }, words.percent(probability)),
    bar,
  );
}

/** All exits. `ratio` as in photo.js. */
export class ExitBoard {
  constructor(list, model) {
    this.ratio = model.input_px / model.resize_px;
    this.cards = model.exits.map((exit) => new ExitCard(exit, model));
    this.photo = null;
    list.replaceChildren(...this.cards.map((card) => card.element));
    new ResizeObserver(() => this.redraw()).observe(list);
  }

  redraw() {
    for (const card of this.cards) card.redraw(this.photo, this.ratio);
  }

  hasReached(number) {
    return this.cards[number - 1].reached !== null;
  }

  /** How many exits were reached. */
  get reached() {
    return this.cards.filter((card) => card.reached !== null).length;
  }

  /** Thresholds (one an exit but the last, null for never) of what comes next. Of no effect on exits that were reached. */
  expect(thresholds) {
    this.cards.forEach((card, index) => {
      if (card.reached === null) card.showThreshold(thresholds[index] ?? null);
    });
  }

  /** A new photo, or the same again: nothing is reached, and the first exit is being computed. */
  begin(photo, thresholds) {
    this.photo = photo;
    for (const card of this.cards) card.clear("Not reached yet");
    this.expect(thresholds);
    this.#next(1);
    this.redraw();
  }

  /** One more exit was reached, by an event `exit`. */
  reach(reached, leaves) {
    const { number } = reached.exit;
    this.cards[number - 1].show(reached, leaves);
    if (!leaves) this.#next(number + 1);
    this.redraw();
  }

  /** It is over. After `number`, where it left, nothing is computed. */
  end(number) {
    for (const card of this.cards) {
      if (card.number === number) card.mark("taken", "Leaves here");
      else if (card.number < number && card.reached !== null) card.mark("passed", "Not sure enough, goes on");
      else card.clear(card.number < number ? "Known from before" : "Never computed", "spared");
    }
    this.redraw();
  }

  /** It broke off: what was being computed is not. */
  stop() {
    for (const card of this.cards.filter((each) => each.reached === null)) card.clear("Not reached");
    this.redraw();
  }

  /** Goes on from exit `number` (refine). */
  resume(number) {
    this.cards[number - 1].mark("passed", "Asked to think on");
    this.#next(number + 1);
    this.redraw();
  }

  #next(number) {
    this.cards[number - 1]?.mark("next", "Looking");
  }
}
