//! A shard of a place: what is known of it, and where its bytes are.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::path::Path;

/// Where the bytes of a shard are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A local file.
    File(PathBuf),
    /// A key in the bucket's store.
    Object(Path),
}

/// One tar shard of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Index in the unshuffled order.
    pub index: u32,
    /// Path or key, for messages.
    pub path: Arc<str>,
    /// Size, if known before reading.
    pub bytes: Option<u64>,
    /// Samples in it, if a manifest says so.
    pub samples: Option<u32>,
    /// Hex SHA-256, if a manifest says so.
    pub sha256: Option<Arc<str>>,
    /// Its size is not the manifest's, so that nothing else of the manifest holds for it: what its labels mean is unknown.
    pub replaced: bool,
    /// Where its bytes are.
    pub place: Place,
}
