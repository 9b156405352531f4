//! Which samples of a shard are wanted.

use std::sync::Arc;

use crate::shard::subset::Balance;

/// Which samples of a shard are wanted.
#[derive(Debug, Clone)]
pub struct SampleOptions {
    /// Epoch and shard of the samples' ids.
    pub epoch: u32,
    /// Index of the shard.
    pub shard: u32,
    /// Path of the shard.
    pub path: Arc<str>,
    /// Keys at the start that are passed over, counting all of them.
    pub skip: u32,
    /// Key, counted as they are, at which it ends; `None` = the end of the shard.
    pub until: Option<u32>,
    /// Share of the samples to keep, by hash of the key.
    pub fraction: f64,
    /// Exact shares of each class, for samples that know their rank in it.
    pub balance: Option<Arc<Balance>>,
    /// Extensions of the image, in order of preference; empty = the only picture of a key.
    pub images: Arc<[String]>,
    /// Classes that labels may name; `None` = not known.
    pub classes: Option<u32>,
    /// Bytes above which an image is refused unread.
    pub max_member_bytes: u64,
}
