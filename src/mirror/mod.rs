//! A copy of the run in an object store (`checkpoint.mirror`), so that it outlives its machine.
//!
//! | object | what |
//! | --- | --- |
//! | `run.json` | which run this is: a random id, so that two runs never mix |
//! | `lease.json` | who may write, until when |
//! | `checkpoints/step-00001000/…` | a checkpoint; its `complete.json` comes last and holds the checksums of the others |
//! | `checkpoints/best` | name of the checkpoint of the best evaluation |
//! | `metrics.jsonl`, `journal.jsonl`, `last-good.toml`, pictures | as in the run folder, as of the newest checkpoint at least |
//!
//! A thread of its own (`mirror`) looks at the run folder three times a second and uploads what is new: the trainer knows nothing of it and never waits. Another
//! (`mirror-lease`) renews the lease, also during a long upload, and a third (`mirror-io`) waits for the store's answers.

mod failure;
mod files;
mod flow;
mod handle;
mod holder;
mod identity;
mod inventory;
mod keeper;
mod lease;
mod open;
mod restore;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod upload;

pub use handle::Mirror;
pub use holder::Holder;
pub use open::{Opened, open};
pub use settings::{MirrorSettings, Opening};
pub use status::{MirrorState, MirrorStatus, SharedMirrorStatus};
