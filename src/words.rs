//! Where visual words come from: a codebook, searched by the pipeline's workers, or a dVAE, run on the device. One file, one key.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::request::{SampleRequest, TargetRequest};
use splitmask_pipeline::tokenize::{Codebook, Tokenizer};
use splitmask_pipeline::types::Batch;
use tch::{Device, Tensor};

use crate::dvae::{Dvae, DvaeError, is_dvae};
use crate::exit::{CliError, ExitCode, code_of_pipeline};
use crate::model::config::VitConfig;
use crate::tensor::{Normalise, SentBatch, StepInput, TensorError};

/// Why a run has no visual words.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// The file of `codebook.path` cannot be read, or holds something else.
    #[error("codebook.path = {path}: {detail}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong with it.
        detail: String,
        /// What to do.
        hint: String,
    },
    /// A codebook that is damaged, or of another patch size.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

impl From<WordsError> for CliError {
    fn from(e: WordsError) -> Self {
        let (code, hint) = match &e {
            WordsError::Unusable { hint, .. } => (ExitCode::Usage, Some(hint.clone())),
            WordsError::Pipeline(e) => (code_of_pipeline(e), e.hint()),
        };
        Self {
            code,
            hint,
            message: e.to_string(),
        }
    }
}

/// The vocabulary of a run.
#[derive(Debug)]
pub enum Words {
    /// Unit vectors; each patch of the half-size view gets the nearest.
    Book(Arc<Codebook>, Arc<Tokenizer>),
    /// An encoder with its own picture of each crop.
    Dvae(Box<Dvae>),
    /// None: the objective predicts no words, and no file of them is named.
    Unused,
}

impl Words {
    /// The vocabulary in the file of `codebook.path`, whose head tells the kind; [`Words::Unused`] where no file is named and no word is `needed`.
    /// `place` is the training data, for the hint.
    ///
    /// Draws from libtorch's CPU generator: seed it afterwards.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or does not fit the model.
    pub fn load(path: &Path, model: &VitConfig, place: &str, needed: bool, device: Device) -> Result<Self, WordsError> {
        if path.as_os_str().is_empty() && !needed {
            return Ok(Self::Unused);
        }
        let unusable = |detail: String, hint: String| WordsError::Unusable {
            path: path.display().to_string(),
            detail,
            hint,
        };
        let unreadable = |source: std::io::Error| {
            unusable(
                source.to_string(),
                format!("make it with `splitmask codebook {place} --out FILE …`"),
            )
        };
        if is_dvae(path).map_err(unreadable)? {
            let dvae = Dvae::load(path, device).map_err(|e| match e {
                DvaeError::Io { source, .. } => unreadable(source),
                other => unusable(other.to_string(), "make it anew with `splitmask codebook … --kind dvae`".into()),
            })?;
            return Ok(Self::Dvae(Box::new(dvae)));
        }
        let book = Codebook::load(path).map_err(|e| match e {
            PipelineError::Io { source, .. } => unreadable(source),
            other => other.into(),
        })?;
        book.check_fits(&path.display().to_string(), model.image, model.patch)?;
        let book = Arc::new(book);
        Ok(Self::Book(Arc::clone(&book), Arc::new(Tokenizer::new(book))))
    }

    /// Words V.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Book(book, _) => book.len(),
            Self::Dvae(dvae) => dvae.header.geometry.words as usize,
            Self::Unused => 0,
        }
    }

    /// Whether there is no word.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Identity, stored in checkpoints; empty without words.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Book(book, _) => book.id(),
            Self::Dvae(dvae) => dvae.id().to_owned(),
            Self::Unused => String::new(),
        }
    }

    /// For the pipeline's workers, where they make the words.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        match self {
            Self::Book(_, tokenizer) => Some(tokenizer),
            Self::Dvae(_) | Self::Unused => None,
        }
    }

    /// What the pipeline must make so that the words which an objective asks for can be had: a dVAE's are made here from a target of `stride` pixels
    /// a side for each patch, instead of there.
    #[must_use]
    pub fn request(&self, mut request: SampleRequest) -> SampleRequest {
        if let (Self::Dvae(dvae), Some(words)) = (self, request.words) {
            let side = request.place(words.view).map_or(0, |place| request.views[place].size / words.patch);
            request.words = None;
            request.target = Some(TargetRequest {
                view: words.view,
                size: side * dvae.header.geometry.stride as u32,
            });
        }
        request
    }

    /// Images `range` of a batch, sent to `device`, with their words: for a look at them beside training.
    ///
    /// # Errors
    /// As [`SentBatch::send`].
    pub fn send(&self, batch: &Batch, range: Range<usize>, device: Device, normalise: &Normalise) -> Result<StepInput, TensorError> {
        let all = 0..range.len();
        let sent = SentBatch::send(batch, range, device)?;
        let mut input = sent.input(all.clone(), normalise)?;
        self.fill(&mut input, sent.target(&all)?.as_ref());
        Ok(input)
    }

    /// Puts the words of `target` into `input`, computed in f32 without gradient; nothing to do for a codebook. Call it outside autocast.
    pub fn fill(&self, input: &mut StepInput, target: Option<&Tensor>) {
        if let (Self::Dvae(dvae), Some(target)) = (self, target) {
            input.words = Some(dvae.words(target));
            // An argmax over V logits: no look at the device is needed to know the bound.
            input.largest_word = (self.len() - 1) as u32;
        }
    }

    /// What a word looks like: (side, planar 3×side×side bytes).
    #[must_use]
    pub fn picture(&self, word: usize) -> (u32, Vec<u8>) {
        match self {
            Self::Book(book, _) => (book.patch, book.word_pixels(word)),
            Self::Dvae(dvae) => (dvae.header.geometry.stride as u32, dvae.look(word)),
            Self::Unused => (1, vec![0; 3]),
        }
    }
}
