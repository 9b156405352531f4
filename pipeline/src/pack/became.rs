//! How a picture was changed, for what lies on it.

/// What became of the picture between its file and the shard.
pub(in crate::pack) struct Became {
    /// Columns and rows after it was shrunk.
    pub(in crate::pack) shrunk: (u32, u32),
    /// Side of the square that it was centred on.
    pub(in crate::pack) square: Option<u32>,
    /// Whether the file's own bytes are packed, which may be turned (EXIF).
    pub(in crate::pack) as_it_was: bool,
}
