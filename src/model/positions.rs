//! Position tables: another grid size, and BEiT's relative bias.

use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::model::init::{Init, parameter};

/// Table 1×(1+g²)×D for another grid of `side` patches a side: bicubic, the class slot untouched. The table itself if it fits.
pub fn interpolate_positions(table: &Tensor, side: i64) -> Tensor {
    let (_, rows, d) = table.size3().expect("a position table is 1×(1+N)×D");
    let grid = ((rows - 1) as f64).sqrt().round() as i64;
    if grid == side {
        return table.shallow_clone();
    }
    let patches = table.narrow(1, 1, rows - 1).reshape([1, grid, grid, d]).permute([0, 3, 1, 2]);
    let resized = patches.upsample_bicubic2d([side, side], false, None, None);
    let patches = resized.permute([0, 2, 3, 1]).reshape([1, side * side, d]);
    Tensor::cat(&[&table.narrow(1, 0, 1), &patches], 1)
}

/// Learned bias of attention logits by the offset between two patches, one table for all layers (BEiT's code; its paper's model has
/// none). Rows: (2g−1)² offsets, then class→patch, patch→class, class→class.
#[derive(Debug)]
pub struct RelativeBias {
    table: Tensor,
    /// i64 (1+N)²: row of the table for each pair of positions.
    index: Tensor,
    heads: i64,
    patches: i64,
}

impl RelativeBias {
    /// A table of zeros under `vs` for `grid` × `grid` patches.
    #[must_use]
    pub fn new(vs: &Path<'_>, grid: i64, heads: i64) -> Self {
        let offsets = (2 * grid - 1).pow(2);
        let n = grid * grid;
        let mut index = Vec::with_capacity((1 + n).pow(2) as usize);
        for i in 0..=n {
            for j in 0..=n {
                index.push(match (i, j) {
                    (0, 0) => offsets + 2,
                    (0, _) => offsets,
                    (_, 0) => offsets + 1,
                    _ => {
                        let (a, b) = (i - 1, j - 1);
                        (a / grid - b / grid + grid - 1) * (2 * grid - 1) + (a % grid - b % grid + grid - 1)
                    }
                });
            }
        }
        Self {
            table: parameter(vs, "relative_position_bias_table", &[offsets + 3, heads], Init::Const(0.0)),
            index: Tensor::from_slice(&index).to_device(vs.device()),
            heads,
            patches: n,
        }
    }

    /// Bias of attention logits: 1×H×(1+N)×(1+N), or B×H×(1+K)×(1+K) if only the patches `seen_bk` are there.
    pub fn forward(&self, seen_bk: Option<&Tensor>) -> Tensor {
        let Some(seen) = seen_bk else {
            let n = 1 + self.patches;
            return self
                .table
                .index_select(0, &self.index)
                .view([1, n, n, self.heads])
                .permute([0, 3, 1, 2])
                .contiguous();
        };
        let (b, k) = seen.size2().expect("seen patches are B×K");
        let class = Tensor::zeros([b, 1], (Kind::Int64, seen.device()));
        let place = Tensor::cat(&[class, seen + 1], 1);
        let pairs = place.unsqueeze(2) * (1 + self.patches) + place.unsqueeze(1);
        let rows = self.index.index_select(0, &pairs.flatten(0, -1));
        self.table
            .index_select(0, &rows)
            .view([b, 1 + k, 1 + k, self.heads])
            .permute([0, 3, 1, 2])
            .contiguous()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn};

    use super::*;

    #[test]
    fn relative_bias_depends_on_offsets_only() {
        let _turn = crate::tensor::alone();
        let vs = nn::VarStore::new(Device::Cpu);
        let bias = RelativeBias::new(&vs.root(), 3, 2);
        let mut table = bias.table.shallow_clone();
        let values = Tensor::arange(28 * 2, (Kind::Float, Device::Cpu)).view([28, 2]);
        tch::no_grad(|| table.copy_(&values));
        let all = bias.forward(None);
        assert_eq!(all.size(), [1, 2, 10, 10]);
        // Patches 0→4 and 4→8 are both one row and one column apart.
        assert_eq!(all.double_value(&[0, 1, 1, 5]), all.double_value(&[0, 1, 5, 9]));
        assert_ne!(all.double_value(&[0, 1, 1, 5]), all.double_value(&[0, 1, 5, 1]));
        assert_ne!(all.double_value(&[0, 0, 0, 3]), all.double_value(&[0, 0, 3, 0]));
        let seen = Tensor::from_slice(&[0i64, 4, 4, 8]).view([2, 2]);
        let some = bias.forward(Some(&seen));
        assert_eq!(some.size(), [2, 2, 3, 3]);
        assert_eq!(some.double_value(&[0, 1, 1, 2]), some.double_value(&[1, 1, 1, 2]));
        assert_eq!(some.double_value(&[0, 0, 2, 0]), all.double_value(&[0, 0, 5, 0]));
    }

    #[test]
    fn interpolation_keeps_class_and_constants() {
        let table = Tensor::full([1, 5, 3], 2.0, (Kind::Float, Device::Cpu));
        let _ = table.narrow(1, 0, 1).fill_(7.0);
        let big = interpolate_positions(&table, 5);
        assert_eq!(big.size(), [1, 26, 3]);
        assert_eq!(big.double_value(&[0, 0, 0]), 7.0);
        let off = (big.narrow(1, 1, 25) - 2.0).abs().max().double_value(&[]);
        assert!(off < 1e-6, "{off}");
    }
}
