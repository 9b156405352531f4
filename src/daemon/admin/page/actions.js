// What a person may do from here: write a checkpoint, reload, edit. Only where the daemon allows it.

import { post, useToken } from "./api.js";
import { byId, put } from "./dom.js";
import { integer } from "./format.js";
import { closeEditor, openEditor } from "./editor.js";
import { changeList, reloadWords } from "./reports.js";

const said = (...words) => put(byId("act-said"), ...words);

/** Runs an act with its button off, and shows what goes wrong. */
async function acting(button, act) {
  button.disabled = true;
  try {
    await act();
  } catch (error) {
    said(`It could not be asked: ${error.message}`);
  } finally {
    button.disabled = false;
  }
}

byId("checkpoint").addEventListener("click", event => acting(event.currentTarget, async () => {
  said("Writing a checkpoint…");
  const { status, answer } = await post("/-/checkpoint");
  said(status === 200 ? `Checkpoint of step ${integer(answer.step)}: ${answer.path}` : `No checkpoint: ${answer.error}`);
}));

byId("reload").addEventListener("click", event => acting(event.currentTarget, async () => {
  said("Reloading…");
  const { answer } = await post("/-/reload");
  said(reloadWords(answer), changeList(answer.changes ?? []));
}));

byId("pause").addEventListener("click", event => acting(event.currentTarget, async () => {
  const goOn = byId("pause").dataset.held === "true";
  said(goOn ? "Going on…" : "Pausing behind this step…");
  const { status, answer } = await post(goOn ? "/-/resume" : "/-/pause");
  if (status !== 200) return said(`${goOn ? "It does not go on" : "Not paused"}: ${answer.error}`);
  showHeld(!goOn);
  if (goOn) return said(`Going on from step ${integer(answer.step)}.`);
  said(`Paused at step ${integer(answer.step)}. ${answer.checkpoint ? `Its checkpoint: ${answer.checkpoint}` : `Its checkpoint cannot be written, and is tried again: ${answer.error}`}`);
}));

/** One button for both ways. */
function showHeld(held) {
  byId("pause").dataset.held = String(held);
  byId("pause").textContent = held ? "Go on" : "Pause";
}

byId("edit").addEventListener("click", event => acting(event.currentTarget, async () => {
  const open = byId("editor").hidden;
  byId("edit").setAttribute("aria-expanded", String(open));
  await (open ? openEditor() : closeEditor());
}));

byId("token").addEventListener("input", event => useToken(event.currentTarget.value));

/** Shows what the daemon allows. */
export function showActs(status) {
  byId("act-on").hidden = !status.lifecycle;
  if (!byId("pause").disabled) showHeld(status.pause_asked);
  byId("token-row").hidden = !status.asks_for_token;
  byId("act-off").hidden = status.lifecycle;
  byId("act-off").textContent = "This page only shows: the daemon was started without --enable-lifecycle (admin.lifecycle = true).";
}
