// Which curves go onto which chart.

import { Chart } from "./chart.js";
import { byId, put } from "./dom.js";
import { integer } from "./format.js";
import { told } from "./events.js";

const TITLES = {
  losses: "Losses", accuracies: "Accuracies of training", evaluations: "Evaluations", learning_rate: "Learning rate",
};

const charts = new Map();

/** Data of one chart key: a chart of its own for each number of "other" kinds. */
function grouped(history) {
  const groups = new Map();
  for (const s of history.series) {
    const key = s.chart in TITLES ? s.chart : `${s.chart}:${s.name}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(s);
  }
  return groups;
}

/** Baselines are drawn dashed: they are what a curve is judged by. */
function drawn(s, colour, baselines) {
  return { ...s, colour, dashed: baselines.has(s.name), dots: s.evaluation, help: s.help };
}

function marksOf(events) {
  return events.filter(e => Number.isInteger(e.step)).map(e => ({ kind: e.event, step: e.step, text: told(e) }));
}

/** Draws all charts. `beside` is the history of an earlier run, or null; `chance` what guessing scores by number. */
export function showCurves({ history, beside, chance, events, share, marks, logarithmic }) {
  const all = history.series.flatMap(s => s.points.map(([step]) => step));
  const to = Math.max(1, history.last_step, ...(beside ? [beside.last_step] : [])), first = all.length ? Math.min(...ends(history)) : 0;
  // From the first step on, or from where the curves begin if that is far from it.
  const begin = first < 0.1 * to ? 0 : Math.min(first, to - 1), from = Math.floor(to - share * (to - begin));
  const baselines = new Set(history.series.map(s => s.baseline).filter(Boolean));
  const groups = grouped(history), lines = marks ? marksOf(events) : [];
  const main = [], more = [];
  for (const key of [...Object.keys(TITLES).filter(k => groups.has(k)), ...[...groups.keys()].filter(k => !(k in TITLES))]) {
    const group = groups.get(key);
    if (!charts.has(key)) charts.set(key, new Chart(TITLES[key] ?? group[0].title));
    const series = group.map((s, n) => drawn(s, n, baselines));
    const references = series.filter(s => s.name in chance).map(s => ({ of: s.name, value: chance[s.name], title: `guessing: ${s.title}`, colour: s.colour }));
    for (const s of series.slice()) {
      const other = beside?.series.find(o => o.name === s.name);
      if (other) series.push({ ...other, name: `${beside.of}:${s.name}`, title: `${s.title}, ${beside.of}`, colour: s.colour, earlier: true });
    }
    (key in TITLES || key.startsWith("other_evaluations") ? main : more).push(charts.get(key));
    charts.get(key).show({ series, references, marks: lines, from, to, logarithmic: logarithmic && key === "losses" });
  }
  // Moving a chart in the page would take the focus from it: only a chart that is new moves the others.
  const place = (node, wanted) => {
    if (wanted.length !== node.children.length || wanted.some((c, n) => node.children[n] !== c.element)) node.replaceChildren(...wanted.map(c => c.element));
  };
  place(byId("charts"), main);
  place(byId("more-charts"), more);
  byId("more").hidden = more.length === 0;
  put(byId("history-note"), note(history));
}

/** First steps of the curves. */
const ends = history => history.series.filter(s => s.points.length).map(s => s.points[0][0]);

function note(history) {
  const parts = [];
  if (!history.lines) parts.push("Waiting for the first log line (log.every_steps).");
  if (!history.complete) parts.push(`Reading the history: ${Math.round(100 * history.read)} %.`);
  if (history.unreadable_lines) parts.push(`${integer(history.unreadable_lines)} lines of metrics.jsonl cannot be read.`);
  if (history.lines_with_numbers_left_out) parts.push(`${integer(history.lines_with_numbers_left_out)} lines hold more numbers than the page has curves.`);
  return parts.join(" ");
}

/** The earlier runs that can be shown beside this one. */
export function offerEarlier(earlier) {
  const select = byId("compare");
  byId("compare-label").hidden = earlier.length === 0;
  const names = ["", ...earlier];
  if (names.length === select.options.length && names.every((n, i) => select.options[i].value === n)) return;
  const chosen = select.value;
  select.replaceChildren(...names.map(name => new Option(name ? `metrics.${name}` : "nothing", name)));
  select.value = names.includes(chosen) ? chosen : "";
}
