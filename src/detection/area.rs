//! Objects by size.

/// Objects whose area counts, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SizeRange {
    /// All.
    All,
    /// Up to 32² pixels.
    Small,
    /// 32² to 96².
    Medium,
    /// From 96² on.
    Large,
}

impl SizeRange {
    /// In the order in which they are told.
    pub(super) const ALL: [Self; 4] = [Self::All, Self::Small, Self::Medium, Self::Large];

    /// Whether an object of so many pixels counts. An area at a border counts on both sides.
    #[must_use]
    pub(super) fn holds(self, area: f64) -> bool {
        let (from, to) = match self {
            Self::All => (0.0, 1e10),
            Self::Small => (0.0, 32.0 * 32.0),
            Self::Medium => (32.0 * 32.0, 96.0 * 96.0),
            Self::Large => (96.0 * 96.0, 1e10),
        };
        (from..=to).contains(&area)
    }
}
