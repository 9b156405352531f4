// How reloads ended, and what they changed.

import { el } from "./dom.js";
import { integer } from "./format.js";

/** A list of changed keys with their classes. */
export function changeList(changes) {
  return el("ul", { class: "changes" }, ...changes.map(c => el("li", {}, el("code", {}, c.path), " ", el("del", {}, c.old), " → ", el("ins", {}, c.new), " ", el("span", { class: `class ${c.class}` }, c.class))));
}

/** How a reload ended, in words. */
export function reloadWords({ outcome, applied_at_step: step, error }) {
  if (outcome === "applied") return `Applied at step ${integer(step)}.`;
  if (outcome === "unchanged") return "Nothing differs from the config in force.";
  return `Not taken over${outcome ? ` (${outcome})` : ""}: ${error}`;
}
