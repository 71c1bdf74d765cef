// The page: takes a photo, follows it through the exits, and keeps the panels beside it in step.

import { classify, get, getPhoto, keys, Problem, refine } from "./api.js";
import { BudgetPanel } from "./budget.js";
import { allTheWay, comparison, StageTimes } from "./compare.js";
import { byId, make } from "./dom.js";
import { ExitBoard } from "./exits.js";
import { watchForPhotos } from "./intake.js";
import { LivePanel, whyNot } from "./live.js";
import { drawPhoto, openPhoto } from "./photo.js";
import { Ruler } from "./ruler.js";
import * as words from "./words.js";

// Exits often follow each other within milliseconds, which nobody sees.
const PACE_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 450;
// While the slider moves, only where it rests is asked for.
const REST_MS = 250;

class Page {
  constructor(model, frontier, budget) {
    this.model = model;
    this.ratio = model.input_px / model.resize_px;
    this.board = new ExitBoard(byId("exits"), model);
    this.ruler = new Ruler(byId("ruler"), model);
    this.budget = new BudgetPanel(model, frontier, budget, () => this.#tried());
    this.live = new LivePanel(model, async () => this.budget.follow(await get("budget").catch(() => this.budget.budget)));
    this.brought = 0; // Photos so far: one that is opened faster than the one before it wins.
    this.photo = null;
    this.times = new StageTimes();
    this.result = null;
    this.run = new AbortController();
    this.resting = 0;
    this.repeat = () => this.look();
    this.board.expect(this.budget.point.thresholds);
    new ResizeObserver(() => this.#drawPhoto()).observe(byId("stage"));
    byId("refine").addEventListener("click", () => this.think());
    byId("compare").addEventListener("click", () => this.compare());
    byId("again").addEventListener("click", () => this.repeat());
  }

  /** Another photo: shown, then looked at. */
  async take(blob, name) {
    this.run.abort();
    this.brought += 1;
    const number = this.brought;
    const photo = await openPhoto(blob, name);
    if (number !== this.brought) return;
    this.photo = photo;
    this.times = new StageTimes();
    byId("compare-panel").hidden = true;
    byId("stage-hint").hidden = this.photo.picture !== null;
    byId("stage-hint").textContent = "This browser cannot show the format. The service may still read it.";
    byId("photo").setAttribute("aria-label", `The photo ${name}; a frame marks what the network sees`);
    byId("photo-caption").textContent = "Inside the frame is what the network sees; the rest is cut off first.";
    this.#drawPhoto();
    this.#bringIntoView();
    await this.look();
  }

  /** The same of one of the page's own photographs. */
  async takeSample(path, name) {
    this.repeat = () => this.takeSample(path, name);
    try {
      await this.take(await getPhoto(path), name);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#fail(problem);
    }
  }

  /** Send the photo on its way, by the budget or the point that is tried. */
  look() {
    this.result = null;
    this.repeat = () => this.look();
    byId("said").textContent = "Looking";
    byId("answer-actions").hidden = true;
    this.board.begin(this.photo, this.budget.point.thresholds);
    this.ruler.show(0, 1);
    return this.#follow((signal) => classify(this.photo.blob, this.budget.query, signal));
  }

  /** Go on from an early answer to the next exit. */
  think() {
    const { id, exit } = this.result;
    this.repeat = () => this.think();
    byId("answer-actions").hidden = true;
    this.board.resume(exit.number);
    this.ruler.show(exit.number, exit.number + 1);
    return this.#follow((signal) => refine(id, signal));
  }

  /** All exits, whatever the budget. */
  async compare() {
    const [panel, note, table] = [byId("compare-panel"), byId("compare-note"), byId("compare-table")];
    const thresholds = this.budget.budget.in_force.thresholds;
    const button = byId("compare");
    panel.hidden = false;
    table.replaceChildren();
    note.textContent = "Sending the photo all the way.";
    button.disabled = true;
    const reached = [];
    try {
      const { photo } = this;
      for await (const { name, data } of classify(photo.blob, allTheWay(this.model.exits.length))) {
        if (photo !== this.photo) return;
        if (name === "exit") reached.push(data);
        if (name !== "result") continue;
        this.times.note(data.result);
        table.replaceChildren(...comparison(reached, this.times, thresholds));
      }
      note.textContent = "One request that may not leave early: each exit tells what it would have answered.";
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      note.textContent = kindly(problem);
      needKey(problem);
    } finally {
      button.disabled = false;
    }
    byId("compare-title").focus({ preventScroll: true });
    panel.scrollIntoView({ block: "nearest", behavior: PACE_MS ? "smooth" : "auto" });
  }

  async #follow(events) {
    this.run.abort();
    this.run = new AbortController();
    const { signal } = this.run;
    hideFault();
    let shownAt = performance.now();
    try {
      for await (const { name, data } of events(signal)) {
        if (name === "exit") {
          await rest(shownAt + PACE_MS - performance.now());
          shownAt = performance.now();
        }
        if (signal.aborted) return;
        if (name === "exit") this.#reach(data);
        if (name === "result") this.#answer(data.result);
      }
    } catch (problem) {
      if (signal.aborted) return;
      if (!(problem instanceof Problem)) throw problem;
      this.#fail(problem);
    }
  }

  #reach(reached) {
    const { exit, predictions, leaves } = reached;
    this.board.reach(reached, leaves);
    this.ruler.show(exit.number, leaves ? null : exit.number + 1);
    if (leaves) return;
    byId("said").textContent = `${predictions[0].label}?`;
    byId("why").textContent = `Exit ${exit.number} says ${predictions[0].label}, but is only ${words.confidence(exit.confidence)} sure. It goes on.`;
  }

  #answer(result) {
    const { exit, compute, predictions, certificate, timing_ms: timing } = result;
    this.result = result;
    this.times.note(result);
    if (!this.board.hasReached(exit.number)) {
      this.board.reach({ exit, predictions, compute, elapsed_ms: timing.total }, true);
    }
    this.board.end(exit.number);
    this.ruler.show(exit.number, null);
    const [best] = predictions;
    byId("said").replaceChildren(best.label, make("span", { class: "sure" }, words.percent(best.probability)));
    const cost = compute.gmacs === null ? "" : ` It took ${words.short(compute.gmacs)} of ${words.gmacs(compute.full_gmacs)}${compute.saved > 0 ? `; ${words.percent(compute.saved, 0)} was never computed` : ""}.`;
    const promise = certificate === null ? "" : ` Certified: ${words.promise(certificate)}.`;
    byId("why").textContent = `${words.because(exit)}${cost} Answered in ${words.milliseconds(timing.total)}${words.fromBefore(exit.number - timing.stages.length, exit.number)}.${promise}`;
    byId("answer-actions").hidden = false;
    byId("refine").hidden = exit.number === exit.of;
    byId("refine").textContent = `Think on, to exit ${exit.number + 1}`;
  }

  #fail(problem) {
    if (this.result === null) this.board.stop();
    else this.board.end(this.result.exit.number);
    this.ruler.show(this.board.reached, null);
    byId("said").textContent = this.result === null ? "No answer" : this.result.predictions[0].label;
    byId("why").textContent = "";
    byId("answer-actions").hidden = this.result === null;
    if (problem.code === "state_gone") byId("refine").hidden = true;
    byId("fault-title").textContent = problem.title;
    byId("fault-detail").textContent = kindly(problem);
    byId("fault").hidden = false;
    needKey(problem);
  }

  /** On a phone the exits lie below what the photo was chosen with. */
  #bringIntoView() {
    const answer = byId("answer");
    if (answer.getBoundingClientRect().top > 0.7 * window.innerHeight) {
      answer.scrollIntoView({ block: "start", behavior: PACE_MS ? "smooth" : "auto" });
    }
  }

  #tried() {
    this.board.expect(this.budget.point.thresholds);
    clearTimeout(this.resting);
    if (this.photo !== null) this.resting = setTimeout(() => this.look(), REST_MS);
  }

  #drawPhoto() {
    drawPhoto(byId("photo"), this.photo, this.ratio);
  }
}

const rest = (ms) => (ms > 0 ? new Promise((resolve) => setTimeout(resolve, ms)) : undefined);

function hideFault() {
  byId("fault").hidden = true;
}

/** A problem in sentences for whoever sits before this page. */
function kindly(problem) {
  if (problem.code === "above_ceiling") return `Whoever runs this service does not let a page ask for so much. ${problem.detail}`;
  const wait = problem.retryAfterS === null ? "" : ` It asks to be left alone for ${problem.retryAfterS} s.`;
  return problem.detail + wait;
}

/** Asks for a key where one is missing. */
function needKey(problem) {
  if (problem.status !== 401) return;
  byId("key-panel").hidden = false;
  if (keys.api) byId("key-reason").textContent = "The service does not know this key. Whoever runs it has another one for you.";
  byId("api-key").focus();
}

function tellOfModel(model) {
  const grids = model.exits.map(({ grid }) => `${grid}×${grid}`).join(", ");
  byId("plate").textContent = `${model.name} · ${model.exits.length} ${words.plural(model.exits.length, "exit", "exits")} (${grids} tokens) · ${model.backend}`;
  byId("hashes").textContent = `Weights ${model.sha256.slice(0, 12)} · configuration ${model.config_sha256.slice(0, 12)}`;
  byId("knows-text").textContent =
    `This bundle knows ${model.classes} classes and nothing else. Whatever you show it, it answers with one of these, ` +
    "however sure it sounds:";
  if (model.labels.length > 40) byId("labels").tabIndex = 0; // A long list scrolls, by keyboard too.
  byId("labels").replaceChildren(...model.labels.map((label) => make("li", {}, label)));
}

async function offerSamples(page) {
  const { samples } = await get("playground/samples.json");
  byId("samples-panel").hidden = samples.length === 0;
  byId("credits").textContent = `Photos: ${samples.map(({ shows, credit }) => `${shows} by ${credit}`).join("; ")}.`;
  byId("samples").replaceChildren(
    ...samples.map(({ file, shows, note, known }) => {
      const path = `playground/samples/${file}`;
      const button = make(
        "button",
        { type: "button", class: "sample" },
        make("img", { src: path, alt: "", width: 56, height: 56, loading: "lazy" }),
        make("span", {}, make("b", {}, shows), make("small", {}, known ? note : "not one of its classes")),
      );
      button.addEventListener("click", () => page.takeSample(path, shows));
      return make("li", {}, button);
    }),
  );
}

byId("pace-note").hidden = PACE_MS === 0;

/** Null until the service has told what it serves. */
let page = null;

async function start() {
  try {
    const [model, frontier, budget] = await Promise.all([get("model"), get("budget/frontier"), get("budget")]);
    byId("key-panel").hidden = true;
    if (page === null) {
      tellOfModel(model);
      page = new Page(model, frontier, budget);
      watchForPhotos((blob, name) => page.take(blob, name));
      await offerSamples(page);
    } else if (page.photo !== null) {
      page.repeat();
    }
    await page.live.look();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status !== 401) byId("why").textContent = `${problem.title} ${kindly(problem)} Reload the page to try again.`;
    byId("live-note").textContent = whyNot(problem);
    needKey(problem);
  }
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keys.api = byId("api-key").value.trim();
  start();
});
start();
