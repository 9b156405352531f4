//! Drop path, by which whole samples skip a branch (arXiv 1603.09382), and dropout of whole channels, drawn alike however a batch is divided.

use std::cell::Cell;

use tch::Tensor;

thread_local! {
    static ROWS: Cell<Option<BatchRows>> = const { Cell::new(None) };
}

/// Which images of a batch a forward pass sees. While a guard lives, drop path draws for the whole batch and takes its images' share, so that the
/// same seed gives an image the same fate in any part and on any rank. Like the generator it draws from, a state of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRows {
    /// First image.
    pub start: i64,
    /// Images of this pass.
    pub len: i64,
    /// Images of the batch, over all ranks.
    pub total: i64,
    /// From one image of this pass to the next: the number of ranks, for rank r of W has the images r, r + W, … of a batch.
    pub stride: i64,
}

/// Goes back to what was before when dropped.
#[derive(Debug)]
pub struct BatchRowsGuard(Option<BatchRows>);

impl BatchRows {
    /// Draws for these rows from now on.
    #[must_use]
    pub fn enter(self) -> BatchRowsGuard {
        BatchRowsGuard(ROWS.replace(Some(self)))
    }

    /// Whether this is the first pass of its step on its rank.
    #[must_use]
    pub fn begin_a_step(self) -> bool {
        self.start < self.stride
    }

    /// Whether its rank's share of the batch goes through in several passes.
    #[must_use]
    pub fn are_a_part(self) -> bool {
        self.len * self.stride < self.total
    }

    /// Those that are in force.
    #[must_use]
    pub fn current() -> Option<Self> {
        ROWS.get()
    }
}

impl Drop for BatchRowsGuard {
    fn drop(&mut self) {
        ROWS.set(self.0);
    }
}

/// Factors of M samples × `columns`, in the kind and on the device of `like`: 0 with probability `rate`, else 1/(1 − rate). M may be a multiple of the
/// images: branches one after the other.
fn factors(like: &Tensor, columns: i64, rate: f64) -> Tensor {
    let keep = 1.0 - rate;
    let m = like.size()[0];
    let draw = |n: i64| Tensor::empty([n, columns], (like.kind(), like.device())).bernoulli_float_(keep) / keep;
    match BatchRows::current() {
        Some(rows) if rows.len < rows.total && m % rows.len == 0 => {
            let branches = m / rows.len;
            let whole = draw(branches * rows.total).view([branches, rows.total, columns]);
            let own = whole.slice(1, rows.start, rows.start + (rows.len - 1) * rows.stride + 1, rows.stride);
            own.reshape([m, columns])
        }
        _ => draw(m),
    }
}

/// Zeroes whole samples of M×N×D with probability `rate` and scales the others by 1/(1 − rate).
pub(super) fn drop_path(y: Tensor, rate: f64) -> Tensor {
    if rate <= 0.0 {
        return y;
    }
    let factors = factors(&y, 1, rate);
    y * factors.unsqueeze(-1)
}

/// Zeroes whole channels of maps B×C×h×w, in each image others, with probability `rate`, and scales the others by 1/(1 − rate) (arXiv 1411.4280).
pub fn drop_channels(y: Tensor, rate: f64) -> Tensor {
    if rate <= 0.0 {
        return y;
    }
    let factors = factors(&y, y.size()[1], rate);
    y * factors.unsqueeze(-1).unsqueeze(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn drops_whole_samples_and_keeps_the_mean() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(1);
        let y = drop_path(Tensor::ones([4000, 2, 3], (Kind::Float, Device::Cpu)), 0.25);
        let per_sample = y.view([4000, 6]);
        assert_eq!(per_sample.std_dim(1, true, false).max().double_value(&[]), 0.0);
        let mean = y.mean(Kind::Float).double_value(&[]);
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        assert_eq!(y.max().double_value(&[]) as f32, 1.0 / 0.75);
    }

    #[test]
    fn drops_whole_channels_of_an_image_and_the_same_ones_in_any_part() {
        let _turn = crate::tensor::alone();
        let ones = |images: i64| Tensor::ones([images, 50, 3, 2], (Kind::Float, Device::Cpu));
        tch::manual_seed(3);
        let whole = drop_channels(ones(12), 0.25);
        let of_channel = whole.view([600, 6]);
        assert_eq!(of_channel.std_dim(1, true, false).max().double_value(&[]), 0.0);
        assert!((whole.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.1);
        assert_ne!(whole.get(0), whole.get(1), "each image has its own");
        let (start, stride) = (1, 3);
        let _rows = BatchRows {
            start,
            len: 4,
            total: 12,
            stride,
        }
        .enter();
        tch::manual_seed(3);
        assert_eq!(drop_channels(ones(4), 0.25), whole.slice(0, start, 12, stride));
        assert_eq!(drop_channels(ones(4), 0.0), ones(4));
    }

    #[test]
    fn an_image_has_the_same_fate_in_any_part() {
        let _turn = crate::tensor::alone();
        let whole = {
            tch::manual_seed(2);
            drop_path(Tensor::ones([24, 1, 1], (Kind::Float, Device::Cpu)), 0.5).view([2, 12])
        };
        for len in [1, 3, 6] {
            for start in (0..12).step_by(len as usize) {
                let _rows = BatchRows {
                    start,
                    len,
                    total: 12,
                    stride: 1,
                }
                .enter();
                tch::manual_seed(2);
                let part = drop_path(Tensor::ones([2 * len, 1, 1], (Kind::Float, Device::Cpu)), 0.5).view([2, len]);
                assert_eq!(part, whole.narrow(1, start, len), "{start} {len}");
            }
        }
        for (world, parts) in [(2, 1), (3, 2), (4, 3)] {
            let len = 12 / world / parts;
            for (rank, part) in (0..world).flat_map(|r| (0..parts).map(move |p| (r, p))) {
                let start = part * len * world + rank;
                let _rows = BatchRows {
                    start,
                    len,
                    total: 12,
                    stride: world,
                }
                .enter();
                tch::manual_seed(2);
                let own = drop_path(Tensor::ones([2 * len, 1, 1], (Kind::Float, Device::Cpu)), 0.5).view([2, len]);
                let images: Vec<i64> = (0..len).map(|k| start + k * world).collect();
                assert_eq!(
                    own,
                    whole.index_select(1, &Tensor::from_slice(&images)),
                    "rank {rank} of {world}, part {part}"
                );
            }
        }
        assert_eq!(BatchRows::current(), None);
    }
}
