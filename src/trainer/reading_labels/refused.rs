//! What the refusals of sets without usable labels share.

use splitmask_pipeline::bucket::location::redact;

use crate::trainer::error::TrainError;
use crate::trainer::spec::TrainerSpec;

/// Samples of a set without manifest among which one must have a label.
pub(super) const PROBED: usize = 256;

/// The training set, as people are shown it.
pub(super) fn place(spec: &TrainerSpec) -> String {
    redact(spec.data.first_place())
}

/// A number of classes that cannot be learnt.
pub(super) fn bad_count(wanted: u32, detail: String, hint: &str) -> TrainError {
    TrainError::BadSetting {
        key: "objective.classes".into(),
        value: wanted.to_string(),
        detail,
        hint: Some(hint.into()),
    }
}
