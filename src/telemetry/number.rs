//! What an objective measures while it learns, as data: metrics, journal, curves, report, status page and model card go through such lists.

/// The unit of a number; it decides the panel of a curve and the end of a metric's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nats: a cross-entropy or an entropy.
    Nats,
    /// A share of something, 0 to 1.
    Share,
    /// A number of things, not necessarily whole.
    Count,
    /// None of these.
    Plain,
}

/// Which way a number should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Down.
    Lower,
    /// Up.
    Higher,
    /// Neither way is better by itself.
    Neither,
}

/// What a number is to the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A term of the loss, before its weight: the series `splitmask_train_loss{term="NAME"}`.
    Term,
    /// A measurement beside it: a series of its own.
    Measure,
}

/// One number that an objective reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// Its name in `metrics.jsonl`, curves and metrics; snake_case.
    pub name: &'static str,
    /// What it is, in words that stand by themselves.
    pub help: &'static str,
    /// Term of the loss or not.
    pub role: Role,
    /// Unit.
    pub unit: Unit,
    /// Direction.
    pub better: Better,
}
