//! Closed sets of label values.

/// A closed set of label values; the enum's discriminant is the index of its series.
pub trait Label: Copy + 'static {
    /// Texts of all values, in order of their discriminants.
    const ALL: &'static [&'static str];
    /// The values in the same order.
    const VALUES: &'static [Self];
    /// Index in [`Label::ALL`].
    fn index(self) -> usize;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl Label for $name {
            const ALL: &'static [&'static str] = &[$($text),+];
            const VALUES: &'static [Self] = &[$(Self::$variant),+];
            fn index(self) -> usize { self as usize }
        }
        impl $name {
            /// The label's text.
            #[must_use]
            pub fn text(self) -> &'static str { <Self as Label>::ALL[self as usize] }
        }
    };
}

label!(
    /// How far a sample has come.
    Progress {
        /// Whole in memory, undecoded.
        Read = "read",
        /// Decoded to pixels.
        Decoded = "decoded",
        /// Cropped and coloured.
        Augmented = "augmented",
        /// Its visual words are known.
        Tokenized = "tokenized",
        /// Copied into a batch.
        Batched = "batched",
        /// Taken by the trainer.
        Consumed = "consumed",
    }
);
label!(
    /// A stage whose time is counted. Seconds are summed over the stage's threads.
    Stage {
        /// Requests to the store.
        Fetch = "fetch",
        /// Tar reading and grouping.
        Read = "read",
        /// JPEG, PNG … to pixels.
        Decode = "decode",
        /// Crop, resize, colour.
        Augment = "augment",
        /// Visual words and masks.
        Tokenize = "tokenize",
        /// Copying into batches.
        Batch = "batch",
        /// The consumer at the end of the queue.
        Consume = "consume",
    }
);
label!(
    /// Where shards live.
    Scheme {
        /// Local files.
        File = "file",
        /// Amazon S3 and compatible stores.
        S3 = "s3",
        /// Google Cloud Storage.
        Gs = "gs",
        /// Azure Blob Storage.
        Az = "az",
        /// Plain HTTP(S) server.
        Http = "http",
    }
);
label!(
    /// What is asked of a store.
    StoreOp {
        /// Bytes of an object.
        Get = "get",
        /// An object's size and ETag.
        Head = "head",
        /// Names under a prefix.
        List = "list",
        /// Anything else (credentials).
        Other = "other",
    }
);
label!(
    /// Class of a store's answer.
    CodeClass {
        /// Success.
        Success = "2xx",
        /// Redirection or not modified.
        Redirect = "3xx",
        /// Our fault: missing, denied, changed, throttled (429).
        Client = "4xx",
        /// The server's fault.
        Server = "5xx",
        /// No answer: connection refused, reset, timed out.
        Error = "error",
    }
);
label!(
    /// Why a read is tried again.
    RetryReason {
        /// 429 or 503.
        Throttled = "throttled",
        /// Another 5xx, or 408.
        Server = "server",
        /// No byte for the read timeout.
        Timeout = "timeout",
        /// Connection refused or broken.
        Connection = "connection",
        /// The body ended early without an error.
        EarlyEnd = "early_end",
        /// 401 or 403, tried once more with fresh credentials.
        Denied = "denied",
        /// Anything else.
        Other = "other",
    }
);
label!(
    /// How what is there differs from what a manifest says, or from what is read of it.
    ManifestDifference {
        /// Named, but not there.
        Missing = "missing",
        /// There, but not named.
        Unknown = "unknown",
        /// Another size.
        Size = "size",
        /// Another number of samples.
        Samples = "samples",
        /// A label beyond the list of classes.
        Label = "label",
        /// Other bytes.
        Checksum = "checksum",
        /// Another number of samples of a class.
        LabelCount = "label_count",
        /// A compressed archive beside the shards.
        Compressed = "compressed",
        /// A folder beside the shards that holds shards too.
        Folder = "folder",
    }
);
label!(
    /// What became of an object in a view.
    ObjectFate {
        /// It is in the batch.
        Kept = "kept",
        /// The crop, or its own box, lies elsewhere.
        Outside = "outside",
        /// Left out: less than a pixel wide or high.
        Small = "small",
        /// Left out: less than a tenth of its box, or no pixel of its mask, is seen.
        Hidden = "hidden",
    }
);
label!(
    /// Why an entry of a tar is no part of a sample.
    PassedOver {
        /// A folder.
        Directory = "directory",
        /// A hard link.
        HardLink = "hard_link",
        /// A symbolic link.
        SymbolicLink = "symbolic_link",
        /// A device or a pipe.
        Special = "special_file",
        /// A type of entry that belongs to one tar program.
        OtherKind = "other_kind",
        /// A name that begins with a dot, or lies in such a folder or in `__MACOSX`.
        Hidden = "hidden",
        /// A name without an extension.
        NoExtension = "no_extension",
        /// An extension that is neither an image's nor `cls` nor `json`.
        UnknownExtension = "unknown_extension",
        /// A picture beside the one that `data.image` chooses.
        SecondImage = "second_image",
        /// A second member of one name, or a second label of one sample.
        Duplicate = "duplicate",
        /// A member apart from the sample of its key.
        Scattered = "scattered",
        /// What belongs to a sample that has no image.
        NoImage = "no_image",
        /// A label that is no class index; its sample has no label.
        BadLabel = "bad_label",
        /// A label beyond the manifest's classes; its sample has no label.
        UnknownClass = "unknown_class",
        /// A `.json` member that cannot be read where `data.fraction` needs it.
        BadJson = "bad_json",
        /// A member behind the end marker, as of a second tar appended to the first.
        BehindEnd = "behind_end",
        /// A member that the end of the shard cuts off.
        CutOff = "cut_off",
        /// No member, but the end marker itself is missing: the shard may have been cut between two members.
        NoEndMarker = "no_end_marker",
    }
);

impl PassedOver {
    /// Whether such entries are to be expected in good shards, so that nobody needs to be warned.
    #[must_use]
    pub fn is_usual(self) -> bool {
        matches!(self, Self::Directory | Self::UnknownExtension | Self::SecondImage)
    }
}
