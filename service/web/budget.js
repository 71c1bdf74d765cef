// The budget: a slider along the frontier that tries a point for this page, and the admin's way to set it for everybody.

import { keys, Problem, putBudget } from "./api.js";
import { byId, make, setDepth, setShare } from "./dom.js";
import { frontierChart, keyOf, placeOf, pointsOf, tell } from "./frontier.js";
import * as words from "./words.js";

export class BudgetPanel {
  /** `onTry` is called when the page is to ask for other thresholds than before. */
  constructor(model, frontier, budget, onTry) {
    this.fullGmacs = model.worst_case.gmacs;
    this.points = pointsOf(frontier);
    this.budget = budget;
    this.tried = null;
    this.onTry = onTry;
    this.slider = byId("budget-slider");
    this.slider.max = String(Math.max(0, this.points.length - 1));
    this.slider.addEventListener("input", () => this.#try(this.points[Number(this.slider.value)]));
    byId("budget-reset").addEventListener("click", () => this.reset());
    byId("admin-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#set();
    });
    if (this.points.length === 0) {
      byId("budget-note").textContent = "This bundle was never profiled, so it has no frontier: dvt profile makes one.";
      byId("budget-body").hidden = true;
    }
    this.#drawProfiles();
    this.show();
  }

  /** What photos of this page leave by: the point tried, or the one in force. */
  get point() {
    return this.tried ?? this.budget.in_force;
  }

  /** Parameters of POST /classify: none while the service's own budget decides. */
  get query() {
    if (this.tried === null) return {};
    return { thresholds: this.tried.thresholds.map((each) => (each === null ? "null" : String(each))).join(",") };
  }

  /** The service's budget, as it is by now. */
  follow(budget) {
    const before = keyOf(this.budget.in_force) + this.budget.revision + this.budget.ceiling;
    this.budget = budget;
    if (before !== keyOf(budget.in_force) + budget.revision + budget.ceiling) this.show();
  }

  reset() {
    this.tried = null;
    this.show();
    this.onTry();
    this.slider.focus();
  }

  #try(point) {
    this.tried = keyOf(point) === keyOf(this.budget.in_force) ? null : point;
    this.show();
    this.onTry();
  }

  show() {
    if (this.points.length === 0) return;
    const { point, tried } = this;
    const inForce = this.budget.in_force;
    byId("chart").replaceChildren(frontierChart(this.points, inForce, tried));
    this.slider.value = String(Math.max(0, placeOf(point, this.points)));
    this.slider.setAttribute("aria-valuetext", `${point.profile ?? ""} ${tell(point)}`.trim());
    byId("budget-readouts").replaceChildren(...this.#readouts(point));
    byId("budget-reset").hidden = tried === null;
    byId("trying").textContent = this.#standing();
    byId("trying").dataset.tried = String(tried !== null);
    for (const button of byId("profiles").children) {
      button.setAttribute("aria-pressed", String(button.dataset.key === keyOf(point)));
    }
  }

  #standing() {
    const { in_force: inForce, ceiling, request } = this.budget;
    const name = inForce.profile === null ? "" : `${inForce.profile}, `;
    const load = request.auto ? " It moves with the load (auto)." : "";
    const most = ceiling === null ? "" : ` Requests may ask for no more than ${ceiling}.`;
    const service = `The service is set to ${name}${tell(inForce)}.${load}${most}`;
    return this.tried === null ? service : `Tried on this page only. ${service}`;
  }

  #readouts(point) {
    const share = this.fullGmacs && point.mean_gmacs !== null ? `, ${words.roughly(point.mean_gmacs / this.fullGmacs)} of the whole` : "";
    return [
      readout("Expected top-1", point.top1 === null ? "never measured" : words.percent(point.top1)),
      readout("Mean cost", point.mean_gmacs === null ? "never measured" : words.gmacs(point.mean_gmacs) + share),
      readout("Leave at exit", point.exit_shares === null ? "never measured" : sharesBar(point.exit_shares)),
      readout("Thresholds", point.thresholds.map((each) => (each === null ? "never" : words.confidence(each))).join(", ") || "none"),
      readout("Certificate", point.certificate ? capital(words.promise(point.certificate)) : `None: ${point.uncertified ?? "none"}`),
    ];
  }

  #drawProfiles() {
    const named = this.points.filter((point) => point.profile !== null);
    byId("profiles").replaceChildren(
      ...named.map((point) => {
        const button = make("button", { type: "button", "data-key": keyOf(point) }, point.profile);
        button.addEventListener("click", () => this.#try(point));
        return button;
      }),
    );
  }

  async #set() {
    const status = byId("admin-status");
    const { point } = this;
    keys.admin = byId("admin-key").value.trim();
    status.dataset.kind = "";
    status.textContent = "Asking the service";
    try {
      this.follow(await putBudget(point.profile === null ? { thresholds: point.thresholds } : { profile: point.profile }));
      this.tried = null;
      this.show();
      const inForce = this.budget.in_force;
      status.dataset.kind = "done";
      status.textContent = `Set, revision ${this.budget.revision}. In force for everybody: ${inForce.profile ?? "own thresholds"}, ${tell(inForce)}.`;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      status.dataset.kind = "fault";
      status.textContent = `Not set. ${error.detail}`;
    }
  }
}

const readout = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Shares of the exits as one bar with words; 0..1, of sum 1. */
export function sharesBar(shares) {
  const bar = make("span", { class: "shares-bar", "aria-hidden": "true" });
  const told = make("span", { class: "shares-words" });
  shares.forEach((share, index) => {
    const part = make("span", {});
    setShare(part, share);
    setDepth(part, index + 1, shares.length);
    if (share > 0) bar.append(part);
    const dot = make("span", { class: "dot", "aria-hidden": "true" });
    setDepth(dot, index + 1, shares.length);
    told.append(make("span", {}, dot, `${index + 1}: ${words.roughly(share)}`), " ");
  });
  return make("span", { class: "shares" }, bar, told);
}
