//! The options of `splitmask codebook`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use splitmask_pipeline::config::{DataConfig, ImageExtensions};
use splitmask_pipeline::tokenize::{CodebookKind, PixelSpace, TOKENIZERS};

use crate::cli::amount;
use crate::dvae::Reconstruction;

/// `--kind` of a learnt tokenizer.
pub(super) const DVAE: &str = "dvae";

const LONG_ABOUT: &str = "\
Makes a codebook: the visual words that the model learns to predict for patches it does not see (arXiv 2112.10740 §3.3).

Each patch of a half-size copy of the view gets the word whose vector has the largest cosine similarity. Kinds of vocabulary:
  random-patches     patches of different images of the data; nearly all words get used. The best start.
  k-means            centroids of clustered patches; takes minutes, little gained in the paper.
  random-projection  random vectors; needs no data, but natural patches use only some hundred of the words.
  dvae               a learnt tokenizer: the discrete VAE of DALL-E (arXiv 2102.12092), trained on the data here, which wants a GPU and
                     hours, or published weights (--weights). Its words are computed on the training device.
The paper finds the first three as good as the learnt one, and 26 % faster (its Table 2, §3.3).

The table at the end is measured on random crops of the data. Perplexity is the number of equally frequent words that would be as hard to
guess; its logarithm, the marginal entropy, is the loss of a model that knows nothing but frequencies: training has learnt something once
its inpainting loss is below it. A perplexity under 50, or a commonest word above 30 %, makes a poor target: try another --pixels.";

const EXAMPLES: &str = "\
Examples:
  splitmask codebook data/photos/train --out data/photos/words.safetensors \\
    --picture words.png
  splitmask codebook data/clipart/train --out words.safetensors --words 1024 --image 64 \\
    --patch 8 --pixels raw
  splitmask codebook data/photos/train --out words.safetensors --kind k-means \\
    --samples 500000
  splitmask codebook --out words.safetensors --kind random-projection --range 0,1
  splitmask codebook data/photos/train --out dvae.safetensors --kind dvae --steps 50000 \\
    --picture rebuilt.png
  splitmask codebook data/photos/train --out dvae.safetensors --kind dvae \\
    --weights dall-e-encoder.safetensors
Then set codebook.path in the training config, with model.image and model.patch as --image and --patch here.";

/// Make a vocabulary of visual words for a set of images.
#[derive(Args)]
#[command(long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub(crate) struct CodebookArgs {
    /// Shards with the images, as for data.train. Only a random projection can do without; it is then not measured.
    pub(super) url: Option<String>,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    /// Replace other words at --out: a run that was made with them does not go on with these.
    #[arg(long)]
    pub(super) force: bool,
    /// How the words are made.
    #[arg(long, default_value = CodebookKind::RandomPatches.name(), value_parser = PossibleValuesParser::new(TOKENIZERS.map(|t| t.name).into_iter().chain([DVAE])))]
    pub(super) kind: String,
    /// Words in the vocabulary (the paper has 8192).
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub(super) words: usize,
    /// Side of the model's views, as model.image.
    #[arg(long, value_name = "PIXELS", default_value = "224", value_parser = amount::side)]
    pub(super) image: u32,
    /// Side of the model's patches, as model.patch; a word covers half of it on the half-size copy.
    #[arg(long, value_name = "PIXELS", default_value = "16", value_parser = amount::side)]
    pub(super) patch: u32,
    /// Numbers that patches and words are compared in.
    #[arg(long, value_name = "SPACE", default_value = PixelSpace::MeanStd.name(), value_parser = PossibleValuesParser::new(PixelSpace::ALL.map(PixelSpace::name)))]
    pub(super) pixels: String,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Patches that k-means clusters (the paper takes 3 million); default: 64 for each word.
    #[arg(long, value_name = "N")]
    pub(super) samples: Option<usize>,
    /// Passes of k-means at most.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) passes: u32,
    /// Range of the components of a random projection (the paper does not state it).
    #[arg(long, value_name = "LOW,HIGH", default_value = "0,1", value_parser = range, allow_hyphen_values = true)]
    pub(super) range: [f32; 2],
    /// Range of the crops' share of the image area, as augment.crop.area.
    #[arg(long, value_name = "LOW,HIGH", default_value = "0.2,1", value_parser = range)]
    pub(super) area: [f32; 2],
    /// Crops that the words are counted on; 0 = do not measure.
    #[arg(long, value_name = "CROPS", default_value_t = 2000)]
    pub(super) measure: usize,
    /// Draw into this PNG file: all words, the commonest first; for a dVAE, pictures, rebuilt from their words, and as mosaics of what
    /// their words stand for.
    #[arg(long, value_name = "FILE")]
    pub(super) picture: Option<PathBuf>,
    /// Object store endpoint to use instead of the provider's.
    #[arg(long, value_name = "URL", default_value = "")]
    pub(super) endpoint: String,
    /// Extension of the images, where a sample holds several pictures, as data.image; several with commas, in order of preference.
    #[arg(long, value_name = "EXTENSION", value_delimiter = ',')]
    pub(super) extension: Vec<String>,
    /// Print the table as JSON, and no progress bar.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) dvae: DvaeArgs,
}

impl CodebookArgs {
    /// How the shards are read.
    pub(super) fn data(&self) -> DataConfig {
        DataConfig {
            endpoint: self.endpoint.clone(),
            image: ImageExtensions::of(&self.extension),
            ..DataConfig::default()
        }
    }
}

/// Two numbers with a comma, the lower one first.
pub(super) fn range(text: &str) -> Result<[f32; 2], String> {
    let example = "two numbers with a comma, the lower one first, for example 0.2,1";
    let (lo, hi) = text.split_once(',').ok_or(example)?;
    let number = |t: &str| t.trim().parse::<f32>().ok().filter(|n| n.is_finite()).ok_or(example);
    let (lo, hi) = (number(lo)?, number(hi)?);
    if lo < hi { Ok([lo, hi]) } else { Err(example.into()) }
}

#[derive(Args)]
#[command(next_help_heading = "Options of --kind dvae (the pictures have --image ÷ --patch × --stride pixels a side)")]
pub(super) struct DvaeArgs {
    /// Take the encoder from this safetensors file instead of training one: openai/DALL-E's, converted as docs/tokenizers.md shows.
    #[arg(long, value_name = "FILE")]
    pub(super) weights: Option<PathBuf>,
    /// Steps of the training.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(super) steps: u64,
    /// Pictures of a step.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) batch: usize,
    /// Channels of the first group of blocks (DALL-E has 256).
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) width: i64,
    /// Pixels a side for each word.
    #[arg(long, value_name = "PIXELS", default_value_t = 8)]
    pub(super) stride: i64,
    /// Residual blocks of a group.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(super) blocks: i64,
    /// Peak learning rate; falls to an eightieth over a cosine.
    #[arg(long, default_value_t = 3e-4)]
    pub(super) lr: f64,
    /// Temperature of the relaxation, hot to cold.
    #[arg(long, value_name = "COLD,HOT", default_value = "0.0625,1", value_parser = range)]
    pub(super) temperature: [f32; 2],
    /// Share of the steps over which the temperature falls.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub(super) anneal: f64,
    /// Weight of each place's divergence from uniform words, in DALL-E's units (there 6.6).
    #[arg(long, default_value_t = 1.0)]
    pub(super) kl: f64,
    /// Weight of the divergence of a batch's mean word frequencies from uniform ones: keeps words in use (DALL-E: none).
    #[arg(long, default_value_t = 0.1)]
    pub(super) balance: f64,
    /// How a reconstruction is judged.
    #[arg(long, value_enum, default_value_t)]
    pub(super) reconstruction: Reconstruction,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    pub(super) device: String,
    /// Steps between two stores of the unfinished training, beside FILE; the same command goes on from there.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) save_every: u64,
}
