// What can be asked for, as a line of points from cheap to dear, and its picture: accuracy against computation.

import { draw } from "./dom.js";
import * as words from "./words.js";

const WIDTH = 480;
const HEIGHT = 190;
const EDGE = { left: 46, right: 14, top: 14, bottom: 34 };

/** Measured points of `GET /budget/frontier`, the cheapest first, each vector once. */
export function pointsOf({ profiles, frontier, certified }) {
  // A certified vector lies beside the point of the frontier that it was made for, with the same numbers.
  const proved = new Set(certified.map(numbersOf));
  const points = [...profiles, ...certified, ...frontier.filter((point) => !proved.has(numbersOf(point)))];
  const byThresholds = new Map();
  for (const point of points) {
    if (point.top1 === null || point.mean_gmacs === null) continue;
    const known = byThresholds.get(keyOf(point)) ?? {};
    byThresholds.set(keyOf(point), { ...point, profile: known.profile ?? point.profile });
  }
  return [...byThresholds.values()].sort((a, b) => a.mean_gmacs - b.mean_gmacs || a.top1 - b.top1);
}

const numbersOf = (point) => `${point.mean_gmacs} ${point.top1}`;
export const keyOf = (point) => JSON.stringify(point.thresholds);

/** Index of a point among `points`: itself, or the one that costs nearest to it; -1 where it was never measured. */
export function placeOf(point, points) {
  const own = points.findIndex((each) => keyOf(each) === keyOf(point));
  if (own !== -1 || point.mean_gmacs === null) return own;
  const distance = (each) => Math.abs(each.mean_gmacs - point.mean_gmacs);
  return points.reduce((best, each, index) => (distance(each) < distance(points[best]) ? index : best), 0);
}

/** The picture: all points, those with a certificate filled, the one in force and the one tried. */
export function frontierChart(points, inForce, tried) {
  // Points crowd where they are cheap: equal factors of cost are equally far apart.
  const x = scale(points.map((point) => Math.log(point.mean_gmacs)), EDGE.left, WIDTH - EDGE.right);
  const y = scale(points.map((point) => point.top1), HEIGHT - EDGE.bottom, EDGE.top);
  const at = (point) => [x(Math.log(point.mean_gmacs)), y(point.top1)];
  const best = points.filter((point, index) => points.slice(0, index).every((each) => each.top1 < point.top1));
  const line = best.map((point) => at(point).map((value) => value.toFixed(1)).join(",")).join(" ");
  const parts = [...axes(points, x, y), draw("polyline", { class: "curve", points: line })];
  for (const point of points) parts.push(circle(at(point), point.certificate ? 4 : 2.5, point.certificate ? "proved" : "point"));
  if (inForce.top1 !== null && inForce.mean_gmacs !== null) parts.push(circle(at(inForce), 7, "in-force"));
  if (tried !== null) parts.push(circle(at(tried), 5.5, "tried"));
  const told = `Top-1 against mean cost for ${points.length} points. In force: ${tell(inForce)}.`;
  return draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told }, ...parts);
}

/** A point in a few words. */
export function tell(point) {
  if (point.top1 === null || point.mean_gmacs === null) return "thresholds that were never measured";
  return `${words.percent(point.top1)} top-1 at ${words.gmacs(point.mean_gmacs)}`;
}

function scale(values, start, end) {
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const free = 0.05 * span;
  return (value) => start + ((value - low + free) / (span + 2 * free)) * (end - start);
}

function axes(points, x, y) {
  const bottom = HEIGHT - EDGE.bottom;
  const lines = [draw("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: bottom, y2: bottom })];
  for (const value of roundBetween(points.map((point) => point.top1))) {
    lines.push(draw("line", { class: "rule", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(value), y2: y(value) }));
    lines.push(text(EDGE.left - 6, y(value) + 4, `${words.short(100 * value)} %`, "end"));
  }
  const costs = points.map((point) => point.mean_gmacs);
  const [low, high] = [Math.min(...costs), Math.max(...costs)];
  for (const value of low < high ? [low, Math.sqrt(low * high), high] : [low]) {
    const anchor = value === low ? "start" : value === high ? "end" : "middle";
    lines.push(text(x(Math.log(value)), bottom + 15, words.short(value), anchor));
  }
  lines.push(text(EDGE.left, HEIGHT - 4, "mean GMACs an image (log) →", "start"));
  lines.push(text(WIDTH - EDGE.right, HEIGHT - 4, "filled: certified", "end"));
  return lines;
}

/** About four round values that `values` span. */
function roundBetween(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) return [low];
  const unit = 10 ** Math.floor(Math.log10((high - low) / 4));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((each) => (high - low) / each <= 5);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + 1e-9; value += step) found.push(value);
  return found;
}

const circle = ([cx, cy], r, kind) => draw("circle", { class: kind, cx: cx.toFixed(1), cy: cy.toFixed(1), r });
const text = (x, y, content, anchor) => draw("text", { x, y, "text-anchor": anchor }, content);
