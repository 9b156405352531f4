//! Where visual words come from: a codebook, searched by the pipeline's workers or on the device, or a dVAE, run on the device. One file, one key.

mod config;
mod on_device;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::request::{SampleRequest, TargetRequest};
use splitmask_pipeline::tokenize::{Codebook, Tokenizer};
use splitmask_pipeline::types::Batch;
use tch::Device;
use torch_ext::in_whole_f32;

pub use config::{CodebookConfig, WordsFoundBy};
use on_device::DeviceBook;

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
#[expect(private_interfaces, reason = "what a book on the device is made of is its own matter")]
pub enum Words {
    /// Unit vectors; each patch of the half-size view gets the nearest, which the pipeline finds.
    Book(Arc<Tokenizer>),
    /// The same, found on the device in the first view.
    BookOnDevice(Box<DeviceBook>),
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
    /// It cannot be read, is damaged, or does not fit the model; a dVAE is asked of the pipeline.
    pub fn load(codebook: &CodebookConfig, model: &VitConfig, place: &str, needed: bool, device: Device) -> Result<Self, WordsError> {
        let path = Path::new(&codebook.path);
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
            if codebook.found_by == WordsFoundBy::Pipeline {
                return Err(unusable(
                    "it is a dVAE, a network that runs on the device, and codebook.where = \"pipeline\"".into(),
                    "set codebook.where = \"auto\"".into(),
                ));
            }
            let dvae = Dvae::load(path, device).map_err(|e| match e {
                DvaeError::Io { source, .. } => unreadable(source),
                other => unusable(other.to_string(), "make it anew with `splitmask codebook … --kind dvae`".into()),
            })?;
            finish(device);
            return Ok(Self::Dvae(Box::new(dvae)));
        }
        let book = Codebook::load(path).map_err(|e| match e {
            PipelineError::Io { source, .. } => unreadable(source),
            other => other.into(),
        })?;
        book.check_fits(&path.display().to_string(), model.image, model.patch)?;
        let tokenizer = Arc::new(Tokenizer::new(Arc::new(book)));
        if codebook.found_by.is_device(device) {
            let sent = DeviceBook::new(tokenizer, device).map_err(|e| {
                unusable(
                    format!("it cannot be put on the device: {e}"),
                    "set codebook.where = \"pipeline\"".into(),
                )
            })?;
            finish(device);
            return Ok(Self::BookOnDevice(Box::new(sent)));
        }
        Ok(Self::Book(tokenizer))
    }

    /// The codebook, if the words are one's.
    fn book(&self) -> Option<&Codebook> {
        match self {
            Self::Book(tokenizer) => Some(tokenizer.codebook()),
            Self::BookOnDevice(book) => Some(book.codebook()),
            Self::Dvae(_) | Self::Unused => None,
        }
    }

    /// Words V.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Dvae(dvae) => dvae.header.geometry.words as usize,
            _ => self.book().map_or(0, Codebook::len),
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
            Self::Dvae(dvae) => dvae.id().to_owned(),
            _ => self.book().map_or_else(String::new, Codebook::id),
        }
    }

    /// For the pipeline's workers, where they find the words.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        match self {
            Self::Book(tokenizer) => Some(tokenizer),
            _ => None,
        }
    }

    /// What the pipeline must make so that the words which an objective asks for can be had: nothing for those that are found on the device in a
    /// view that is there anyway; for a dVAE a target of `stride` pixels a side for each patch.
    ///
    /// # Panics
    /// If words of another view than the first are asked for.
    #[must_use]
    pub fn request(&self, mut request: SampleRequest) -> SampleRequest {
        let Some(words) = request.words else { return request };
        assert_eq!(request.place(words.view), Some(0), "words are those of the first view");
        if matches!(self, Self::BookOnDevice(_) | Self::Dvae(_)) {
            request.words = None;
        }
        if let Self::Dvae(dvae) = self {
            request.target = Some(TargetRequest {
                view: words.view,
                size: request.views[0].size / words.patch * dvae.header.geometry.stride as u32,
            });
        }
        request
    }

    /// Images `range` of a batch, sent to `device`, with their words: for a look at them beside training.
    ///
    /// # Errors
    /// As [`SentBatch::send`] and [`Words::find`].
    pub fn send(&self, batch: &Batch, range: Range<usize>, device: Device, normalise: &Normalise) -> Result<StepInput, TensorError> {
        let all = 0..range.len();
        let mut sent = SentBatch::send(batch, range, device)?;
        self.find(&mut sent)?;
        sent.input(all, normalise)
    }

    /// Puts the words of a batch into it if the device finds them and not the pipeline: in f32 and without gradient, outside autocast.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn find(&self, sent: &mut SentBatch) -> Result<(), TensorError> {
        let words = in_whole_f32(|| match self {
            Self::BookOnDevice(book) => sent.first_view().map(|view| book.words(view)).transpose(),
            Self::Dvae(dvae) => Ok(sent.target().map(|target| dvae.words(target))),
            Self::Book(_) | Self::Unused => Ok(None),
        })?;
        if let Some(words) = words {
            // The largest of V scores: no look at the device is needed to know the bound.
            sent.set_words(words, (self.len() - 1) as u32);
        }
        Ok(())
    }

    /// What a word looks like: (side, planar 3×side×side bytes).
    #[must_use]
    pub fn picture(&self, word: usize) -> (u32, Vec<u8>) {
        match self {
            Self::Dvae(dvae) => (dvae.header.geometry.stride as u32, dvae.look(word)),
            _ => self
                .book()
                .map_or_else(|| (1, vec![0; 3]), |book| (book.patch, book.word_pixels(word))),
        }
    }
}

/// Waits for what was sent: words are found beside the device's own stream, which may use only what is there.
fn finish(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}
