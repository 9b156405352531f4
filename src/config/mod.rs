//! The whole configuration: gathered from the components' own structs, loaded in layers, validated across fields, compared.
//!
//! Nothing below this floor sees a [`Config`]; a trainer gets a [`TrainerSpec`] made from it.

pub mod classes;
pub mod diff;
pub mod explain;
pub mod file;
pub mod load;
pub mod problem;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod validate;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::request::SampleRequest;

use crate::eval::config::EvalConfig;
use crate::model::config::VitConfig;
use crate::objective::{ObjectiveConfig, Scope};
use crate::optim::EmaConfig;
use crate::optim::config::OptimConfig;
use crate::trainer::spec::{
    AugmentConfig, CheckpointConfig, DebugConfig, LogConfig, PictureConfig, StabilityConfig, TrainConfig, TrainerSpec,
};

pub use classes::Class;
pub use diff::{Change, diff};
pub use load::{Loaded, Source};
pub use problem::{ConfigError, Place, Problem};

/// `[run]`: which run this is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Name of the run, shown in status and journal.
    pub name: String,
    /// Folder of the run; empty = `runs/NAME`. Relative to the current directory, like every path in a config.
    pub dir: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Checkpoint whose weights a *new* run starts from; empty = random initialisation.
    pub init_from: String,
    /// Whether parts of the encoder that `init_from` does not hold may start at random; they are listed.
    pub init_partial: bool,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            name: "run".into(),
            dir: String::new(),
            seed: 0,
            init_from: String::new(),
            init_partial: false,
        }
    }
}

/// `[codebook]`: the visual words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct CodebookConfig {
    /// File made by `splitmask codebook`.
    pub path: String,
}

/// `[admin]`: the HTTP server, the file watch, the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address of the admin server; empty = none.
    pub bind: String,
    /// Whether POST endpoints act.
    pub lifecycle: bool,
    /// File with the bearer token that POSTs must carry; needed with `lifecycle` beyond loopback. Empty = none.
    pub token_file: String,
    /// Host names, besides IP addresses and `localhost`, under which browsers and POSTs without a token may address this server.
    pub hosts: Vec<String>,
    /// Seconds from SIGTERM to the end at most.
    pub grace_s: f64,
    /// Whether a change of the config file's content reloads it.
    pub watch: bool,
    /// Seconds without a step, outside of slow phases, after which the trainer counts as stuck; ten median steps if those are longer.
    pub watchdog_s: f64,
    /// Whether a trainer that counts as stuck ends the process, for whoever starts it again.
    pub watchdog_exit: bool,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:9464".into(),
            lifecycle: false,
            token_file: String::new(),
            hosts: Vec::new(),
            grace_s: 60.0,
            watch: true,
            watchdog_s: 300.0,
            watchdog_exit: false,
        }
    }
}

/// Everything a run can be told, valid as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[run]`.
    pub run: RunConfig,
    /// `[data]`.
    pub data: DataConfig,
    /// `[pipeline]`.
    pub pipeline: PipelineConfig,
    /// `[augment]`.
    pub augment: AugmentConfig,
    /// `[codebook]`.
    pub codebook: CodebookConfig,
    /// `[model]`.
    pub model: VitConfig,
    /// `[objective]`.
    pub objective: ObjectiveConfig,
    /// `[optim]`.
    pub optim: OptimConfig,
    /// `[ema]`.
    pub ema: EmaConfig,
    /// `[train]`.
    pub train: TrainConfig,
    /// `[stability]`.
    pub stability: StabilityConfig,
    /// `[checkpoint]`.
    pub checkpoint: CheckpointConfig,
    /// `[eval]`.
    pub eval: EvalConfig,
    /// `[picture]`.
    pub picture: PictureConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[debug]`.
    pub debug: DebugConfig,
}

impl Config {
    /// Folder of the run.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        if self.run.dir.is_empty() {
            PathBuf::from("runs").join(&self.run.name)
        } else {
            PathBuf::from(&self.run.dir)
        }
    }

    /// What the objective's plan meets. The vocabulary is not loaded here, so it counts as empty.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            model: &self.model,
            crop: self.augment.crop,
            colour: self.augment.colour,
            batch: self.train.batch,
            words: 0,
        }
    }

    /// What the objective asks of the pipeline.
    #[must_use]
    pub fn request(&self) -> SampleRequest {
        self.objective.request(&self.scope())
    }

    /// The effective config as TOML: every key, defaults included. Loads back to an equal config.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(&tree::of(self)).expect("a config made of tables, numbers, booleans and strings is TOML")
    }

    /// Hex SHA-256 of [`Self::to_toml`]: equal for equal settings, however the file is written.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(self.to_toml()))
    }

    /// What a trainer is built from.
    #[must_use]
    pub fn trainer_spec(&self) -> TrainerSpec {
        TrainerSpec {
            seed: self.run.seed,
            run_dir: self.run_dir(),
            lock: None,
            codebook: PathBuf::from(&self.codebook.path),
            init_partial: self.run.init_partial,
            init_from: (!self.run.init_from.is_empty()).then(|| PathBuf::from(&self.run.init_from)),
            data: self.data.clone(),
            pipeline: self.pipeline.clone(),
            augment: self.augment,
            model: self.model.clone(),
            objective: self.objective.clone(),
            optim: self.optim.clone(),
            ema: self.ema.clone(),
            train: self.train.clone(),
            stability: self.stability.clone(),
            debug: self.debug.clone(),
            checkpoint: self.checkpoint.clone(),
            eval: self.eval.clone(),
            picture: self.picture.clone(),
            log: self.log.clone(),
            config_toml: self.to_toml(),
        }
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}
