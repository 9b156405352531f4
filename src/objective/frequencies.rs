//! How frequent the classes of a set are, and what a guess by that costs.

use tch::{Device, Tensor};

/// Frequencies of the classes that an objective learns.
#[derive(Debug)]
pub(super) struct Frequencies {
    /// f32 K: logarithms of the classes' shares; all alike where they were not counted.
    pub(super) logarithms: Tensor,
    /// The commonest class, the first of several; where they were counted.
    pub(super) commonest: Option<i64>,
}

impl Frequencies {
    /// Of `classes` classes with these counts (images or pixels); counts of another number of classes are none.
    pub(super) fn new(counts: &[u64], classes: usize, device: Device) -> Self {
        let counts = if counts.len() == classes {
            counts.to_vec()
        } else {
            vec![0; classes]
        };
        let total: f64 = counts.iter().map(|count| *count as f64).sum();
        // One more of each, so that no class is impossible.
        let share = |count: &u64| ((*count as f64 + 1.0) / (total + classes as f64)).ln() as f32;
        let logarithms: Vec<f32> = counts.iter().map(share).collect();
        let commonest = (0..).zip(&counts).max_by_key(|(class, count)| (**count, -*class));
        Self {
            logarithms: Tensor::from_slice(&logarithms).to_device(device),
            commonest: commonest.map(|(class, _)| class).filter(|_| total > 0.0),
        }
    }
}
