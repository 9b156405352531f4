//! Visual words (arXiv 2112.10740 §3.3): a patch gets the index of the codebook's unit vector with the largest cosine similarity.
//!
//! [`Codebook`] is the vocabulary and its file; [`Tokenizer`] assigns words, exactly; `build` makes vocabularies, [`Usage`] measures them.
//! Patches are cut from the half-size copy of a view (spec §2.1), so that word (row, column) belongs to the model's patch (row, column).

mod codebook;
mod exact;
mod file;
mod pixels;
mod tokenizer;
mod usage;

pub use codebook::{Codebook, CodebookKind, Provenance, TOKENIZERS, TokenizerEntry};
pub use exact::Exhaustive;
pub use pixels::PixelSpace;
pub use tokenizer::{Tokenizer, TokenizerScratch};
pub use usage::{Usage, usage};
