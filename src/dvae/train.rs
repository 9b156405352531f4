//! Training of a dVAE (arXiv 2102.12092 §2.1 and appendix A): one object that takes steps, can be stored between any two, and ends as a [`Dvae`].

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::seed::{Purpose, derive};
use tch::{Device, Kind, Tensor, nn};

use super::DvaeError;
use super::file::{self, Header};
use super::geometry::Geometry;
use super::loss::{Reconstruction, divergence, imbalance, map_pixels, relaxed};
use super::net::{Decoder, Encoder};
use super::tokenizer::Dvae;
use crate::optim::config::OptimConfig;
use crate::optim::{AdamW, ParamRule, learning_rate};

const STATE_FORMAT: &str = "splitmask-dvae-state-1";

/// Settings of a training; two trainings with equal ones on equal pictures are equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Sizes.
    pub geometry: Geometry,
    /// Side of the pictures, pixels; a multiple of the stride.
    pub picture: i64,
    /// Pictures of a step.
    pub batch: usize,
    /// Steps.
    pub steps: u64,
    /// Peak learning rate; it falls over a cosine to an eightieth, as DALL-E's does.
    pub lr: f64,
    /// Temperature of the relaxation at the start and at the end of its cosine.
    pub temperature: [f64; 2],
    /// Share of the steps over which the temperature falls.
    pub anneal: f64,
    /// Weight β of the divergence from uniform words; it rises over a cosine in the first tenth of the steps.
    pub kl: f64,
    /// Weight of the divergence of a batch's mean sharpened distribution of words from the uniform one. Deviation: DALL-E has no such term, and millions of
    /// steps of 512 pictures; without it, short trainings with small batches end in a handful of words.
    pub balance: f64,
    /// How a reconstruction is judged.
    pub reconstruction: Reconstruction,
    /// Seed of everything random.
    pub seed: u64,
}

impl Options {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`DvaeError::Setting`] naming the field.
    pub fn validate(&self) -> Result<(), DvaeError> {
        self.geometry.validate()?;
        let stride = self.geometry.stride;
        let checks = [
            (
                self.picture >= stride && self.picture % stride == 0,
                "picture",
                self.picture.to_string(),
                format!("a multiple of the stride {stride}"),
            ),
            (
                (1..=65_536).contains(&self.batch),
                "batch",
                self.batch.to_string(),
                "1 to 65536 pictures".into(),
            ),
            (self.steps >= 1, "steps", self.steps.to_string(), "at least 1".into()),
            (
                self.lr > 0.0 && self.lr <= 1.0,
                "lr",
                self.lr.to_string(),
                "above 0, at most 1".into(),
            ),
            (
                self.temperature.iter().all(|t| *t > 0.0 && t.is_finite()),
                "temperature",
                format!("{:?}", self.temperature),
                "two numbers above 0".into(),
            ),
            (
                self.anneal > 0.0 && self.anneal <= 1.0,
                "anneal",
                self.anneal.to_string(),
                "above 0, at most 1".into(),
            ),
            (
                self.kl >= 0.0 && self.kl.is_finite(),
                "kl",
                self.kl.to_string(),
                "0 (off) or above".into(),
            ),
        ];
        let balance = (
            self.balance >= 0.0 && self.balance.is_finite(),
            "balance",
            self.balance.to_string(),
            "0 (off) or above".to_owned(),
        );
        for (ok, key, value, allowed) in checks.into_iter().chain([balance]) {
            if !ok {
                return Err(DvaeError::Setting { key, value, allowed });
            }
        }
        Ok(())
    }

    fn optim(&self) -> OptimConfig {
        OptimConfig {
            lr: self.lr,
            min_lr: self.lr / 80.0,
            warmup_steps: (self.steps / 20).min(500),
            total_steps: self.steps,
            ..OptimConfig::default()
        }
    }

    /// Temperature of a step.
    #[must_use]
    pub fn temperature_at(&self, step: u64) -> f64 {
        let [start, end] = self.temperature;
        rise(end, start, 1.0 - self.share(step, self.anneal))
    }

    /// Weight β of the divergence at a step.
    #[must_use]
    pub fn kl_at(&self, step: u64) -> f64 {
        rise(0.0, self.kl, self.share(step, 0.1))
    }

    fn share(&self, step: u64, of: f64) -> f64 {
        (step as f64 / (self.steps as f64 * of).max(1.0)).min(1.0)
    }
}

/// From `low` to `high` over half a cosine.
fn rise(low: f64, high: f64, done: f64) -> f64 {
    low + (high - low) * 0.5 * (1.0 - (std::f64::consts::PI * done).cos())
}

/// Weight decay of DALL-E's dVAE (appendix A.2).
const WEIGHT_DECAY: f64 = 1e-4;
/// Largest gradient norm. Deviation: DALL-E's dVAE is not clipped, but small batches have outliers.
const CLIP: f64 = 1.0;

/// Scalars of one step, on the device, not yet read.
#[derive(Debug)]
pub struct StepReport {
    /// Reconstruction loss, a mean over pixels and channels.
    pub reconstruction: Tensor,
    /// Divergence from uniform words, nats a place.
    pub divergence: Tensor,
    /// Norm of the gradients; not finite = the step was skipped.
    pub grad_norm: Tensor,
    /// i64 B·g·g: most likely word of each place.
    pub words: Tensor,
}

/// A training between two steps.
#[derive(Debug)]
pub struct Training {
    options: Options,
    vars: nn::VarStore,
    encoder: Encoder,
    decoder: Decoder,
    optimizer: AdamW,
    optim: OptimConfig,
    step: u64,
    cursor: Cursor,
}

impl Training {
    /// At step 0, initialised from the options' seed.
    ///
    /// # Errors
    /// [`DvaeError::Setting`].
    pub fn new(options: Options, device: Device) -> Result<Self, DvaeError> {
        options.validate()?;
        tch::manual_seed(options.seed as i64);
        let vars = nn::VarStore::new(device);
        let root = vars.root();
        let encoder = Encoder::new(&(&root / "encoder"), &options.geometry);
        let decoder = Decoder::new(&(&root / "decoder"), &options.geometry);
        let optim = options.optim();
        let optimizer = AdamW::new(vars.variables(), |name, dims| ParamRule::by_name(name, dims, 0), &optim);
        Ok(Self {
            options,
            vars,
            encoder,
            decoder,
            optimizer,
            optim,
            step: 0,
            cursor: Cursor::default(),
        })
    }

    /// Steps taken.
    #[must_use]
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Where the stream of pictures goes on.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// One step on u8 B×3×S×S pictures on the device, behind which the stream stands at `cursor`. The relaxation draws from libtorch's
    /// generator, seeded by (seed, step): a step is a function of its inputs alone.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn step(&mut self, pictures: &Tensor, cursor: Cursor) -> Result<StepReport, DvaeError> {
        tch::manual_seed(derive(self.options.seed, Purpose::Step, self.step, 0, 0) as i64);
        let mapped = map_pixels(pictures);
        if self.step == 0 {
            self.encoder.standardise(&mapped);
        }
        let logits = self.encoder.forward(&mapped);
        let relaxed = relaxed(&logits, self.options.temperature_at(self.step));
        let reconstruction = self.options.reconstruction.loss(&self.decoder.forward(&relaxed), &mapped);
        let divergence = divergence(&logits);
        // The bound divided by the numbers of a picture: β/192 for stride 8 (appendix A.3).
        let weight = self.options.kl_at(self.step) / (3 * self.options.geometry.stride.pow(2)) as f64;
        (&reconstruction + &divergence * weight + imbalance(&logits) * self.options.balance).f_backward()?;
        let lr = learning_rate(&self.optim, self.step);
        let grad_norm = self.optimizer.clipped_step(lr, WEIGHT_DECAY, CLIP)?;
        self.optimizer.zero_grad()?;
        self.step += 1;
        self.cursor = cursor;
        Ok(StepReport {
            reconstruction: reconstruction.detach(),
            divergence: divergence.detach(),
            grad_norm,
            words: tch::no_grad(|| logits.argmax(1, false).reshape([-1])),
        })
    }

    /// Loss without noise on u8 B×3×S×S pictures: (reconstruction from the most likely words, divergence). Changes nothing.
    #[must_use]
    pub fn evaluate(&self, pictures: &Tensor) -> (f64, f64) {
        tch::no_grad(|| {
            let mapped = map_pixels(pictures);
            let logits = self.encoder.forward(&mapped);
            let hard = logits.argmax(1, false).one_hot(self.options.geometry.words).permute([0, 3, 1, 2]);
            let statistics = self.decoder.forward(&hard.to_kind(Kind::Float));
            let loss = self.options.reconstruction.loss(&statistics, &mapped);
            (loss.double_value(&[]), divergence(&logits).double_value(&[]))
        })
    }

    /// Stores everything that the next step depends on.
    ///
    /// # Errors
    /// [`DvaeError::Io`].
    pub fn store(&self, path: &Path) -> Result<(), DvaeError> {
        let mut tensors: Vec<(String, Tensor)> = self.vars.variables().into_iter().collect();
        tensors.extend(self.optimizer.state().into_iter().map(|(name, t)| (format!("optimizer.{name}"), t)));
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let entry = serde_json::json!({"format": STATE_FORMAT, "options": self.options, "step": self.step, "cursor": self.cursor});
        file::write(path, &tensors, entry.to_string())
    }

    /// Goes on from what [`Training::store`] wrote.
    ///
    /// # Errors
    /// [`DvaeError::Bad`] for a file of other settings, or none of ours.
    pub fn resume(options: Options, path: &Path, device: Device) -> Result<Self, DvaeError> {
        let bad = |detail: String| DvaeError::Bad {
            path: path.to_owned(),
            detail,
        };
        let (entry, tensors) = file::read(path)?;
        let entry = entry.filter(|e| e["format"] == STATE_FORMAT);
        let entry = entry.ok_or_else(|| bad("not the state of a dVAE's training".into()))?;
        let stored: Options = serde_json::from_value(entry["options"].clone()).map_err(|e| bad(format!("options: {e}")))?;
        if stored != options {
            return Err(bad(format!(
                "an unfinished training with other settings: {}; give those again, or delete the file to start anew",
                entry["options"]
            )));
        }
        let mut training = Self::new(options, device)?;
        file::fill(&training.vars, |name| tensors.get(name).map(Tensor::shallow_clone)).map_err(bad)?;
        let state = tensors
            .into_iter()
            .filter_map(|(name, t)| Some((name.strip_prefix("optimizer.")?.to_owned(), t)));
        training.optimizer.load_state(state)?;
        training.step = entry["step"].as_u64().ok_or_else(|| bad("step".into()))?;
        training.cursor = serde_json::from_value(entry["cursor"].clone()).map_err(|e| bad(format!("cursor: {e}")))?;
        Ok(training)
    }

    /// The tokenizer of the weights as they are. `data` names the pictures' place, for people.
    ///
    /// # Errors
    /// What libtorch said.
    pub fn tokenizer(&self, data: &str) -> Result<Dvae, DvaeError> {
        let header = Header {
            geometry: self.options.geometry,
            picture: self.options.picture,
            origin: "trained here".into(),
            made_by: concat!("splitmask ", env!("CARGO_PKG_VERSION")).into(),
            data: data.into(),
            seed: self.options.seed,
            steps: self.step,
            psnr: None,
        };
        let tensors: BTreeMap<String, Tensor> = self.vars.variables().into_iter().collect();
        Dvae::of(header, &tensors, self.vars.device()).map_err(DvaeError::Torch)
    }
}
