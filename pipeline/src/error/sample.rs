//! Why one sample of a shard is not learnt from.

use thiserror::Error;

/// Why one sample was dropped. The pipeline skips it, counts it by [`SampleError::reason`] and goes on within the failure budget.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SampleError {
    /// Several pictures under its key, and nothing that says which of them is the image.
    #[error("two images under one key ({}): data.image says which one to use", images.join(", "))]
    TwoImages {
        /// Their extensions.
        images: Vec<String>,
    },
    /// Zero bytes, or bytes of no known image format.
    #[error("not an image: {detail}")]
    NotAnImage {
        /// What was seen.
        detail: String,
    },
    /// The header promises more pixels or bytes than the limits allow; refused before allocation.
    #[error("{width}×{height} pixels exceed the limit of {limit}")]
    TooLarge {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Which limit and its value.
        limit: String,
    },
    /// A member with more bytes than the limit; refused before it is read.
    #[error("{bytes} bytes exceed the limit of {limit} (data.max_member_bytes)")]
    TooManyBytes {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The file ends early.
    #[error("truncated: {detail}")]
    Truncated {
        /// Decoder's words.
        detail: String,
    },
    /// The decoder gave up.
    #[error("corrupt: {detail}")]
    Corrupt {
        /// Decoder's words.
        detail: String,
    },
    /// A known format in a flavour that is not decoded (for example arithmetic 12-bit JPEG).
    #[error("unsupported: {detail}")]
    Unsupported {
        /// What it is.
        detail: String,
    },
    /// Too slow to decode (too many progressive scans).
    #[error("too expensive: {detail}")]
    TooExpensive {
        /// What was measured.
        detail: String,
    },
    /// A label map was asked for, and there is none under its key.
    #[error("no label map: no member {member:?} beside the image (data.map names it)")]
    NoMap {
        /// The extension that it would have.
        member: String,
    },
    /// Not a map of classes.
    #[error("label map: {detail}")]
    BadMap {
        /// What it is instead.
        detail: String,
    },
    /// A label map whose pixels do not belong to those of the picture.
    #[error("label map of {map_width}×{map_height} pixels for a picture of {width}×{height}{detail}")]
    MapSize {
        /// Columns of the map.
        map_width: u32,
        /// Rows of the map.
        map_height: u32,
        /// Columns of the picture as it is seen upright.
        width: u32,
        /// Rows of the picture as it is seen upright.
        height: u32,
        /// More about it, beginning with its own punctuation; or nothing.
        detail: String,
    },
    /// Objects were asked for, and there is no member that tells of them under its key.
    #[error("no objects: no member {member:?} beside the image (data.objects names it)")]
    NoObjects {
        /// The extension that it would have.
        member: String,
    },
    /// No list of objects in COCO's form.
    #[error("objects: {detail}")]
    BadObjects {
        /// What is wrong, and where.
        detail: String,
    },
    /// Objects of a picture of another size than this one.
    #[error("objects of a picture of {objects_width}×{objects_height} pixels, where the picture has {width}×{height}{detail}")]
    ObjectsSize {
        /// Columns of the picture that the objects were marked in.
        objects_width: u32,
        /// Rows of it.
        objects_height: u32,
        /// Columns of the picture as it is seen upright.
        width: u32,
        /// Rows of the picture as it is seen upright.
        height: u32,
        /// More about it, beginning with its own punctuation; or nothing.
        detail: &'static str,
    },
}

impl SampleError {
    /// All values of [`SampleError::reason`], for counters that start at 0.
    pub const REASONS: [&'static str; 13] = [
        "two_images",
        "not_an_image",
        "too_large",
        "truncated",
        "corrupt",
        "unsupported",
        "too_expensive",
        "no_map",
        "bad_map",
        "map_size",
        "no_objects",
        "bad_objects",
        "objects_size",
    ];

    /// Closed label for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TwoImages { .. } => "two_images",
            Self::NotAnImage { .. } => "not_an_image",
            Self::TooLarge { .. } | Self::TooManyBytes { .. } => "too_large",
            Self::Truncated { .. } => "truncated",
            Self::Corrupt { .. } => "corrupt",
            Self::Unsupported { .. } => "unsupported",
            Self::TooExpensive { .. } => "too_expensive",
            Self::NoMap { .. } => "no_map",
            Self::BadMap { .. } => "bad_map",
            Self::MapSize { .. } => "map_size",
            Self::NoObjects { .. } => "no_objects",
            Self::BadObjects { .. } => "bad_objects",
            Self::ObjectsSize { .. } => "objects_size",
        }
    }
}
