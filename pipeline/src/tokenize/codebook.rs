//! The vocabulary: V unit vectors and where they come from.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pixels::PixelSpace;
use crate::error::PipelineError;
use crate::file;

/// How a vocabulary is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodebookKind {
    /// Vectors with uniformly drawn components.
    RandomProjection,
    /// Patches of different images.
    RandomPatches,
    /// Centroids of spherical k-means.
    KMeans,
}

/// What help texts and docs say about a kind.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerEntry {
    /// The kind.
    pub kind: CodebookKind,
    /// Name in files and on the command line.
    pub name: &'static str,
    /// One line.
    pub doc: &'static str,
    /// Source.
    pub reference: &'static str,
}

/// Every kind of vocabulary.
pub static TOKENIZERS: [TokenizerEntry; 3] = [
    TokenizerEntry {
        kind: CodebookKind::RandomPatches,
        name: "random-patches",
        doc: "patches of different images of the data, unit length; uses nearly all words",
        reference: "arXiv 2112.10740 §3.3",
    },
    TokenizerEntry {
        kind: CodebookKind::RandomProjection,
        name: "random-projection",
        doc: "components drawn uniformly, unit length; needs no data, but natural patches use few of the words",
        reference: "arXiv 2112.10740 §3.3",
    },
    TokenizerEntry {
        kind: CodebookKind::KMeans,
        name: "k-means",
        doc: "centroids of spherical k-means over sampled patches; minutes to make",
        reference: "arXiv 2112.10740 §3.3",
    },
];

impl CodebookKind {
    /// Entry of the registry.
    #[must_use]
    pub fn entry(self) -> &'static TokenizerEntry {
        match self {
            Self::RandomPatches => &TOKENIZERS[0],
            Self::RandomProjection => &TOKENIZERS[1],
            Self::KMeans => &TOKENIZERS[2],
        }
    }

    /// Name in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TOKENIZERS.iter().find(|t| t.name == name).map(|t| t.kind)
    }
}

/// How a codebook came about; informs people, decides nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Program and version.
    pub made_by: String,
    /// Where its patches come from; empty for random projections.
    pub data: String,
    /// Images looked at.
    pub images: u64,
    /// Patches looked at.
    pub patches: u64,
    /// Range of the components of a random projection.
    pub range: Option<[f32; 2]>,
    /// Passes of k-means.
    pub passes: u32,
}

/// V unit vectors of d = 3 × patch² numbers; component order is planar: channel, row, column.
#[derive(Debug, Clone, PartialEq)]
pub struct Codebook {
    /// How it was made.
    pub kind: CodebookKind,
    /// Side of a word's patch on the half-size copy, pixels (half the model's patch).
    pub patch: u32,
    /// Space of the vectors.
    pub pixels: PixelSpace,
    /// V×d, row-major, each row of unit length.
    pub vectors: Vec<f32>,
    /// Seed it was made from.
    pub seed: u64,
    /// How it came about.
    pub provenance: Provenance,
    /// V×d bytes: what each word looks like, if known (the original patch, or the mean of the patches that got it).
    pub display: Option<Vec<u8>>,
    /// How often each word occurred in a sample of the data, if measured.
    pub counts: Option<Vec<u64>>,
}

/// Largest side of a word's patch; the error bounds of the fast pass are proven up to it.
pub(super) const MAX_PATCH: u32 = 32;
/// The same in chunks of 16 numbers.
pub(super) const MAX_CHUNKS: usize = 3 * (MAX_PATCH as usize).pow(2) / 16;
/// Largest vocabulary.
pub(super) const MAX_WORDS: usize = 1 << 20;

impl Codebook {
    /// Words V.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vectors.len() / self.dim()
    }

    /// Whether there is no word (never true of a valid codebook).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Numbers of a vector: 3 × patch².
    #[must_use]
    pub fn dim(&self) -> usize {
        3 * (self.patch as usize).pow(2)
    }

    /// Unit vector of a word.
    ///
    /// # Panics
    /// If there is no such word.
    #[must_use]
    pub fn vector(&self, word: usize) -> &[f32] {
        &self.vectors[word * self.dim()..][..self.dim()]
    }

    /// SHA-256 (hex) of all that decides which word a patch gets: patch side, pixel space, vectors.
    #[must_use]
    pub fn id(&self) -> String {
        let mut h = Sha256::new();
        h.update(format!("splitmask codebook {} {}\n", self.patch, self.pixels.name()));
        for block in self.vectors.chunks(4096) {
            h.update(block.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        }
        file::hex(h.finalize())
    }

    /// Checks sizes, finiteness and unit length.
    ///
    /// # Errors
    /// What is wrong, in words; the caller knows the file.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MAX_PATCH).contains(&self.patch) {
            return Err(format!("patch = {}: 1 to {MAX_PATCH} pixels on the half-size copy", self.patch));
        }
        let d = self.dim();
        if self.vectors.is_empty() || !self.vectors.len().is_multiple_of(d) || self.len() > MAX_WORDS {
            return Err(format!("{} numbers are not 1 to {MAX_WORDS} vectors of {d}", self.vectors.len()));
        }
        for (i, v) in self.vectors.chunks_exact(d).enumerate() {
            let norm = v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            if !((norm - 1.0).abs() < 1e-3) {
                return Err(format!("word {i} has length {norm}, not 1: cosine similarity needs unit vectors"));
            }
        }
        if self.display.as_ref().is_some_and(|b| b.len() != self.vectors.len()) {
            return Err("display is not as large as vectors".into());
        }
        if self.counts.as_ref().is_some_and(|c| c.len() != self.len()) {
            return Err("counts has not one number per word".into());
        }
        Ok(())
    }

    /// Checks that each of the model's patches gets one word: the half-size copy of a view has as many patches as the view.
    ///
    /// # Errors
    /// [`PipelineError::BadCodebook`] naming `path`.
    pub fn check_fits(&self, path: &str, view: u32, model_patch: u32) -> Result<(), PipelineError> {
        let bad = |detail: String| Err(PipelineError::BadCodebook { path: path.into(), detail });
        if model_patch != 2 * self.patch {
            return bad(format!(
                "its words are {0}×{0} pixels of the half-size copy, which fits model patches of {1}×{1}, not {2}×{2}",
                self.patch,
                2 * self.patch,
                model_patch
            ));
        }
        if view == 0 || !view.is_multiple_of(model_patch) {
            return bad(format!("views of {view} pixels cannot be cut into patches of {model_patch}"));
        }
        Ok(())
    }

    /// What a word looks like: planar 3×patch×patch bytes. Taken from `display` if known, else the vector at a middling contrast.
    ///
    /// # Panics
    /// If there is no such word.
    #[must_use]
    pub fn word_pixels(&self, word: usize) -> Vec<u8> {
        let d = self.dim();
        if let Some(display) = &self.display {
            return display[word * d..][..d].to_vec();
        }
        let v = self.vector(word);
        let root = (d as f64).sqrt();
        // A vector of unit length has components near 1/√d: bring their root mean square to a level that shows.
        let contrast = match self.pixels {
            PixelSpace::Raw => 0.5,
            PixelSpace::MeanStd => 1.0,
            PixelSpace::Centred => 0.5,
            PixelSpace::PatchMeanRemoved | PixelSpace::ChannelMeanRemoved => 0.2,
        };
        self.pixels.to_bytes(v, contrast * root)
    }
}
