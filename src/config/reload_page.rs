//! docs/reload.md, made from the keys.

use super::entry;
use super::keys::keys;
use crate::objective::OBJECTIVES;

/// `docs/reload.md`.
#[must_use]
pub fn page() -> String {
    use std::fmt::Write;
    let mut page = String::from(INTRODUCTION);
    let mut heading = String::new();
    for key in keys() {
        let (table, _) = key.path.split_once('.').expect("every key is in a table");
        let kind = key.objective;
        let own = match kind {
            None => format!("## `[{table}]`"),
            Some(kind) => format!("### `[{table}]` with `kind = \"{kind}\"`"),
        };
        if own != heading {
            let _ = write!(page, "\n{own}\n\n");
            if let Some(kind) = kind.and_then(crate::objective::kind) {
                let _ = write!(page, "{} ({}).\n\n", kind.doc, kind.reference);
            }
            page.push_str("| key | class | type | default | what it is |\n| --- | --- | --- | --- | --- |\n");
            heading = own;
        }
        let defaults = super::tree::keys_of(kind.unwrap_or(OBJECTIVES[0].name));
        let default = defaults.get(&key.path);
        let takes = match key.choices() {
            [] => default.map_or("", entry::wanted).to_owned(),
            choices => choices.iter().map(|c| format!("`\"{c}\"`")).collect::<Vec<_>>().join(" or "),
        };
        let default = default.map_or_else(String::new, ToString::to_string);
        let _ = writeln!(page, "| `{}` | {} | {takes} | `{default}` | {} |", key.path, key.class(), key.doc);
    }
    page
}

const INTRODUCTION: &str = "# Every key, and what happens when it changes during a run

<!-- Generated from the structs that own the keys: `SPLITMASK_UPDATE_DOCS=1 cargo test --workspace --test dashboards reference` rewrites this file. -->

A config is read in layers, later ones win: defaults, the file, environment variables (`SPLITMASK_OPTIM__LR=1e-3` sets `optim.lr`),
`--set optim.lr=1e-3`. Paths in it are relative to the directory the command was started in. It holds no credentials: those come from the
environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`) or from files, and an address with a password or a query string is refused.

A running daemon reads the file again on SIGHUP, when the content of the file changes, and on `POST /-/reload`. One reload is one transaction:
read, validate, compare, act on the farthest-reaching class among the changed keys. Whatever fails leaves the old config in force.

The watch of the file (`admin.watch`) takes new content once two looks, a quarter of a second apart, found the same and it ends with a newline. Content
that does not may be half written, however long its writer pauses: it is told after ten seconds as a refused reload, and taken only when the
newline comes, or as it is by SIGHUP or `POST /-/reload`. A writer that dies between two lines cannot be told from one that is done; write beside
the file and rename, and no half file is ever there. A file that is gone for five seconds is told once, and so is its return; the old config goes on.

A whole number may stand where a number is asked for, a list where its key says so. Integers take `_` (`50_000`), numbers an exponent (`1e-3`).

An edit of a key that the environment or `--set` decides has no effect until the process ends. The log, the answer to the reload and the status
(`shadowed`) name the key, the file's value, and what wins. What `splitmask check-config` warns of, and the config before did not have, is told by the log
and the answer (`warnings`).

| class | what happens |
| --- | --- |
| live | taken over at the next step boundary |
| rebuild | the pipeline is rebuilt from the last consumed batch; model and optimizer are not touched; on failure the old one goes on |
| restart | a checkpoint is written and the trainer rebuilt from it in the same process; on failure it is rebuilt with the old config |
| frozen | refused, the key named; a new run can start from the weights with `run.init_from` |

The same classes hold when a stopped run is started again with another config: frozen differences from the newest checkpoint are refused,
the others are printed and taken.
";
