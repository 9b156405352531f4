//! Position tables: learned or fixed, of another grid size, and BEiT's relative bias.

use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;

use crate::model::init::{Init, parameter, untrained};
use crate::setting::Findings;

/// How an absolute position table is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    /// Drawn, and trained.
    Learned,
    /// Sines and cosines of row and column, never trained (arXiv 2111.06377 appendix A.1; arXiv 2104.02057 §5).
    SinCos,
}

impl Positions {
    /// Checks that they can be made for a width that stands under `key`.
    pub fn check(self, key: &str, width: i64, found: &mut Findings) {
        found.need(
            self == Self::Learned || width % 4 == 0,
            key,
            width,
            "a multiple of 4, for sines and cosines of two coordinates (or objective.positions = \"learned\")",
        );
    }

    /// Table `pos_embed` under `vs` for a class slot and `patches` patches, 1×(1+patches)×`dim`; `init` is what a learned one is drawn from.
    pub(crate) fn table(self, vs: &Path<'_>, patches: i64, dim: i64, init: Init) -> Tensor {
        match self {
            Self::Learned => parameter(vs, "pos_embed", &[1, 1 + patches, dim], init),
            Self::SinCos => {
                let grid = grid_of_positions(1 + patches).expect("patches are a square");
                untrained(vs, "pos_embed", &sin_cos_positions(grid, dim))
            }
        }
    }
}

/// Table 1×(1+grid²)×dim of sines and cosines in two dimensions, f32: a quarter of the width each for sin x, cos x, sin y and cos y, at rates of
/// 10000^(−i ÷ (dim ÷ 4)); zeros for the class slot. x is the column, as in MAE's code; MoCo v3's has rows first.
///
/// # Panics
/// If `dim` is no multiple of 4.
pub fn sin_cos_positions(grid: i64, dim: i64) -> Tensor {
    assert!(
        dim % 4 == 0,
        "sines and cosines of two coordinates need a width that is a multiple of 4, not {dim}"
    );
    let quarter = dim / 4;
    let options = (Kind::Double, Device::Cpu);
    let rates = (Tensor::arange(quarter, options) * (-(10_000f64.ln()) / quarter as f64)).exp();
    let angles = Tensor::arange(grid, options).outer(&rates);
    let waves = Tensor::cat(&[angles.sin(), angles.cos()], 1);
    let over_rows = waves.view([1, grid, 2 * quarter]).expand([grid, grid, 2 * quarter], false);
    let patches = Tensor::cat(&[&over_rows, &over_rows.transpose(0, 1)], 2).reshape([1, grid * grid, dim]);
    Tensor::cat(&[&Tensor::zeros([1, 1, dim], options), &patches], 1).to_kind(Kind::Float)
}

/// Table 1×(1+g²)×D for another grid of `side` patches a side: bicubic with antialiasing, as timm's `resample_abs_pos_embed`, the class slot untouched.
/// The table itself if it fits.
pub fn interpolate_positions(table: &Tensor, side: i64) -> Tensor {
    let (_, rows, d) = table.size3().expect("a position table is 1×(1+N)×D");
    let grid = grid_of_positions(rows).expect("a position table has a class slot and a square of patches");
    if grid == side {
        return table.shallow_clone();
    }
    // In f32 within autocast too, as resizing is.
    let _f32 = Autocast::off(table.device()).expect("switching autocast off needs no device");
    // As products, whose backward passes are the same each time on a GPU too; that of the resizing itself is not there.
    let weights = bicubic_weights(grid, side, table);
    let rows_done = weights.matmul(&table.narrow(1, 1, rows - 1).reshape([grid, grid * d]));
    let patches = weights.matmul(&rows_done.view([side, grid, d])).reshape([1, side * side, d]);
    Tensor::cat(&[&table.narrow(1, 0, 1), &patches], 1)
}

/// Weights side×grid of the cells of a row in those of the resized row, in the kind and on the device of `like`: what resizing makes of each unit row.
fn bicubic_weights(grid: i64, side: i64, like: &Tensor) -> Tensor {
    tch::no_grad(|| {
        let units = Tensor::eye(grid, (like.kind(), like.device())).view([1, 1, grid, grid]);
        let resized = units.internal_upsample_bicubic2d_aa([side, grid], false, None, None);
        resized.view([side, grid])
    })
}

/// Patches a side of a position table with so many rows; `None` if they are no square and a class slot.
#[must_use]
pub fn grid_of_positions(rows: i64) -> Option<i64> {
    square_root(rows - 1)
}

/// Patches a side of a table of relative biases with so many rows; `None` if it is none.
#[must_use]
pub fn grid_of_relative_bias(rows: i64) -> Option<i64> {
    square_root(rows - CLASS_ROWS)
        .filter(|side| side % 2 == 1)
        .map(|side| (side + 1) / 2)
}

fn square_root(square: i64) -> Option<i64> {
    let side = (square.max(0) as f64).sqrt().round() as i64;
    (side > 0 && side * side == square).then_some(side)
}

/// Rows of a table of relative biases that are no offset between patches: class→patch, patch→class, class→class.
const CLASS_ROWS: i64 = 3;

/// Table ((2g−1)²+3)×H of relative biases for another grid of `side` patches a side, as BEiT fine-tunes at another image size: the old offsets are
/// stretched in geometric progression, so that near ones keep their meaning, and a cubic spline is read at the new ones
/// (`run_class_finetuning.py` of BEiT's code; arXiv 2106.08254). The class rows are untouched. The table itself if it fits.
pub fn interpolate_relative_bias(table: &Tensor, side: i64) -> Tensor {
    let (rows, heads) = table.size2().expect("a table of relative biases is R×H");
    let grid = grid_of_relative_bias(rows).expect("a table of relative biases has (2g−1)²+3 rows");
    if grid == side {
        return table.shallow_clone();
    }
    let (old, new) = (2 * grid - 1, 2 * side - 1);
    let at: Vec<f64> = (-(new / 2)..=new / 2).map(|offset| offset as f64).collect();
    let weights = spline_weights(&stretched_offsets(old / 2, new / 2), &at);
    let weights = Tensor::from_slice(&weights).view([new, old]).to_device(table.device());
    // Along columns, then along rows; heads go through together.
    let offsets = table.narrow(0, 0, old * old).to_kind(Kind::Double).view([old, old * heads]);
    let stretched = weights
        .matmul(&offsets)
        .view([new, old, heads])
        .transpose(0, 1)
        .reshape([old, new * heads]);
    let stretched = weights
        .matmul(&stretched)
        .view([new, new, heads])
        .transpose(0, 1)
        .reshape([new * new, heads]);
    Tensor::cat(&[&stretched.to_kind(table.kind()), &table.narrow(0, old * old, CLASS_ROWS)], 0)
}

/// Places of the offsets −reach..=reach once they reach to about `target` in geometric progression.
fn stretched_offsets(reach: i64, target: i64) -> Vec<f64> {
    let reached = |q: f64| (1.0 - q.powi(reach as i32)) / (1.0 - q);
    let (mut low, mut high) = (1.01, 1.5);
    let mut q = low;
    while high - low > 1e-6 {
        q = (low + high) / 2.0;
        if reached(q) > target as f64 {
            high = q;
        } else {
            low = q;
        }
    }
    let mut outwards = Vec::new();
    let mut place = 1.0;
    for i in 0..reach {
        outwards.push(place);
        place += q.powi(i as i32 + 1);
    }
    let inwards = outwards.iter().rev().map(|place| -place);
    inwards.chain([0.0]).chain(outwards.iter().copied()).collect()
}

/// Weights at×x (row-major) of the values at the places `x`, ascending, in the cubic spline through them (not-a-knot, as FITPACK's) at `at`; beyond
/// the ends, the value of the end. Through three places goes a parabola.
fn spline_weights(x: &[f64], at: &[f64]) -> Vec<f64> {
    let n = x.len();
    let bend = if n > 3 { second_derivatives(x) } else { vec![0.0; n * n] };
    let mut weights = Vec::with_capacity(at.len() * n);
    for &place in at {
        let t = place.clamp(x[0], x[n - 1]);
        if n <= 3 {
            weights.extend((0..n).map(|j| {
                let others = (0..n).filter(|k| *k != j);
                others.map(|k| (t - x[k]) / (x[j] - x[k])).product::<f64>()
            }));
            continue;
        }
        let i = x.partition_point(|p| *p <= t).clamp(1, n - 1) - 1;
        let h = x[i + 1] - x[i];
        let (a, b) = ((x[i + 1] - t) / h, (t - x[i]) / h);
        let (bend_a, bend_b) = ((a.powi(3) - a) * h * h / 6.0, (b.powi(3) - b) * h * h / 6.0);
        weights.extend((0..n).map(|j| {
            let line = if j == i {
                a
            } else if j == i + 1 {
                b
            } else {
                0.0
            };
            line + bend_a * bend[i * n + j] + bend_b * bend[(i + 1) * n + j]
        }));
    }
    weights
}

/// Matrix n×n that takes the values at `x` to the second derivatives of the spline there.
fn second_derivatives(x: &[f64]) -> Vec<f64> {
    let n = x.len();
    let h: Vec<f64> = x.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (mut left, mut right) = (vec![0.0; n * n], vec![0.0; n * n]);
    for i in 1..n - 1 {
        left[i * n + i - 1] = h[i - 1] / 6.0;
        left[i * n + i] = (h[i - 1] + h[i]) / 3.0;
        left[i * n + i + 1] = h[i] / 6.0;
        right[i * n + i - 1] = 1.0 / h[i - 1];
        right[i * n + i] = -1.0 / h[i - 1] - 1.0 / h[i];
        right[i * n + i + 1] = 1.0 / h[i];
    }
    // Not a knot: the first two pieces are one cubic, and so are the last two.
    for (row, first) in [(0, 0), (n - 1, n - 3)] {
        left[row * n + first] = h[first + 1];
        left[row * n + first + 1] = -(h[first] + h[first + 1]);
        left[row * n + first + 2] = h[first];
    }
    let matrix = |values: &[f64]| Tensor::from_slice(values).view([n as i64, n as i64]);
    let solved = Tensor::linalg_solve(&matrix(&left), &matrix(&right), true);
    Vec::<f64>::try_from(solved.contiguous().view([-1])).expect("f64 in one dimension")
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
    /// The table: its only parameter.
    pub(crate) fn table(&self) -> &Tensor {
        &self.table
    }

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
            table: parameter(vs, "relative_position_bias_table", &[offsets + CLASS_ROWS, heads], Init::Const(0.0)),
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
mod tests;
