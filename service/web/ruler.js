// The whole computation as a line, stage by stage, to scale; as much of it is filled as was computed.

import { make, setDepth } from "./dom.js";
import * as words from "./words.js";

export class Ruler {
  constructor(place, model) {
    this.place = place;
    this.full = model.worst_case.gmacs;
    place.hidden = this.full === null;
    if (place.hidden) return;
    this.segments = model.exits.map((exit, index) => {
      const own = exit.gmacs - (index > 0 ? model.exits[index - 1].gmacs : 0);
      const segment = make(
        "div",
        { class: "segment" },
        make("span", { class: "segment-bar" }),
        make("span", { class: "segment-words" }, words.short(exit.gmacs)),
      );
      segment.style.flexGrow = String((100 * own) / this.full);
      setDepth(segment, exit.number, model.exits.length);
      return segment;
    });
    const track = make("div", { class: "track" }, ...this.segments);
    const twin = model.static_gmacs;
    if (twin !== null && twin < this.full) {
      const mark = make("span", { class: "twin" }, make("span", {}, `without exits ${words.short(twin)}`));
      mark.style.setProperty("--share", String(twin / this.full));
      track.append(mark);
    }
    place.replaceChildren(make("p", { class: "ruler-title" }, "Computation up to each exit, GMACs"), track);
    this.show(0, null);
  }

  /** Filled up to exit `number` (0: nothing); `next` is being computed, null when it is over. */
  show(number, next) {
    if (this.full === null) return;
    this.segments.forEach((segment, index) => {
      const ahead = number > 0 && next === null ? "spared" : "free";
      segment.dataset.state = index < number ? "done" : index + 1 === next ? "next" : ahead;
    });
    this.place.setAttribute("aria-label", `Computed: ${number} of ${this.segments.length} stages`);
  }
}
