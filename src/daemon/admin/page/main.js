// Asks the daemon again and again, and shows what it answers. While the page is hidden it asks nothing.

import { read } from "./api.js";
import { showActs } from "./actions.js";
import { showConfig } from "./config.js";
import { offerEarlier, showCurves } from "./curves.js";
import { byId } from "./dom.js";
import { showEvents } from "./events.js";
import { showFacts, showSilence } from "./facts.js";
import { showPictures } from "./pictures.js";
import { showPipeline } from "./pipeline.js";

/** Milliseconds between two looks. */
const EVERY = { status: 2000, history: 6000, events: 6000, pictures: 20000 };

/** A long history is asked for less often: it is up to a megabyte. */
const mayLook = what => what !== "history" || !known.history || Date.now() - known.at >= Math.min(30000, 10 * known.history.lines);

const known = { status: null, history: null, beside: null, events: null, generation: null, at: 0 };

function draw() {
  const { status, history, beside, events } = known;
  if (!status || !history) return;
  showFacts(status, history.seconds_per_step);
  showCurves({
    history, beside, chance: status.chance, events: events?.events ?? [], share: Number(byId("range").value),
    marks: byId("marks").checked, logarithmic: byId("log").checked,
  });
}

async function lookAtStatus() {
  const [status, pipeline] = await Promise.all([read("/api/v1/status"), read("/api/v1/pipeline")]);
  known.status = status;
  showFacts(status, known.history?.seconds_per_step);
  showActs(status);
  showPipeline(pipeline);
  if (status.config.generation !== known.generation) {
    showConfig(await read("/api/v1/config"));
    known.generation = status.config.generation;
  }
}

async function lookAtHistory() {
  known.history = await read("/api/v1/history");
  known.at = Date.now();
  offerEarlier(known.history.earlier);
  const of = byId("compare").value;
  known.beside = of ? await read(`/api/v1/history?of=${encodeURIComponent(of)}`) : null;
  draw();
  // A long file comes in parts.
  if (!known.history.complete || known.beside?.complete === false) setTimeout(() => look("history"), 200);
}

async function lookAtEvents() {
  known.events = await read("/api/v1/events");
  showEvents(known.events);
  draw();
}

const looks = { status: lookAtStatus, history: lookAtHistory, events: lookAtEvents, pictures: async () => showPictures(await read("/api/v1/pictures")) };
const running = new Set();

/** One look; a second of the same kind waits for its turn. */
async function look(what) {
  if (running.has(what)) return;
  running.add(what);
  try {
    await looks[what]();
  } catch (error) {
    showSilence(`${what}: ${error.message}`);
  } finally {
    running.delete(what);
  }
}

const lookAll = () => Promise.all(Object.keys(looks).map(look));

for (const [what, every] of Object.entries(EVERY)) setInterval(() => document.hidden || !mayLook(what) || look(what), every);
document.addEventListener("visibilitychange", () => document.hidden || lookAll());
for (const id of ["range", "marks", "log"]) byId(id).addEventListener("change", draw);
byId("compare").addEventListener("change", () => look("history"));
byId("events-kind").addEventListener("change", () => known.events && showEvents(known.events));
lookAll().then(() => document.documentElement.setAttribute("data-ready", ""));
