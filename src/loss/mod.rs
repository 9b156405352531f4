//! Losses: functions of tensors that know no module. All of them compute in f32, whatever comes in.

mod contrast;
mod koleo;
mod pixels;
mod rank;
mod sinkhorn;
mod tokens;

pub use contrast::{Contrast, info_nce, info_nce_of_keys, unit_rows};
pub use koleo::koleo;
pub use pixels::{image_of_patches, mean_squared_error, patch_pixels, patch_scale};
pub use rank::participation_ratio;
pub use sinkhorn::sinkhorn_centre;
pub use tokens::{count_words, perplexity, token_accuracy, token_cross_entropy};
