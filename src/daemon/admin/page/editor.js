// Edits the config file: what would change is shown with each key's class before anything is applied.

import { post, read } from "./api.js";
import { excerpt, lines } from "./diff.js";
import { byId, el, put } from "./dom.js";
import { changeList, reloadWords } from "./reports.js";

/** The file as it was read, and the text that the last check let pass. */
let file = null, passed = null;

const said = (...words) => put(byId("editor-said"), ...words);

/** The text, ending with a newline as files do. */
const text = () => byId("text").value.replace(/\n*$/, "\n");

function forget() {
  passed = null;
  byId("apply").disabled = true;
}

function showDiff() {
  const all = lines(file.text, text()), changed = all.some(([sign]) => sign !== " ");
  byId("diff").hidden = !changed;
  const names = { "-": "removed", "+": "added", " ": "same", "…": "gap" };
  put(byId("diff"), ...excerpt(all).map(([sign, line]) => el("span", { class: names[sign] }, `${sign} ${line}\n`)));
  return changed;
}

async function load() {
  forget();
  file = await read("/api/v1/config/text");
  byId("text").value = file.text;
  put(byId("text-label"), "The config file ", el("code", {}, file.file));
  put(byId("changes"));
  byId("diff").hidden = true;
  said("");
}

/** Reads the file and shows it. */
export async function openEditor() {
  byId("editor").hidden = false;
  byId("check").disabled = true;
  try {
    await load();
    byId("check").disabled = false;
    byId("text").focus();
  } catch (error) {
    said(`The file cannot be shown: ${error.message}`);
  }
}

export function closeEditor() {
  byId("editor").hidden = true;
  forget();
}

/** What is wrong, by place. */
const problems = list => el("ul", {}, ...list.map(p => {
  const at = p.place?.file ? `line ${p.place.file.line}, column ${p.place.file.column}: ` : "";
  return el("li", {}, at, p.key ? el("code", {}, p.key) : null, p.key ? " " : null, p.message, p.hint ? ` (${p.hint})` : null);
}));

byId("text").addEventListener("input", () => {
  forget();
  if (file) showDiff();
});

byId("check").addEventListener("click", async () => {
  forget();
  said("Checking…");
  const checked = text();
  try {
    const { answer } = await post("/-/reload?dry_run=1", checked);
    const differs = showDiff(), passes = answer.outcome === "applied" || (answer.outcome === "unchanged" && differs);
    said(answer.outcome === "applied" ? "Valid. Apply writes the file and takes over:" : answer.outcome === "unchanged" ? (differs ? "Valid, and no setting changes: Apply only writes the file." : "Nothing was edited.") : `It would be refused (${answer.outcome ?? "no answer"}): ${answer.problems?.length ? "" : answer.error}`);
    put(byId("changes"), changeList(answer.changes ?? []), problems(answer.problems ?? []), problems([...(answer.shadowed ?? []), ...(answer.warnings ?? [])].map(message => ({ message }))));
    if (passes && checked === text()) {
      passed = checked;
      byId("apply").disabled = false;
    }
  } catch (error) {
    said(`It could not be checked: ${error.message}`);
  }
});

byId("apply").addEventListener("click", async () => {
  if (passed == null || passed !== text()) return forget();
  const applied = passed;
  forget();
  said("Applying…");
  try {
    const { status, answer } = await post("/-/reload", applied, { "If-Match": file.sha256 });
    if (status === 200) await load();
    said(reloadWords(answer), status === 412 ? " Your text is still here; read the file again to start from what it holds now." : "");
    put(byId("changes"), changeList(answer.changes ?? []), problems(answer.problems ?? []));
  } catch (error) {
    said(`It could not be applied: ${error.message}`);
  }
});

byId("again").addEventListener("click", async () => {
  try {
    await load();
  } catch (error) {
    said(`The file cannot be shown: ${error.message}`);
  }
});
