// The head of the page: what the run does, its numbers of now, when it ends, what is wrong.

import { byId, el, put } from "./dom.js";
import { duration, integer, moment, number, percent, words } from "./format.js";

const tile = (name, value, more) => el("div", { class: "card tile" }, el("h3", {}, name), el("p", { class: "big" }, value), more ? el("p", { class: "dim" }, more) : null);

/** Why no end can be told, or null. */
function standing(s) {
  if (s.state === "finished") return "finished";
  if (s.draining) return "the run is being ended";
  if (s.stuck) return "the run is stuck";
  if (s.paused) return "the run is paused";
  if (s.waiting) return "the bucket does not answer";
  return null;
}

function remaining(s, secondsPerStep) {
  const still = standing(s), left = Math.max(0, s.total_steps - s.step);
  if (still) return tile("time left", "–", still);
  if (!left || !secondsPerStep) return tile("time left", "–", left ? "known after two log lines" : "the schedule is done");
  const seconds = left * secondsPerStep;
  return tile("time left", duration(seconds), `ends ${moment(new Date(Date.now() + 1000 * seconds))} at ${number(secondsPerStep)} s a step`);
}

function evaluation(e) {
  const names = { loss: "validation loss", spread: "effective rank" };
  const value = e.task in names ? number(e.accuracy) : percent(e.accuracy);
  return tile(names[e.task] ?? `${e.task} accuracy`, value, `at step ${integer(e.step)}`);
}

/** Shows the status; `secondsPerStep` comes from the history. */
export function showFacts(s, secondsPerStep) {
  const done = s.total_steps ? s.step / s.total_steps : 0;
  document.title = `${s.run} · ${integer(s.step)}`;
  byId("run").textContent = s.run;
  byId("where").textContent = `${s.objective} · ${s.run_dir} · up ${duration(s.uptime_seconds)}`;
  byId("version").textContent = `splitmask ${s.version}`;
  const bad = s.stuck || s.paused || s.waiting;
  put(byId("state"), s.stuck ? `stuck: ${s.stuck}` : s.paused ? `paused: ${s.paused}` : s.waiting ? `waiting for the bucket: ${s.waiting}` : s.draining ? "draining" : words(s.state));
  byId("state").classList.toggle("bad", Boolean(bad));
  byId("done").value = done;
  const tiles = [
    tile("step", integer(s.step), `of ${integer(s.total_steps)} (${percent(done)}), epoch ${integer(s.epoch)}`),
    remaining(s, secondsPerStep),
    tile("images/s", number(s.images_per_second), `${percent(s.data_wait_ratio)} of the time waiting for data`),
    tile("learning rate", number(s.learning_rate), `gradient norm ${number(s.grad_norm)}`),
    tile("last checkpoint", s.last_checkpoint_step == null ? "–" : integer(s.last_checkpoint_step), "step"),
    ...s.evaluations.map(evaluation),
  ];
  if (s.mirror.state !== "off") tiles.push(tile("mirror", s.mirror.step == null ? "–" : integer(s.mirror.step), s.mirror.last_error ? `${s.mirror.state}: ${s.mirror.last_error}` : s.mirror.state));
  if (s.best) tiles.push(tile(s.overfitting ? "best (over-fitting since)" : "best", number(s.best.value), `${words(s.best.measure)} at step ${integer(s.best.step)}`));
  put(byId("facts"), ...tiles);
  trouble(s);
}

function trouble(s) {
  const lines = Object.entries(s.faults).filter(([, n]) => n > 0).map(([reason, n]) => `${integer(n)} samples dropped: ${words(reason)}`);
  for (const c of s.collapsed) lines.push(`for ${integer(c.intervals)} log intervals, ${c.help}; look for ${c.remedy}`);
  for (const f of s.side_failures) lines.push(`${words(f.task)} failed at step ${integer(f.step)}: ${f.error}`);
  if (s.unwritten_lines) lines.push(`${integer(s.unwritten_lines)} lines wait for room on the disk; the curves lack them`);
  const reload = s.config.last_reload;
  if (reload?.error) lines.push(`The last reload (${reload.trigger}, ${moment(new Date(reload.time))}) was not taken over: ${reload.error}`);
  for (const key of reload?.shadowed ?? []) lines.push(`Without effect: ${key}`);
  byId("trouble").hidden = lines.length === 0;
  put(byId("trouble"), el("ul", {}, ...lines.map(line => el("li", {}, line))));
}

/** The daemon does not answer. */
export function showSilence(why) {
  put(byId("state"), `no answer: ${why}`);
  byId("state").classList.add("bad");
}
