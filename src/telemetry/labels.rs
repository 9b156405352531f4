//! Labels whose values are known at compile time, so that the number of series is bounded and each starts at 0.

use std::marker::PhantomData;

/// A label whose values are known at compile time, so that the number of series is bounded.
pub trait ClosedLabel: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All its values, in order of their index.
    const ALL: &'static [Self];
    /// Its value as it stands in the exposition.
    fn label(self) -> &'static str;
    /// Place in [`ClosedLabel::ALL`].
    fn index(self) -> usize;
}

macro_rules! closed_label {
    ($(#[$doc:meta])* $name:ident = $label:literal { $($(#[$vdoc:meta])* $variant:ident = $value:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Value of the label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $value),+ }
            }

            /// The variant of a label value, if there is one.
            #[must_use]
            pub fn from_label(label: &str) -> Option<Self> {
                match label { $($value => Some(Self::$variant),)+ _ => None }
            }
        }

        impl ClosedLabel for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = Self::ALL;
            fn label(self) -> &'static str { self.label() }
            fn index(self) -> usize { self as usize }
        }
    };
}

closed_label! {
    /// What the trainer thread spends wall time on; the phases sum to it.
    Phase = "phase" {
        /// Waiting for a batch.
        DataWait = "data_wait",
        /// Batch to device.
        Copy = "copy",
        /// Forward pass and losses.
        Forward = "forward",
        /// Backward pass.
        Backward = "backward",
        /// Clip, finite check, update.
        Optimizer = "optimizer",
        /// Writing a checkpoint.
        Checkpoint = "checkpoint",
        /// Evaluation and pictures.
        Eval = "eval",
        /// Applying a changed config.
        Reload = "reload",
        /// Waiting, between two steps, for the word of the other ranks.
        Ranks = "ranks",
        /// Logging, commands, the rest.
        Other = "other",
    }
}

closed_label! {
    /// How a reload of the config ended.
    ReloadOutcome = "outcome" {
        /// Changes are in force.
        Applied = "applied",
        /// Same content.
        Unchanged = "unchanged",
        /// Does not parse or validate.
        Invalid = "invalid",
        /// Changes a key that a run cannot change.
        Frozen = "frozen",
        /// Valid, but could not be applied; the old config goes on.
        Failed = "failed",
        /// Another reload was running.
        Busy = "busy",
    }
}

closed_label! {
    /// Why a run is paused.
    PauseReason = "reason" {
        /// More samples failed than `data.failure_budget` allows.
        FailureBudget = "failure_budget",
        /// The store refuses the credentials.
        Denied = "denied",
        /// The disk refuses the checkpoint of a schedule that is done.
        Disk = "disk",
        /// Somebody asked for it.
        Asked = "asked",
    }
}

closed_label! {
    /// What an evaluation measures.
    EvalTask = "task" {
        /// k-nearest-neighbour accuracy.
        Knn = "knn",
        /// Linear probe.
        Linear = "linear",
        /// The likeliest of the classes that are learnt.
        Classify = "classify",
        /// The five likeliest of them.
        ClassifyTop5 = "classify_top5",
        /// The likeliest one, as the mean over the classes.
        ClassifyByClass = "classify_by_class",
        /// Mean intersection over union of the classes of pixels that are learnt.
        Segment = "segment",
        /// The same without the first class.
        SegmentObjects = "segment_objects",
        /// The likeliest class of each pixel.
        SegmentPixels = "segment_pixels",
        /// Average precision of the boxes of objects that are found.
        Detect = "detect",
        /// That of their masks; no number where objects have none.
        DetectMasks = "detect_masks",
        /// That of their boxes at an overlap of a half.
        DetectHalf = "detect_half",
    }
}

closed_label! {
    /// Work beside training whose failure ends nothing.
    SideTask = "task" {
        /// k-nearest-neighbour accuracy.
        Knn = "knn",
        /// Linear probe.
        Linear = "linear",
        /// Loss on the validation set.
        Loss = "loss",
        /// Accuracy of the classes that are learnt.
        Classify = "classify",
        /// Overlap of the classes of pixels that are learnt.
        Segment = "segment",
        /// Average precision of the objects that are found.
        Detect = "detect",
        /// Spread of the features of the validation set.
        Spread = "spread",
        /// Pictures of what the objective makes of some images.
        Sheets = "sheets",
        /// Pictures of what the encoder makes of some images.
        Encoder = "encoder",
        /// `neighbours.png`.
        Neighbours = "neighbours",
        /// `curves.svg`.
        Curves = "curves",
    }
}

closed_label! {
    /// A file of the run folder that only tells.
    RunFile = "file" {
        /// `metrics.jsonl`.
        Metrics = "metrics",
        /// `journal.jsonl`.
        Journal = "journal",
        /// Event files in `tensorboard/`: what is counted is lost, none of it waits.
        Events = "events",
    }
}

closed_label! {
    /// Why a checkpoint could not be written.
    CheckpointFailure = "reason" {
        /// The disk is full.
        NoSpace = "no_space",
        /// The file system takes no writes.
        ReadOnly = "read_only",
        /// Another error of the disk.
        Io = "io",
        /// Not the disk: the run folder is somebody else's, or the program is wrong.
        Other = "other",
    }
}

closed_label! {
    /// Why an upload to the mirror failed.
    MirrorFailure = "reason" {
        /// No answer, or 5xx.
        Away = "away",
        /// The store asks for less: 429, 503.
        Throttled = "throttled",
        /// The store refuses the credentials.
        Denied = "denied",
        /// The mirror's disk or quota is full.
        NoSpace = "no_space",
        /// The store cannot do what was asked.
        Refused = "refused",
        /// A local checkpoint that has not the checksums that were written with it.
        Damaged = "damaged",
        /// A local file could not be read.
        Disk = "disk",
        /// Another process holds the mirror, or what it holds is of another run.
        Lease = "lease",
    }
}

closed_label! {
    /// Which memory of the device.
    MemoryKind = "kind" {
        /// Held by live tensors.
        Allocated = "allocated",
        /// Held by the allocator.
        Reserved = "reserved",
        /// Of the device.
        Total = "total",
    }
}

/// One metric per value of a closed label.
#[derive(Clone)]
pub struct PerLabel<L, M> {
    metrics: Vec<M>,
    label: PhantomData<L>,
}

impl<L: ClosedLabel, M> PerLabel<L, M> {
    pub(crate) fn new(child: impl Fn(&'static str) -> M) -> Self {
        Self {
            metrics: L::ALL.iter().map(|l| child(l.label())).collect(),
            label: PhantomData,
        }
    }

    /// The metric of one label value.
    #[must_use]
    pub fn of(&self, label: L) -> &M {
        &self.metrics[label.index()]
    }
}
