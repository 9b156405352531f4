//! What is known of the classes of a training set.

/// Names and sizes of the classes of `data.train`; empty where the objective learns no labels, names where no manifest tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrainingLabels {
    /// Class names by label.
    pub names: Vec<String>,
    /// Images of each class.
    pub counts: Vec<u64>,
}
