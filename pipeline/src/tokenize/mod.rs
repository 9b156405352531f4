//! Visual words (arXiv 2112.10740 §3.3): a patch gets the index of the codebook's unit vector with the largest cosine similarity.
//!
//! [`Codebook`] is the vocabulary and its file; [`Tokenizer`] assigns words, exactly; `build_*` make vocabularies, [`Census`] and
//! [`Usage`] measure them, [`picture`] shows them.
//! Patches are cut from the half-size copy of a view (docs/method.md §2), so that word (row, column) belongs to the model's patch (row, column).

mod build;
mod cells;
mod census;
mod codebook;
mod exact;
mod file;
mod kernel;
mod kmeans;
mod picture;
mod pixels;
mod query;
mod rotated;
mod rotation;
mod search;
mod table;
mod tokenizer;
mod usage;

pub use build::{BookSpec, HalfView, build_random_patches, build_random_projection};
pub use census::Census;
pub use codebook::{Codebook, CodebookKind, Provenance, TOKENIZERS, TokenizerEntry};
pub use exact::Exhaustive;
pub use kmeans::{KMeansOptions, KMeansProgress, build_kmeans};
pub use picture::picture;
pub use pixels::PixelSpace;
pub use tokenizer::{Isa, Tokenizer, TokenizerScratch};
pub use usage::{Usage, usage};
