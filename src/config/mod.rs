//! The whole configuration: gathered from the components' own structs, loaded in layers, validated across fields, compared.
//!
//! Nothing below this floor sees a [`Config`]; a trainer gets a [`TrainerSpec`] made from it.

mod admin;
pub mod diff;
mod entry;
pub mod explain;
pub mod file;
pub mod keys;
pub mod load;
pub mod problem;
pub mod reload_page;
mod rules;
mod run;
mod shadowed;
#[cfg(test)]
mod tests;
pub mod tree;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::request::SampleRequest;

use crate::eval::config::EvalConfig;
use crate::mirror::MirrorSettings;
use crate::model::config::VitConfig;
use crate::objective::{ObjectiveConfig, Scope};
use crate::optim::EmaConfig;
use crate::optim::config::OptimConfig;
use crate::trainer::spec::{
    AugmentConfig, CheckpointConfig, DebugConfig, LogConfig, PictureConfig, RanksConfig, StabilityConfig, TrainConfig, TrainerSpec,
    TrainingLabels,
};
use crate::words::CodebookConfig;

pub use crate::setting::Class;
pub use admin::AdminConfig;
pub use diff::{Change, diff};
pub use load::{Loaded, Source};
pub use problem::{ConfigError, Place, Problem};
pub use run::RunConfig;
pub use shadowed::Shadowed;

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
    /// `[ranks]`.
    pub ranks: RanksConfig,
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
        self.run.folder()
    }

    /// The copy of the run in a store, if one is kept: `checkpoint.mirror`, or `run.dir` where that is an address.
    #[must_use]
    pub fn mirror(&self) -> Option<MirrorSettings> {
        let c = &self.checkpoint;
        let (key, address) = match (c.mirror.as_str(), self.run.address()) {
            ("", None) => return None,
            ("", Some(address)) => ("run.dir", address),
            (address, _) => ("checkpoint.mirror", address),
        };
        Some(MirrorSettings {
            key,
            address: address.to_owned(),
            endpoint: c.mirror_endpoint.clone(),
            mb_s: c.mirror_mb_s,
            lease: Duration::from_secs_f64(c.mirror_lease_s),
            keep: c.keep,
            keep_every: c.keep_every_steps,
        })
    }

    /// What the objective's plan meets. The vocabulary is not loaded here, so it counts as empty.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            model: &self.model,
            crop: self.augment.crop,
            colour: self.augment.colour,
            batch: self.train.batch,
            steps: self.optim.total_steps,
            words: 0,
            label_counts: &[],
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
            codebook: self.codebook.clone(),
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
            ranks: self.ranks.clone(),
            stability: self.stability.clone(),
            debug: self.debug.clone(),
            checkpoint: self.checkpoint.clone(),
            eval: self.eval.clone(),
            picture: self.picture.clone(),
            log: self.log.clone(),
            grace: Duration::from_secs_f64(self.admin.grace_s),
            labels: TrainingLabels::default(),
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
