//! One optimizer step: a pass over the batch in micro-batches, and what its gradients change.

mod exchanged;
mod kept_parts;
mod memory;
mod micro_batches;
mod partners;
pub(super) mod pass;
mod recorded;
pub(super) mod recordings;
mod update;

pub(super) use update::take_step;
