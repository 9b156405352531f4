//! The words of a codebook, found on the trainer's device: the same ones as the pipeline's [`Tokenizer`] finds, on every input.
//!
//! One product in f32 (TF32 is off) compares each patch with each word. Its error is bounded, so where the best word leads the second by more than
//! two bounds it is the answer. The few patches where it does not, and flat ones, which see hundreds of words alike, are decided by the tokenizer
//! itself on the host, each distinct patch once.

use std::collections::HashMap;
use std::sync::Arc;

use splitmask_pipeline::tokenize::{Codebook, PixelSpace, Tokenizer};
use tch::{Device, Kind, Tensor};
use torch_ext::{TorchError, send};

/// Scores that are held at once, f32: 256 MiB.
const SCORES: i64 = 1 << 26;

/// A vocabulary on a device.
#[derive(Debug)]
pub(super) struct DeviceBook {
    tokenizer: Arc<Tokenizer>,
    /// f32 D×V.
    words: Tensor,
    /// Side of a word's patch on the half-size copy, pixels.
    patch: i64,
    /// f32 3×256: the number of each byte in each channel, where numbers are looked up.
    numbers: Option<Tensor>,
    /// Twice the bound of the error of a score ÷ length of the patch.
    lead: f64,
}

impl DeviceBook {
    /// The vocabulary of `tokenizer`, sent to `device`.
    ///
    /// # Errors
    /// What libtorch said, such as that there is no memory.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, device: Device) -> Result<Self, TorchError> {
        let book = tokenizer.codebook();
        let (d, v) = (book.dim() as i64, book.len() as i64);
        let words = send(&book.vectors, &[v, d], device)?.transpose(0, 1).contiguous();
        let is_looked_up = !matches!(book.pixels, PixelSpace::PatchMeanRemoved | PixelSpace::ChannelMeanRemoved);
        let mut table = [[0f32; 256]; 3];
        for byte in 0..=255u8 {
            let mut values = [0.0; 3];
            book.pixels.map(&[byte; 3], &mut values);
            values
                .iter()
                .zip(&mut table)
                .for_each(|(value, row)| row[usize::from(byte)] = *value as f32);
        }
        let numbers = is_looked_up.then(|| send(table.as_flattened(), &[3, 256], device)).transpose()?;
        // A sum of d products in any order errs by at most d·u/(1 − d·u) of Σ|x·w| ≤ |x||w| (Cauchy-Schwarz), u = 2⁻²⁴; rounding the numbers to
        // f32 adds u. Words are unit vectors to f32's precision, and |x| and the lead itself are computed in f32: together less than 4 u more.
        let bound = (d as f64 + 5.0) * f64::from(f32::EPSILON) / 2.0 * 1.01;
        Ok(Self {
            patch: i64::from(book.patch),
            words,
            numbers,
            lead: 2.0 * bound,
            tokenizer,
        })
    }

    /// The vocabulary.
    pub(super) fn codebook(&self) -> &Codebook {
        self.tokenizer.codebook()
    }

    /// Words of views u8 B×3×S×S on the device: i64 B×N there, row-major over the patches. On CUDA the host waits for the patches that it has to
    /// decide. Call it outside autocast.
    ///
    /// # Errors
    /// What libtorch said.
    pub(super) fn words(&self, views: &Tensor) -> Result<Tensor, TorchError> {
        let _guard = tch::no_grad_guard();
        let half = half_size(views);
        let (images, side, p) = (half.size()[0], half.size()[3], self.patch);
        let grid = side / p;
        let patches = half
            .view([images, 3, grid, p, grid, p])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([images * grid * grid, 3 * p * p]);
        let at_once = (SCORES / self.words.size()[1]).max(1);
        let parts = patches.split(at_once, 0);
        let words = parts.iter().map(|part| self.of_patches(part)).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::cat(&words, 0).view([images, grid * grid]))
    }

    /// Words of planar patches u8 P×D: i64 P.
    fn of_patches(&self, patches: &Tensor) -> Result<Tensor, TorchError> {
        let x = self.numbers_of(patches);
        let mut scores = x.matmul(&self.words);
        let (best, word) = scores.max_dim(1, true);
        let second = scores.scatter_value_(1, &word, f64::NEG_INFINITY).amax([1], true);
        let length = x.square().sum_dim_intlist(1, true, Kind::Float).sqrt();
        let open = (best - second).le_tensor(&(length * self.lead)).squeeze_dim(1);
        let (open, mut word) = (open.nonzero().squeeze_dim(1), word.squeeze_dim(1));
        if open.numel() > 0 {
            let decided = self.decided(&patches.index_select(0, &open));
            let _ = word.index_copy_(0, &open, &send(&decided, &[decided.len() as i64], patches.device())?);
        }
        Ok(word)
    }

    /// The numbers of patches that are compared with words, f32 P×D: those of [`PixelSpace::map`], rounded.
    fn numbers_of(&self, patches: &Tensor) -> Tensor {
        let (count, d) = (patches.size()[0], patches.size()[1]);
        if let Some(numbers) = &self.numbers {
            let channels: Vec<Tensor> = patches
                .view([count, 3, d / 3])
                .unbind(1)
                .iter()
                .enumerate()
                .map(|(c, bytes)| numbers.get(c as i64).take(&bytes.to_kind(Kind::Int64)))
                .collect();
            return Tensor::cat(&channels, 1);
        }
        // Whole numbers below 2²⁴: exact in f32.
        let groups = match self.codebook().pixels {
            PixelSpace::ChannelMeanRemoved => 3,
            _ => 1,
        };
        let x = patches.to_kind(Kind::Float).view([count, groups, d / groups]);
        let sums = x.sum_dim_intlist(2, true, Kind::Float);
        (x * (d / groups) as f64 - sums).view([count, d])
    }

    /// Words of patches u8 P×D, by the tokenizer.
    fn decided(&self, patches: &Tensor) -> Vec<i64> {
        let d = self.codebook().dim();
        let mut bytes = vec![0u8; patches.numel()];
        patches
            .to_device(Device::Cpu)
            .contiguous()
            .copy_data_u8(&mut bytes, patches.numel());
        let (mut distinct, mut places) = (Vec::new(), HashMap::new());
        let which: Vec<usize> = bytes
            .chunks_exact(d)
            .map(|patch| {
                *places.entry(patch).or_insert_with(|| {
                    distinct.extend_from_slice(patch);
                    distinct.len() / d - 1
                })
            })
            .collect();
        let mut words = vec![];
        self.tokenizer.patch_words(&mut self.tokenizer.scratch(), &distinct, &mut words);
        which.into_iter().map(|at| i64::from(words[at])).collect()
    }
}

/// The half-size copy of views u8 B×3×S×S, rounded as by [`splitmask_pipeline::augment::half_size`].
fn half_size(views: &Tensor) -> Tensor {
    let wide = views.to_kind(Kind::Int16);
    let corner = |y: i64, x: i64| wide.slice(2, y, None, 2).slice(3, x, None, 2);
    let sum = corner(0, 0) + corner(0, 1) + corner(1, 0) + corner(1, 1) + 2;
    sum.bitwise_right_shift_tensor_scalar(2).to_kind(Kind::Uint8)
}

#[cfg(test)]
mod tests;
