// Elements. What is put into them is text: nothing in this page makes markup of a string.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter(child => child != null));
  return node;
}

/** An element of HTML with attributes and children; strings become text. */
export const el = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

/** An element of SVG. */
export const svg = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

/** The element of an id in index.html. */
export const byId = id => document.getElementById(id);

/** Replaces all children, unless they would be the same: a selection or the focus in them stays. */
export function put(node, ...children) {
  const fresh = el("div", {}, ...children);
  if (fresh.isEqualNode(el("div", {}, ...[...node.childNodes].map(child => child.cloneNode(true))))) return false;
  node.replaceChildren(...fresh.childNodes);
  return true;
}

/** A cell that says which column it belongs to, for screens too narrow for a table. */
export const cell = (column, ...children) => el("td", { "data-column": column }, ...children);
