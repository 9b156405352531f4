//! The network of a checkpoint, for verbs that ask it something.

use std::path::{Path, PathBuf};

use tch::{Device, Tensor, nn};

use crate::checkpoint;
use crate::config::Config;
use crate::exit::CliError;
use crate::objective::{Objective, Scope};
use crate::optim::EMA_PREFIX;
use crate::optim::Weights;
use crate::tensor::choose_device;
use crate::words::Words;

/// A network with its weights, and what its checkpoint says beside them.
pub(in crate::cli) struct Network {
    pub(in crate::cli) objective: Box<dyn Objective>,
    pub(in crate::cli) device: Device,
    pub(in crate::cli) words: Words,
    /// Steps done.
    pub(in crate::cli) step: u64,
    /// Micro-batches that a batch is processed in.
    pub(in crate::cli) micro_batches: u32,
    /// Names of the classes that the checkpoint learnt; empty where nobody named them.
    pub(in crate::cli) classes: Vec<String>,
    /// The checkpoint, if it was trained with other words than codebook.path holds now.
    pub(in crate::cli) other_words: Option<PathBuf>,
}

impl Network {
    /// With a checkpoint's weights, those that `eval.weights` names, or at the random initialisation of its config.
    pub(in crate::cli) fn of(config: &Config, weights: Option<&Path>) -> Result<Self, CliError> {
        let scope = |words: usize| scope(config, words);
        let (device, _) = choose_device(&config.train.device)?;
        let needed = config.objective.request(&scope(0)).words.is_some();
        let words = Words::load(&config.codebook, &config.model, config.data.first_place(), needed, device)?;
        tch::manual_seed(config.run.seed as i64);
        let vars = nn::VarStore::new(device);
        let objective = config.objective.build(&vars.root(), &scope(words.len()));
        let (mut step, mut micro_batches, mut classes) = (0, config.train.accumulate, Vec::new());
        let mut other_words = None;
        if let Some(folder) = weights {
            let found = checkpoint::read(folder)?;
            step = found.progress.step;
            classes.clone_from(&found.progress.classes);
            other_words = (found.progress.codebook != words.id()).then(|| folder.to_owned());
            micro_batches = micro_batches.max(found.progress.micro_batches);
            let mut tensors = found.weights()?;
            if config.eval.weights == Weights::Ema {
                // Only the averages, under their weights' names.
                let averaged = |(name, t): (String, Tensor)| name.strip_prefix(EMA_PREFIX).map(|n| (n.to_owned(), t));
                tensors = tensors.into_iter().filter_map(averaged).collect();
            }
            checkpoint::put_weights(folder, &tensors, &vars)?;
        }
        Ok(Self {
            objective,
            device,
            words,
            step,
            micro_batches,
            classes,
            other_words,
        })
    }
}

/// What the plan of a config meets, with a vocabulary of `words`.
pub(super) fn scope(config: &Config, words: usize) -> Scope<'_> {
    Scope {
        crop: config.augment.crop,
        colour: config.augment.colour,
        ..Scope::new(&config.model, config.train.batch, words as i64)
    }
}

/// Takes the averaged weights, where a verb was asked for them and the run has some.
pub(in crate::cli) fn take_averages(config: &mut Config, folder: &Path) -> Result<(), CliError> {
    if config.ema.decay == 0.0 {
        return Err(CliError::usage(
            format!("--ema: {} has no averaged weights (ema.decay = 0)", folder.display()),
            "train with ema.decay, for example 0.999".to_owned(),
        ));
    }
    config.eval.weights = Weights::Ema;
    Ok(())
}
