// The config in force: every key with its value, its class, and what it is.

import { byId, cell, el, put } from "./dom.js";

const shown = value => typeof value === "string" ? JSON.stringify(value) : Array.isArray(value) ? `[${value.map(shown).join(", ")}]` : value && typeof value === "object" ? JSON.stringify(value) : String(value);

let settings = [];

function draw() {
  const wanted = byId("find").value.trim().toLowerCase().split(/\s+/).filter(Boolean), kind = byId("class").value;
  const holds = s => (!kind || s.class === kind) && wanted.every(word => `${s.path} ${shown(s.value)} ${s.doc ?? ""}`.toLowerCase().includes(word));
  const found = settings.filter(holds);
  put(byId("config-body"), ...found.map(s => el("tr", {}, cell("key", el("code", {}, s.path)), cell("value", el("code", {}, shown(s.value))), cell("class", el("span", { class: `class ${s.class}` }, s.class ?? "–")), cell("what", s.doc ?? ""))));
  byId("found").textContent = `${found.length} of ${settings.length} keys`;
}

/** Shows an answer of /api/v1/config. */
export function showConfig(answer) {
  settings = answer.settings;
  draw();
}

byId("find").addEventListener("input", draw);
byId("class").addEventListener("change", draw);
