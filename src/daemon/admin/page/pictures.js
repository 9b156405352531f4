// The pictures of the run, each with a slider over the steps of which it is kept.

import { byId, el } from "./dom.js";
import { integer } from "./format.js";

const figures = new Map();

class Picture {
  constructor(name, columns) {
    this.name = name;
    this.image = el("img", { alt: `${name}: ${columns}`, loading: "lazy", decoding: "async" });
    this.slider = el("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": `step of the picture ${name}` });
    this.step = el("output", {});
    this.element = el("figure", {}, el("h3", {}, name), this.image, el("div", { class: "slider" }, this.slider, this.step), el("figcaption", { class: "dim" }, columns));
    this.steps = [];
    this.slider.addEventListener("input", () => this.draw());
  }

  /** New steps; a slider that stands at the newest goes on to the newest. */
  update(steps, drawn) {
    const followed = Number(this.slider.value) === Math.max(0, this.steps.length - 1), before = this.steps[Number(this.slider.value)];
    this.steps = steps;
    this.drawn = drawn;
    this.slider.max = Math.max(0, steps.length - 1);
    this.slider.disabled = steps.length < 2;
    const same = steps.indexOf(before);
    this.slider.value = followed || same < 0 ? this.slider.max : same;
    this.draw();
  }

  draw() {
    const step = this.steps[Number(this.slider.value)];
    // Without kept pictures there is the latest one only; its address changes so that it is asked for again.
    const address = step == null ? `/${this.name}.png?${Math.floor(Date.now() / 60000)}` : `/api/v1/pictures/${encodeURIComponent(this.name)}/${step}`;
    if (this.image.getAttribute("src") !== address) this.image.setAttribute("src", address);
    this.slider.setAttribute("aria-valuetext", step == null ? "latest" : `step ${step}`);
    this.step.textContent = step == null ? "the latest (picture.keep = 0)" : `step ${integer(step)}`;
  }
}

/** Shows an answer of /api/v1/pictures. */
export function showPictures({ pictures }) {
  const there = pictures.filter(p => p.drawn || p.steps.length);
  if (!there.length) return;
  for (const { name, columns, steps, drawn } of there) {
    if (!figures.has(name)) figures.set(name, new Picture(name, columns));
    figures.get(name).update(steps, drawn);
  }
  const body = byId("pictures-body"), wanted = there.map(p => figures.get(p.name).element);
  if (wanted.length !== body.children.length || wanted.some((node, n) => body.children[n] !== node)) body.replaceChildren(...wanted);
}
