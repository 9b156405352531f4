// The pipeline: which stage limits, in words, and what each does with its time.

import { byId, cell, el, put } from "./dom.js";
import { integer, number, percent } from "./format.js";

/** Stages whose threads are shared. */
const WORKERS = ["decode", "augment", "tokenize"];

/** A bar of shares of the whole; what they are of is said in the text beside it. */
function bar(parts) {
  const node = el("div", { class: "bar", "aria-hidden": "true" });
  for (const [kind, share] of parts) {
    const part = el("i", { class: kind });
    part.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
    node.append(part);
  }
  return node;
}

/** The end of the queue: its time is the trainer's, of which only the waiting is the pipeline's. */
const trainer = wait => ({ stage: "consume", busy: 1 - (wait ?? 0), waits_for_input: wait ?? 0, waits_for_next_stage: 0 });

function row({ stage, busy, waits_for_input: input, waits_for_next_stage: next }, workers, limits) {
  // The workers' waiting is counted for all three of their stages together; requests to the store wait for nobody.
  const shared = WORKERS.includes(stage), time = shared ? workers : busy + input + next, waits = input + next > 0 || stage === "consume";
  const shares = shared ? [busy / time, 0, 0] : waits ? [busy / time, input / time, next / time] : [busy, 0, 0];
  const said = shared ? `${percent(shares[0])} of the workers' time` : waits ? `${percent(shares[0])} of its time` : busy > 0 ? `${number(busy)} under way on average` : "idle";
  const name = limits ? el("b", {}, `${stage} (limits)`) : stage;
  return el("tr", {}, cell("stage", name), cell("share of time", bar([["busy", shares[0]], ["input", shares[1]], ["next", shares[2]]])),
    cell("busy", said));
}

/** Shows an answer of /api/v1/pipeline. */
export function showPipeline(answer) {
  const { limit, queue, flow, stages, workers } = answer, parts = [];
  if (limit) parts.push(el("p", { class: "limit" }, el("strong", {}, limit.what), " ", limit.remedy.replaceAll("`", "")));
  else parts.push(el("p", { class: "dim" }, answer.window_seconds == null ? "Measuring…" : "Nothing is consumed at present, so nothing limits."));
  const rates = flow.map(f => `${f.stage} ${number(f.samples_per_second)}`).join(" → ");
  if (rates) parts.push(el("p", {}, "Images a second: ", rates));
  if (queue.capacity_batches) {
    parts.push(el("p", {}, `Queue: ${integer(queue.batches)} of ${integer(queue.capacity_batches)} batches `, bar([["busy", queue.batches / queue.capacity_batches]])));
  }
  if (stages.length) {
    parts.push(el("table", { class: "stages" },
      el("caption", { class: "dim" }, `the last ${Math.round(answer.window_seconds)} s, ${integer(workers)} workers: `, el("span", { class: "key busy" }, "busy"), " ", el("span", { class: "key input" }, "waits for input"), " ", el("span", { class: "key next" }, "waits for the next stage")),
      el("tbody", {}, ...stages.map(s => row(s.stage === "consume" ? trainer(answer.data_wait) : s, workers, limit?.stage === s.stage)))));
  }
  put(byId("pipeline-body"), ...parts);
}
