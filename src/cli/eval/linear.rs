//! `splitmask eval linear`: a linear probe of each layer.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Subject, checkpoint_folder, config_of, spinner};
use crate::cli::answer::say;
use crate::config::Config;
use crate::eval::features::Pool;
use crate::eval::fenced;
use crate::eval::linear::Linear;
use crate::exit::CliError;
use crate::trainer::{self, ProbeStage};

/// Accuracy of a linear classifier on frozen features, layer by layer (Figure 5 of arXiv 2112.10740).
///
/// Features of all images are computed once; a softmax regression on each layer's standardised features is then fitted to its minimum
/// (L-BFGS over the whole set: no seed, no learning rate). The weight decay is swept, and chosen on a fifth of the training images; so is
/// the best layer. The validation images choose nothing.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask eval linear runs/demo\n  splitmask eval linear runs/demo --layers last --json\n  splitmask eval linear runs/demo --layers 2,4,6 --pool mean,cls,both --random-init"
)]
pub(super) struct LinearArgs {
    /// Run folder (its newest checkpoint is taken) or checkpoint folder.
    run: PathBuf,
    /// Layers to probe, from 1: `all`, `last`, or a list as 1,3,6. The last one is taken after the final norm.
    #[arg(long, value_name = "LAYERS", default_value = "all")]
    layers: String,
    /// What of a layer's tokens: mean of the patch tokens, class token, both side by side; several with commas.
    #[arg(long, value_name = "POOL", value_enum, value_delimiter = ',', default_values_t = [PoolArg::Mean])]
    pool: Vec<PoolArg>,
    /// The same encoder at its random initialisation instead of the checkpoint's weights.
    #[arg(long)]
    random_init: bool,
    /// Labelled shards to classify; default: data.val of the run's config.
    #[arg(long, value_name = "URL")]
    val: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum PoolArg {
    /// Mean of the patch tokens.
    Mean,
    /// Class token.
    Cls,
    /// Both, one behind the other.
    Both,
}

impl PoolArg {
    fn pool(self) -> Pool {
        match self {
            Self::Mean => Pool::Mean,
            Self::Cls => Pool::Cls,
            Self::Both => Pool::Both,
        }
    }
}

/// Layer numbers of `--layers` for an encoder of `depth` layers.
fn layers(text: &str, depth: usize) -> Result<Vec<usize>, CliError> {
    let bad = || {
        CliError::usage(
            format!("--layers {text}: expected all, last, or numbers from 1 to {depth} with commas"),
            "for example --layers 1,3,6".to_owned(),
        )
    };
    match text {
        "all" => Ok((1..=depth).collect()),
        "last" => Ok(vec![depth]),
        list => {
            let mut numbers = list
                .split(',')
                .map(|n| n.trim().parse().ok().filter(|n| (1..=depth).contains(n)).ok_or_else(bad))
                .collect::<Result<Vec<usize>, _>>()?;
            numbers.sort_unstable();
            numbers.dedup();
            Ok(numbers)
        }
    }
}

pub(super) fn run(args: LinearArgs) -> Result<(), CliError> {
    let folder = checkpoint_folder(&args.run)?;
    let mut config = config_of(&folder)?;
    let numbers = layers(&args.layers, config.model.layers() as usize)?;
    let places: Vec<(usize, Pool)> = numbers
        .iter()
        .flat_map(|layer| args.pool.iter().map(|p| (*layer, p.pool())))
        .collect();
    if let Some(val) = args.val {
        config.data.val = val;
    }
    let found = linear(&config, (!args.random_init).then_some(folder.as_path()), &places)?;
    if args.json {
        let what = if args.random_init {
            "random-init".into()
        } else {
            folder.display().to_string()
        };
        say!("{}", serde_json::json!({ "weights": what, "linear": found }));
        return Ok(());
    }
    let name = |pool: Pool| match pool {
        Pool::Mean => "mean",
        Pool::Cls => "cls",
        Pool::Both => "both",
    };
    say!("layer  pool  weight decay  held out  accuracy");
    for p in &found.probes {
        say!(
            "{:>5}  {:<4}  {:>12.0e}  {:>8.4}  {:>8.4}",
            p.layer,
            name(p.pool),
            p.weight_decay,
            p.held_out,
            p.top1
        );
    }
    let best = found.best;
    say!(
        "best            {:.4}   (layer {}, {}; chosen on held-out training images; {} images, {} to learn from)",
        best.top1,
        best.layer,
        name(best.pool),
        found.queries,
        found.references
    );
    say!("commonest class {:.4}", found.majority);
    say!("chance          {:.4}   ({} classes)", found.chance, found.classes);
    for line in found.remarks.lines() {
        say!("note            {line}");
    }
    Ok(())
}

/// Probes of a checkpoint's weights, or of the random initialisation of its config.
fn linear(config: &Config, weights: Option<&Path>, places: &[(usize, Pool)]) -> Result<Linear, CliError> {
    let subject = Subject::of(config, weights)?;
    let images = spinner();
    let fits = ProgressBar::new(places.len() as u64)
        .with_style(ProgressStyle::with_template("{spinner} fitting probes {wide_bar} {pos} of {len}").expect("template is valid"));
    let backbone = subject.objective.encoder();
    let go_on = |stage| {
        match stage {
            ProbeStage::Train(n) => {
                images.set_message("features of train");
                images.set_position(n as u64);
            }
            ProbeStage::Val(n) => {
                images.set_message("features of val");
                images.set_position(n as u64);
            }
            ProbeStage::Fit(done, _) => {
                images.finish_and_clear();
                fits.set_position(done as u64);
            }
        }
        true
    };
    let result = fenced(|| trainer::linear(backbone, &subject.spec, subject.device, places, go_on));
    images.finish_and_clear();
    fits.finish_and_clear();
    Ok(result?)
}

#[cfg(test)]
mod tests {
    use super::layers;

    #[test]
    fn layers_are_read() {
        assert_eq!(layers("all", 3).unwrap(), [1, 2, 3]);
        assert_eq!(layers("last", 3).unwrap(), [3]);
        assert_eq!(layers("3, 1,3", 3).unwrap(), [1, 3]);
        for bad in ["", "0", "4", "first", "1,,2"] {
            let e = layers(bad, 3).unwrap_err();
            assert!(e.message.contains("1 to 3"), "{bad}: {e}");
        }
    }
}
