//! Errors by failure scope: one sample, one shard, the run. Each carries its identity and, where there is one, a hint.

mod sample;

use thiserror::Error;

pub use self::sample::SampleError;
use crate::setting::Violation;

/// Why one shard could not be read to its end.
#[derive(Debug, Error)]
pub enum ShardError {
    /// The store has no such object.
    #[error("shard {shard}: not found")]
    NotFound {
        /// Object path.
        shard: String,
    },
    /// Refused while others are served with the same credentials: not there, as far as those can tell. Stores that may not be listed say so
    /// of a missing object.
    #[error("shard {shard}: missing, or not for these credentials, which others are served with: {detail}")]
    Refused {
        /// Object path.
        shard: String,
        /// Store's words, secrets cut.
        detail: String,
    },
    /// Credentials missing, wrong or expired.
    #[error("shard {shard}: access denied: {detail}")]
    Denied {
        /// Object path.
        shard: String,
        /// Store's words, secrets cut.
        detail: String,
    },
    /// Retries used up the retry budget.
    #[error("shard {shard}: gave up at byte {offset} after {attempts} attempts in {elapsed_s:.0} s: {detail}")]
    Unreachable {
        /// Object path.
        shard: String,
        /// Byte offset of the failing read.
        offset: u64,
        /// Attempts on that read.
        attempts: u32,
        /// Seconds spent on them.
        elapsed_s: f64,
        /// Last error.
        detail: String,
    },
    /// The object changed while it was read.
    #[error("shard {shard}: changed while it was read (ETag {before} → {after})")]
    Changed {
        /// Object path.
        shard: String,
        /// ETag at the first read.
        before: String,
        /// ETag now.
        after: String,
    },
    /// The tar stream ends inside a member or its end marker is missing data.
    #[error("shard {shard}: truncated after sample {samples}")]
    Truncated {
        /// Object path.
        shard: String,
        /// Whole samples delivered.
        samples: u32,
    },
    /// Bad header checksum, oversized extension header, garbage between members.
    #[error("shard {shard}: not a readable tar after sample {samples}: {detail}")]
    Malformed {
        /// Object path.
        shard: String,
        /// Whole samples delivered.
        samples: u32,
        /// Reader's words.
        detail: String,
    },
    /// A tar inside a compression format.
    #[error("shard {shard}: compressed with {format}; shards are plain tar files")]
    Compressed {
        /// Object path.
        shard: String,
        /// Name of the format.
        format: &'static str,
    },
}

impl ShardError {
    /// All values of [`ShardError::reason`].
    pub const REASONS: [&'static str; 7] = [
        "not_found",
        "denied",
        "unreachable",
        "changed",
        "truncated",
        "malformed",
        "compressed",
    ];

    /// Closed label for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::Refused { .. } => "not_found",
            Self::Denied { .. } => "denied",
            Self::Unreachable { .. } => "unreachable",
            Self::Changed { .. } => "changed",
            Self::Truncated { .. } => "truncated",
            Self::Malformed { .. } => "malformed",
            Self::Compressed { .. } => "compressed",
        }
    }

    /// What to do about it, whatever the policy for such shards is.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let (program, shard) = match self {
            Self::Denied { .. } => {
                return Some(
                    "credentials may have expired or do not cover this place; they are read from the environment (AWS_*, GOOGLE_*, AZURE_*)".into(),
                );
            }
            Self::Compressed { format, shard } => match *format {
                "gzip" => ("gzip -dc", shard),
                "bzip2" => ("bzip2 -dc", shard),
                "zip" => ("unzip -p", shard),
                other => {
                    return Some(format!(
                        "decompress it first, for example with `{other} -dc`; images are compressed already"
                    ));
                }
            },
            _ => return None,
        };
        Some(format!(
            "decompress it first: `{program} {shard} > plain.tar`; images are compressed already"
        ))
    }
}

/// Why the pipeline cannot start or go on.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// A location that cannot be understood.
    #[error("{url}: {detail}")]
    BadUrl {
        /// As written.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The bucket or folder holds no shard.
    #[error("{url}: no shards found ({detail})")]
    Empty {
        /// As written.
        url: String,
        /// What was looked for.
        detail: String,
    },
    /// Several pictures under one key at the start, and nothing that says which of them is the image.
    #[error("shard {shard}: two images under key {key}: {images}; members seen so far: {seen}")]
    TwoImages {
        /// Object path.
        shard: String,
        /// The first such key.
        key: String,
        /// Extensions of its pictures.
        images: String,
        /// Members by extension, as text.
        seen: String,
        /// A value for `data.image`.
        example: String,
    },
    /// A whole pass over the shards gave no sample.
    #[error("{url}: no sample in {shards} shards: {detail}")]
    NoSample {
        /// The first shard.
        url: String,
        /// Shards of the place.
        shards: usize,
        /// What was there instead.
        detail: String,
        /// Why the last shard that failed did, if any failed.
        last: Option<ShardError>,
    },
    /// Nobody answered a listing or the reading of the manifest, or only to say "not now", also after retries. Nothing says that the address is wrong.
    #[error("{url}: unreachable: {detail}")]
    Unreachable {
        /// As written.
        url: String,
        /// Store's words.
        detail: String,
    },
    /// The place answers and will not give what is asked for: credentials, or an address that means something else. Waiting does not help.
    #[error("{url}: refused: {detail}")]
    Refused {
        /// As written.
        url: String,
        /// Store's words.
        detail: String,
    },
    /// A manifest that does not parse or contradicts the bucket.
    #[error("{url}: bad manifest: {detail}")]
    BadManifest {
        /// Its location.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// Codebook and view plan do not fit.
    #[error("codebook {path}: {detail}")]
    BadCodebook {
        /// Its file.
        path: String,
        /// What does not fit.
        detail: String,
    },
    /// The data is too small, or too flat, for a vocabulary of this size.
    #[error("words = {words}: only {found} distinct patches that are not flat were found in {images} images")]
    FewPatches {
        /// Words asked for.
        words: usize,
        /// Patches that could be words.
        found: usize,
        /// Images that were looked at.
        images: u64,
    },
    /// More samples failed than the budget allows.
    #[error("{failed} of the last {seen} samples failed (budget {budget}); for example {examples}")]
    FailureBudget {
        /// Dropped samples in the window.
        failed: u64,
        /// Window.
        seen: u64,
        /// Allowed share.
        budget: f64,
        /// Up to five `shard:key (reason)`.
        examples: String,
    },
    /// A shard failed and the policy is to stop, or every shard of an epoch failed.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A setting out of range.
    #[error("{key} = {value}: {detail}")]
    BadSetting {
        /// Config key.
        key: String,
        /// Its value.
        value: String,
        /// What is allowed.
        detail: String,
    },
    /// File system.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// A stage panicked.
    #[error("stage {stage} panicked: {detail}")]
    Panicked {
        /// Its name.
        stage: &'static str,
        /// Panic message.
        detail: String,
    },
    /// A stage broke what it promises to the next one, without a panic.
    #[error("stage {stage}: {detail}")]
    Broken {
        /// Its name.
        stage: &'static str,
        /// What was not kept.
        detail: String,
    },
}

impl From<Violation> for PipelineError {
    fn from(v: Violation) -> Self {
        Self::BadSetting {
            key: v.key,
            value: v.value,
            detail: v.allowed,
        }
    }
}

impl PipelineError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::BadUrl { .. } => "use a path, file://, s3://bucket/prefix, gs://, az://, http(s)://…; shards as a folder, a glob or a range {000000..000146}.tar".into(),
            Self::Empty { .. } => "make shards with `splitmask pack FOLDER OUT`, or look at the place with `splitmask inspect URL`".into(),
            Self::Unreachable { .. } => "the store may be away for a while; if not, check the address and data.endpoint".into(),
            Self::Refused { .. } => "check the address, the credentials in the environment (AWS_*, GOOGLE_*, AZURE_*) and data.endpoint".into(),
            Self::BadManifest { .. } => "delete manifest.json to fall back to listing, or pack again".into(),
            Self::FewPatches { found, .. } => format!("ask for at most {found} words, or give more images"),
            Self::BadCodebook { .. } => "make one that fits with `splitmask codebook`".into(),
            Self::FailureBudget { .. } => "look at the named members; raise data.failure_budget if such losses are acceptable (a paused run takes a reload)".into(),
            Self::TwoImages { example, .. } => format!("set data.image = \"{example}\", or a list of extensions in order of preference (`inspect` and `codebook`: --extension {example}); a key ends at the first dot of the file name"),
            Self::NoSample { last: Some(error), .. } => return error.hint(),
            Self::NoSample { .. } => "`splitmask inspect` shows what is there; data.image names the extension of the images where it is another one".into(),
            // It ends a stream only where the policy says so.
            Self::Shard(error) => error.hint().unwrap_or_else(|| "set data.on_shard_error = \"skip\" to go on without such shards".into()),
            Self::BadSetting { .. } | Self::Io { .. } => return None,
            Self::Panicked { .. } | Self::Broken { .. } => "this is a bug; the log holds the place".into(),
        })
    }
}
