//! `splitmask eval linear`: a linear probe of each layer.

use clap::Args;
use serde_json::json;

use super::subject::SubjectArgs;
use crate::eval::linear::LINEAR;
use crate::eval::pool::Pool;
use crate::exit::CliError;

/// Features of all images are computed once; a softmax regression on each layer's standardised features is then fitted to its minimum
/// (L-BFGS over the whole set: no seed, no learning rate). The weight decay is swept, and chosen on a fifth of the training images; so is
/// the best layer. The validation images choose nothing.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  splitmask eval linear runs/demo\n  splitmask eval linear runs/demo --layers last --json\n  splitmask eval linear runs/demo --layers 2,4,6 --pool mean,cls,both --random-init"
)]
pub(super) struct LinearArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Layers to probe, from 1: `all`, `last`, or a list as 1,3,6. The last one is taken after the final norm.
    #[arg(long, value_name = "LAYERS", default_value = "all")]
    layers: String,
    /// What of a layer's tokens: mean of the patch tokens, class token, both side by side; several with commas; default: eval.pool of the run's config.
    #[arg(long, value_name = "POOL", value_enum, value_delimiter = ',')]
    pool: Vec<Pool>,
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

pub(super) fn run(args: &LinearArgs) -> Result<(), CliError> {
    let (folder, config) = args.subject.open()?;
    let numbers = layers(&args.layers, config.model.layers() as usize)?;
    let pools: Vec<Pool> = match args.pool.as_slice() {
        [] => vec![config.eval.pool],
        asked => asked.to_vec(),
    };
    let places = numbers.iter().flat_map(|layer| pools.iter().map(|pool| (*layer, *pool))).collect();
    let measured = args.subject.model(&config, &folder)?;
    args.subject
        .tell(&folder, &config, &LINEAR, measured.score(&LINEAR, places)?, json!({}))
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
