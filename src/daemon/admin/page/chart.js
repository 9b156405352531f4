// One chart: curves over steps, with marks of events, lines of reference, and a cursor by mouse, finger or arrow keys.

import { el, put, svg } from "./dom.js";
import { apart, integer, number } from "./format.js";
import { logTicks, scale, ticks } from "./scale.js";

const HEIGHT = 230, LEFT = 52, RIGHT = 10, TOP = 16, BOTTOM = 24;
/** Places between a cursor and a mark within which the mark's words are shown. */
const NEAR = 6;
/** Colours of curves in style.css. */
const COLOURS = 8;

/** The point of a curve that is nearest to a step. */
function nearest(points, step) {
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < step) low = middle;
    else high = middle;
  }
  return Math.abs(points[low][0] - step) <= Math.abs(points[high][0] - step) ? points[low] : points[high];
}

export class Chart {
  /** `data`: { series, references, marks, from, to, logarithmic }. Series: { name, title, points: [[step, value]], colour, dashed, dots, earlier }. */
  constructor(title) {
    this.title = title;
    this.hidden = new Set();
    this.cursor = null;
    this.plot = svg("svg", { role: "img", tabindex: 0, height: HEIGHT });
    this.readout = el("p", { class: "readout dim", "aria-live": "polite" });
    this.legend = el("ul", { class: "legend" });
    this.element = el("figure", { class: "card chart" }, el("h3", {}, title), this.plot, this.readout, this.legend);
    this.plot.addEventListener("pointermove", event => this.point(event));
    this.plot.addEventListener("pointerdown", event => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.moveTo(null));
    this.plot.addEventListener("blur", () => this.moveTo(null));
    this.plot.addEventListener("keydown", event => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  show(data) {
    this.data = data;
    this.draw();
  }

  shown() {
    return this.data.series.filter(s => !this.hidden.has(s.name) && s.points.length);
  }

  draw() {
    const width = Math.floor(this.plot.parentElement?.clientWidth ?? 0) - 24;
    if (!this.data || width < 80) return;
    this.width = width;
    const { from, to, references, marks } = this.data, series = this.shown();
    const seen = series.flatMap(s => s.points.filter(([step]) => step >= from && step <= to).map(([, value]) => value));
    const beside = references.filter(r => !this.hidden.has(r.of)).map(r => r.value);
    const all = [...seen, ...beside], logarithmic = this.data.logarithmic && all.every(v => v > 0);
    let low = Math.min(...all), high = Math.max(...all);
    if (!all.length) [low, high] = [0, 1];
    if (high - low < 1e-12 * Math.max(1, Math.abs(high))) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) / 10, high + Math.abs(high) / 10];
    this.x = scale(from, to, LEFT, width - RIGHT);
    this.y = scale(low, high, HEIGHT - BOTTOM, TOP, logarithmic);
    const y = logarithmic ? logTicks(low, high) : ticks(low, high, 4), x = ticks(from, to, Math.max(2, width / 110)).filter(Number.isInteger);
    const labels = apart(y);
    const grid = svg("g", { class: "axis" },
      ...y.flatMap((v, i) => [svg("line", { x1: LEFT, x2: width - RIGHT, y1: this.y(v), y2: this.y(v) }), svg("text", { x: LEFT - 6, y: this.y(v) + 4, "text-anchor": "end" }, labels[i])]),
      ...x.map(v => svg("text", { x: Math.min(this.x(v), width - 18), y: HEIGHT - 6, "text-anchor": "middle" }, integer(v))));
    this.plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.plot.setAttribute("width", width);
    this.plot.setAttribute("aria-label", `${this.title}, steps ${integer(from)} to ${integer(to)}: ${series.map(s => `${s.title} ${number(s.points.at(-1)[1])}`).join(", ")}. Arrow keys move a cursor.`);
    this.pointer = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    this.plot.replaceChildren(grid,
      ...marks.filter(m => m.step >= from && m.step <= to).map(m => this.mark(m)),
      ...references.filter(r => !this.hidden.has(r.of)).map(r => svg("line", { class: `reference colour-${r.colour % COLOURS}`, x1: LEFT, x2: width - RIGHT, y1: this.y(r.value), y2: this.y(r.value) }, svg("title", {}, r.title))),
      ...series.flatMap(s => this.curve(s)), this.pointer);
    this.describe();
    this.moveTo(this.cursor);
  }

  mark({ kind, step, text }) {
    const x = this.x(step);
    if (kind === "checkpoint") return svg("path", { class: "mark mark-checkpoint", d: `M${x} ${HEIGHT - BOTTOM}v-6` }, svg("title", {}, text));
    return svg("g", { class: `mark mark-${kind.replaceAll(" ", "-")}` }, svg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }), svg("path", { d: `M${x - 4} ${TOP - 8}h8l-4 7z` }), svg("title", {}, text));
  }

  curve(s) {
    const { from, to } = this.data, style = `curve colour-${s.colour % COLOURS}${s.dashed ? " dashed" : ""}${s.earlier ? " earlier" : ""}`;
    // The neighbours outside the range, so that the curve leaves it at its edge.
    const first = Math.max(0, s.points.findIndex(([step]) => step >= from) - 1);
    const within = s.points.slice(first).filter(([step]) => step <= to);
    const place = ([step, value]) => `${Math.max(LEFT, this.x(step)).toFixed(1)} ${this.y(value).toFixed(1)}`;
    const drawn = [svg("path", { class: style, "data-series": s.name, d: within.length ? `M${within.map(place).join("L")}` : "" })];
    if (s.dots && within.length < 200) drawn.push(...within.filter(([step]) => step >= from).map(p => svg("circle", { class: `dot colour-${s.colour % COLOURS}`, cx: this.x(p[0]), cy: this.y(p[1]), r: 2.5 })));
    return drawn;
  }

  /** The legend: a button for each curve that hides it, with its value at the cursor or its last one. */
  describe() {
    const focused = document.activeElement?.dataset?.series;
    const item = s => {
      const point = s.points.length ? (this.cursor == null ? s.points.at(-1) : nearest(s.points, this.cursor)) : null;
      const sample = svg("svg", { width: 18, height: 8, "aria-hidden": "true" }, svg("path", { class: `curve colour-${s.colour % COLOURS}${s.dashed ? " dashed" : ""}${s.earlier ? " earlier" : ""}`, d: "M0 4h18" }));
      const lost = s.not_finite ? ` (${integer(s.not_finite)} not finite)` : "";
      return el("li", {}, el("button", { type: "button", "aria-pressed": String(!this.hidden.has(s.name)), title: s.help ?? false, "data-series": s.name }, sample, ` ${s.title} `, el("b", {}, point ? number(point[1]) : "–"), lost));
    };
    const lines = this.data.references.map(r => el("li", { class: "dim" }, svg("svg", { width: 18, height: 8, "aria-hidden": "true" }, svg("path", { class: `reference colour-${r.colour % COLOURS}`, d: "M0 4h18" })), ` ${r.title} ${number(r.value)}`));
    if (!put(this.legend, ...this.data.series.map(item), ...lines)) return;
    for (const button of this.legend.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        const name = button.dataset.series;
        if (!this.hidden.delete(name)) this.hidden.add(name);
        this.draw();
      });
      if (button.dataset.series === focused) button.focus();
    }
  }

  point(event) {
    const box = this.plot.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (this.width - LEFT - RIGHT);
    this.moveTo(this.data.from + Math.min(1, Math.max(0, share)) * (this.data.to - this.data.from));
  }

  key(event) {
    const { from, to } = this.data, far = event.shiftKey ? 10 : 1;
    const steps = [...new Set(this.shown().flatMap(s => s.points.map(([step]) => step)))].filter(s => s >= from && s <= to).sort((a, b) => a - b);
    if (!steps.length) return;
    const at = this.cursor == null ? steps.length - 1 : steps.findIndex(s => s >= this.cursor);
    const next = { ArrowLeft: at - far, ArrowRight: at + far, Home: 0, End: steps.length - 1 }[event.key];
    if (event.key === "Escape") return this.moveTo(null);
    if (next == null) return;
    event.preventDefault();
    this.moveTo(steps[Math.min(steps.length - 1, Math.max(0, next))]);
  }

  moveTo(step) {
    this.cursor = step;
    if (!this.pointer) return;
    const series = this.shown();
    if (step == null || !series.length) {
      this.pointer.setAttribute("visibility", "hidden");
      this.readout.textContent = "";
    } else {
      const [at] = nearest(series[0].points, step), x = this.x(at);
      this.pointer.setAttribute("visibility", "visible");
      for (const end of ["x1", "x2"]) this.pointer.setAttribute(end, x);
      const near = this.data.marks.filter(m => Math.abs(this.x(m.step) - this.x(step)) <= NEAR).map(m => m.text);
      this.readout.textContent = [`step ${integer(at)}`, ...near.slice(-3)].join(" · ");
    }
    this.describe();
  }
}
