// Elements by hand. Text is only ever set as text, so that no label or message can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of this page with that id. */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/** A new element; `attributes` of null or false are left out, `children` are elements or text. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same of a picture. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A bar of `share` (0..1) of its place. Width by CSSOM: the page's policy allows no style attribute. */
export function setShare(element, share) {
  element.style.setProperty("--share", String(Math.min(1, Math.max(0, share))));
}

/** How deep exit `number` of `of` lies, 0..1: its colour. */
export function setDepth(element, number, of) {
  element.style.setProperty("--depth", `${of > 1 ? (100 * (number - 1)) / (of - 1) : 0}%`);
}
