//! Losses: functions of tensors that know no module. All of them compute in f32, whatever comes in.

mod contrast;
mod tokens;

pub use contrast::{Contrast, info_nce};
pub use tokens::{count_words, perplexity, token_accuracy, token_cross_entropy};
