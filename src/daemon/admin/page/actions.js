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

byId("edit").addEventListener("click", event => acting(event.currentTarget, async () => {
  const open = byId("editor").hidden;
  byId("edit").setAttribute("aria-expanded", String(open));
  await (open ? openEditor() : closeEditor());
}));

byId("token").addEventListener("input", event => useToken(event.currentTarget.value));

/** Shows what the daemon allows. */
export function showActs(status) {
  byId("act-on").hidden = !status.lifecycle;
  byId("token-row").hidden = !status.asks_for_token;
  byId("act-off").hidden = status.lifecycle;
  byId("act-off").textContent = "This page only shows: the daemon was started without --enable-lifecycle (admin.lifecycle = true).";
}
