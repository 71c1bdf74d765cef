// What the service does now: its metrics, looked at every few seconds while this page is seen.

import { metricsText } from "./api.js";
import { sharesBar } from "./budget.js";
import { byId, draw, make, setDepth } from "./dom.js";
import { buckets, parseMetrics, quantile, total } from "./prometheus.js";
import * as words from "./words.js";

const EVERY_MS = 2000;
const WINDOW_S = 60;
// What changes seldom is looked at less often.
const ALONGSIDE_EVERY = 5;

export class LivePanel {
  /** `alongside` is called at every fifth look, for what else is to be kept fresh. */
  constructor(model, alongside) {
    this.exits = model.exits.length;
    this.looks = []; // {atS, samples}, the oldest first, over the window
    this.alongside = alongside;
    this.timer = 0;
    this.looking = false;
    this.count = 0;
    document.addEventListener("visibilitychange", () => this.look());
  }

  /** Look now, and from now on. */
  async look() {
    if (document.hidden || this.looking) return;
    clearTimeout(this.timer);
    this.looking = true;
    try {
      const samples = parseMetrics(await metricsText());
      const atS = performance.now() / 1000;
      this.looks = [...this.looks.filter((look) => atS - look.atS <= WINDOW_S), { atS, samples }];
      if (this.#restarted()) this.looks = this.looks.slice(-1);
      this.#show();
    } catch (problem) {
      byId("live-body").hidden = true;
      byId("live-note").textContent = whyNot(problem);
    }
    this.count += 1;
    if (this.count % ALONGSIDE_EVERY === 0) await this.alongside();
    this.looking = false;
    this.timer = setTimeout(() => this.look(), EVERY_MS);
  }

  /** Counters that went back belong to another process. */
  #restarted() {
    const [newest, before] = [this.looks.at(-1), this.looks.at(-2)];
    return before !== undefined && requestsOf(newest.samples) < requestsOf(before.samples);
  }

  #show() {
    const now = this.looks.at(-1).samples;
    const first = this.looks[0].samples;
    const images = (samples) => total(samples, "dvt_exits_total");
    // A quiet minute has no shares: then all since the start are shown.
    const since = images(now) > images(first) ? first : null;
    byId("live-body").hidden = false;
    byId("live-note").textContent = since === null ? "Nothing in the last minute; shares and latency since the service started." : "The last minute.";
    this.#figures(now, since);
    byId("live-spark").replaceChildren(sparkline(this.#rates()));
    const numbers = Array.from({ length: this.exits }, (_, index) => String(index + 1));
    const counts = numbers.map((exit) => between(now, since, "dvt_exits_total", { exit }));
    const sum = counts.reduce((a, b) => a + b, 0);
    byId("live-shares").replaceChildren(sum > 0 ? sharesBar(counts.map((each) => each / sum)) : "No image yet.");
    byId("live-table").replaceChildren(...latencyTable(now, since, counts));
  }

  #figures(now, since) {
    const spent = between(now, since, "dvt_gmacs_spent_total");
    const saved = between(now, since, "dvt_gmacs_saved_total");
    const rates = this.#rates();
    const figures = [
      ["requests/s", rates.length > 0 ? rates.at(-1).toFixed(1) : "…"],
      ["images inside", words.count(total(now, "dvt_in_flight_images"))],
      ["never computed", spent + saved > 0 ? words.percent(saved / (spent + saved), 0) : "…"],
    ];
    byId("live-figures").replaceChildren(
      ...figures.map(([name, value]) => make("p", {}, make("strong", {}, value), make("span", {}, name))),
    );
  }

  /** Requests/s between each two looks. */
  #rates() {
    return this.looks.slice(1).map((look, index) => {
      const before = this.looks[index];
      return (requestsOf(look.samples) - requestsOf(before.samples)) / (look.atS - before.atS);
    });
  }
}

/** Requests for an answer, whatever came of them; looks at metrics and budget are none. */
const requestsOf = (samples) => total(samples, "dvt_http_requests_total", { method: "POST" });

/** What a counter grew by; `since` null: from the start. */
function between(now, since, name, wanted) {
  return total(now, name, wanted) - (since === null ? 0 : total(since, name, wanted));
}

export function whyNot(problem) {
  if (problem.status === 401) return "The metrics need a key, like everything else here.";
  return `The metrics cannot be read. ${problem.detail ?? problem.message}`;
}

function latencyTable(now, since, counts) {
  const head = ["Exit", "Images", "Median", "95 %"].map((name) => make("th", { scope: "col" }, name));
  const rows = counts.map((images, index) => {
    const exit = String(index + 1);
    const times = buckets(now, since, "dvt_exit_latency_seconds", { exit });
    const cell = (share) => {
      const seconds = quantile(times, share);
      return make("td", {}, seconds === null ? "–" : `≈ ${words.milliseconds(1000 * seconds)}`);
    };
    const name = make("th", { scope: "row" }, make("span", { class: "dot" }), exit);
    setDepth(name, index + 1, counts.length);
    return make("tr", {}, name, make("td", {}, words.count(images)), cell(0.5), cell(0.95));
  });
  return [make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)];
}

function sparkline(rates) {
  const [width, height, most] = [480, 44, WINDOW_S / (EVERY_MS / 1000)];
  const top = Math.max(1, ...rates);
  const at = (rate, index) => `${(width - (rates.length - 1 - index) * (width / most)).toFixed(1)},${(height - 2 - (rate / top) * (height - 6)).toFixed(1)}`;
  return draw(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Requests per second over the last minute, at most ${top.toFixed(1)}` },
    draw("line", { class: "axis", x1: 0, x2: width, y1: height - 1, y2: height - 1 }),
    draw("polyline", { class: "curve", points: rates.map(at).join(" ") }),
  );
}
