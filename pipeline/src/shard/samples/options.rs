//! Which samples of a shard are wanted.

use std::sync::Arc;

use crate::shard::subset::Balance;

/// A member that holds labels of a sample: its label map, or its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMember {
    /// Its extension; empty = there is none.
    pub extension: Arc<str>,
    /// Whether it is read; else it only counts as one of its sample's members.
    pub read: bool,
}

impl LabelMember {
    /// A member of that extension that nobody reads.
    #[must_use]
    pub fn unread(extension: &str) -> Self {
        Self {
            extension: extension.into(),
            read: false,
        }
    }
}

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
    /// The label map beside it.
    pub map: LabelMember,
    /// The objects in it.
    pub objects: LabelMember,
    /// Classes that labels may name; `None` = not known.
    pub classes: Option<u32>,
    /// Bytes above which an image is refused unread.
    pub max_member_bytes: u64,
}
