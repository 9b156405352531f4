// What happened to the run, as a list; the same events are marks on the curves.

import { byId, cell, el, put } from "./dom.js";
import { integer, moment, words } from "./format.js";
import { changeList } from "./reports.js";

/** Rows of the list at most; the newest. */
const MOST_ROWS = 100;

const change = c => `${c.path} ${c.old} → ${c.new} (${c.class})`;

/** The outcome in the words of the list. */
const outcome = e => e.outcome && !["applied", "begun"].includes(e.outcome) ? ` ${words(e.outcome)}` : "";

/** An event in one line, for marks. */
export function told(e) {
  const details = [...(e.changes ?? []).map(change), e.error].filter(Boolean).join("; ");
  return `${words(e.event)}${outcome(e)} at step ${integer(e.step)}, ${moment(new Date(e.time))}${details ? `: ${details}` : ""}`;
}

function row(e) {
  const by = e.trigger && e.trigger !== e.event && e.trigger !== "trainer" ? `by ${e.trigger}` : null;
  const details = [by, e.folder, e.error].filter(Boolean).map(text => el("p", {}, text));
  if (e.changes?.length) details.push(changeList(e.changes));
  const bad = ["failed", "invalid", "frozen", "busy"].includes(e.outcome) ? "bad" : false;
  return el("tr", { class: bad }, cell("time", el("time", { datetime: e.time }, moment(new Date(e.time)))), cell("step", integer(e.step)), cell("what", words(e.event) + outcome(e)), cell("details", ...details));
}

/** Shows the events of the chosen kind, newest first. */
export function showEvents({ events, complete, older_left_out: older, unreadable_lines: unreadable }) {
  const select = byId("events-kind"), kinds = ["", ...new Set(events.map(e => e.event))];
  if (kinds.length !== select.options.length || kinds.some((k, n) => select.options[n].value !== k)) {
    const chosen = select.value;
    select.replaceChildren(...kinds.map(kind => new Option(kind ? words(kind) : "all", kind)));
    select.value = kinds.includes(chosen) ? chosen : "";
  }
  const chosen = events.filter(e => !select.value || e.event === select.value);
  put(byId("events-body"), ...chosen.slice(-MOST_ROWS).reverse().map(row));
  const notes = [];
  if (!chosen.length) notes.push("Nothing yet.");
  if (chosen.length > MOST_ROWS) notes.push(`${integer(chosen.length - MOST_ROWS)} older ones are not listed here.`);
  if (older) notes.push(`${integer(older)} older ones are in journal.jsonl and checkpoints only.`);
  if (unreadable) notes.push(`${integer(unreadable)} lines of journal.jsonl cannot be read.`);
  if (!complete) notes.push("The journal is still being read.");
  put(byId("events-note"), notes.join(" "));
}
