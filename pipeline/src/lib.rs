//! Bucket of tar shards → bounded queue of decoded, augmented, patch-tokenized batches. Knows no tensors.
//!
//! The path of data, as types:
//! ```text
//! Manifest ─plan(seed, epoch)→ ShardPlan ─fetch→ bytes ─tar→ entries ─group→ RawSample ─decode→ Image
//!    ─augment(SampleRequest)→ views ─tokenize→ visual words ─mask→ sets ─batch→ Batch ─queue→ consumer
//! ```
//! A module imports only from the floors below it:
//! `types request error seed cursor file printable name setting coco` → `metrics` → `decode tokenize mask` (pure: no tokio, no object_store) and `stage` (execution only) →
//! `augment` (of what `decode` made) and `bucket` → `sample` → `config` → `shard` → `batch` → `run` and `pack`. A test holds this.

pub mod augment;
pub mod batch;
pub mod bucket;
pub mod coco;
pub mod config;
pub mod cursor;
pub mod decode;
pub mod error;
pub mod file;
pub mod mask;
pub mod metrics;
pub mod name;
pub mod pack;
pub mod printable;
pub mod request;
pub mod run;
pub mod sample;
pub mod seed;
pub mod setting;
pub mod shard;
pub mod stage;
pub mod tokenize;
pub mod types;
