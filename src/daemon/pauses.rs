//! What a supervisor knows of pauses.

/// Pauses of a run, as asked for and as told.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// Somebody asked for one, and not for its end.
    pub(super) asked: bool,
    /// The pause that the journal tells has begun: by what.
    pub(super) told: Option<&'static str>,
}
