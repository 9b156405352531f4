//! What settings structs say about their own keys. It is the pipeline's, so that its settings can say it too.

pub use splitmask_pipeline::setting::{COLDEST, Class, Findings, Fitted, Fitting, Key, Violation, key, settings};
