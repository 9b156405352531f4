//! The backbone.

use tch::nn::{self, Module, Path};
use tch::{Kind, Tensor};

use crate::model::block::{Block, BlockOptions, QkvBias, layer_norm, linear_drop_path};
use crate::model::config::VitConfig;
use crate::model::init::{Init, parameter, project};
use crate::model::positions::{Positions, RelativeBias, interpolate_positions};
use crate::tensor::look;

/// What an objective may choose about its backbone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VitOptions {
    /// Drop path of the last block; the others rise to it linearly.
    pub drop_path: f64,
    /// Biases of query, key, value.
    pub qkv_bias: QkvBias,
    /// Distribution of matrices, class token and position table; with [`Init::Xavier`] and [`Init::XavierOfThree`] of the patch embedding too.
    pub weights: Init,
    /// How the position table is made.
    pub positions: Positions,
    /// BEiT's division of the output matrices of layer l by √(2l).
    pub rescale: bool,
}

impl VitOptions {
    /// The original ViT as timm starts it.
    #[must_use]
    pub fn plain(drop_path: f64) -> Self {
        Self {
            drop_path,
            qkv_bias: QkvBias::Full,
            weights: Init::Normal { std: 0.02 },
            positions: Positions::Learned,
            rescale: false,
        }
    }
}

/// Pre-norm vision transformer with a class token and absolute positions (arXiv 2010.11929).
#[derive(Debug)]
pub struct Vit {
    cls_token: Tensor,
    pos_embed: Tensor,
    patch_weight: Tensor,
    patch_bias: Tensor,
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
    relative: Option<RelativeBias>,
    dim: i64,
    patch: i64,
    image: i64,
}

impl Vit {
    /// The original ViT under `vs`. Draws from libtorch's CPU generator: seed it first.
    #[must_use]
    pub fn new(vs: &Path<'_>, config: &VitConfig, drop_path: f64) -> Self {
        Self::with(vs, config, &VitOptions::plain(drop_path))
    }

    /// A ViT with an objective's choices.
    #[must_use]
    pub fn with(vs: &Path<'_>, config: &VitConfig, options: &VitOptions) -> Self {
        let dim = config.dim();
        let patch = i64::from(config.patch);
        let inputs = 3 * patch * patch;
        let block_options = Self::block_options(config, options);
        let tokens = options.weights.of_tokens();
        let cls_token = parameter(vs, "cls_token", &[1, 1, dim], options.weights.of_class_token());
        let pos_embed = options.positions.table(vs, config.patches(), dim, tokens);
        let patch_init = match options.weights {
            Init::Xavier | Init::XavierOfThree => Init::Xavier,
            // PyTorch's default for a convolution, as timm leaves it: it scales with the patch, which 0.02 would not.
            _ => Init::Uniform {
                bound: 1.0 / (inputs as f64).sqrt(),
            },
        };
        let patch_vs = vs / "patch_embed" / "proj";
        let patch_weight = parameter(&patch_vs, "weight", &[dim, 3, patch, patch], patch_init);
        let patch_bias = parameter(&patch_vs, "bias", &[dim], Init::Const(0.0));
        let rates = linear_drop_path(config.layers(), options.drop_path);
        let mut blocks: Vec<Block> = rates
            .into_iter()
            .enumerate()
            .map(|(i, rate)| Block::new(&(vs / "blocks" / i), &block_options, rate))
            .collect();
        if options.rescale {
            for (i, block) in blocks.iter_mut().enumerate() {
                block.rescale_outputs((2.0 * (i + 1) as f64).sqrt());
            }
        }
        let relative = config
            .relative_bias
            .then(|| RelativeBias::new(&(vs / "rel_pos_bias"), config.grid(), config.head_count()));
        Self {
            cls_token,
            pos_embed,
            patch_weight,
            patch_bias,
            blocks,
            norm: layer_norm(&(vs / "norm"), dim),
            relative,
            dim,
            patch,
            image: i64::from(config.image),
        }
    }

    /// What the blocks of this backbone, and of a decoder beside it, are made of.
    #[must_use]
    pub fn block_options(config: &VitConfig, options: &VitOptions) -> BlockOptions {
        let dim = config.dim();
        BlockOptions {
            dim,
            heads: config.head_count(),
            hidden: config.hidden(),
            layer_scale: config.layer_scale,
            qkv_bias: options.qkv_bias,
            weights: options.weights,
            recompute: config.checkpoint_activations,
        }
    }

    /// Width D.
    #[must_use]
    pub fn dim(&self) -> i64 {
        self.dim
    }

    /// Blocks.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Side of a patch, pixels.
    #[must_use]
    pub fn patch(&self) -> i64 {
        self.patch
    }

    /// Side of the training image, pixels.
    #[must_use]
    pub fn image(&self) -> i64 {
        self.image
    }

    /// Leaves the patch embedding as it was drawn from now on (arXiv 2104.02057 §4.2): call it before an optimizer is made.
    pub fn freeze_patch_embedding(&self) {
        for tensor in [&self.patch_weight, &self.patch_bias] {
            let _ = tensor.set_requires_grad(false);
        }
    }

    /// Leaves all of it as it is from now on: call it before an optimizer is made.
    pub fn freeze(&self) {
        self.freeze_patch_embedding();
        self.freeze_norm();
        let blocks = self.blocks.iter().flat_map(Block::parameters);
        let others = [&self.cls_token, &self.pos_embed].into_iter();
        for tensor in blocks.chain(others).chain(self.relative.as_ref().map(RelativeBias::table)) {
            let _ = tensor.set_requires_grad(false);
        }
    }

    /// Leaves the last norm as it is from now on, where nothing that is learnt from goes through it.
    pub fn freeze_norm(&self) {
        for tensor in self.norm.ws.iter().chain(&self.norm.bs) {
            let _ = tensor.set_requires_grad(false);
        }
    }

    /// The pixels of each patch of images B×3×S×S: B×N×3p².
    pub fn cut(&self, x: &Tensor) -> Tensor {
        let (b, c, side, _) = x.size4().expect("images are B×3×S×S");
        let (g, p) = (side / self.patch, self.patch);
        x.reshape([b, c, g, p, g, p])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([b, g * g, c * p * p])
    }

    /// Images B×3×S×S (S a multiple of the patch) to patch embeddings B×N×D, without positions.
    pub fn patches(&self, x: &Tensor) -> Tensor {
        // A convolution whose stride is its size is a matrix product of the patches; that spares a transpose of its output.
        let pixels = self.cut(x);
        project(
            &pixels,
            &self.patch_weight.view([self.dim, pixels.size()[2]]),
            Some(&self.patch_bias),
        )
    }

    /// Positions of `side` × `side` patches: 1×N×D.
    pub fn patch_positions(&self, side: i64) -> Tensor {
        interpolate_positions(&self.pos_embed, side).narrow(1, 1, side * side)
    }

    /// Images B×3×S×S to patch embeddings with their positions, B×N×D. Positions are interpolated if S is not the training size.
    pub fn embed(&self, x: &Tensor) -> Tensor {
        self.patches(x) + self.patch_positions(x.size()[2] / self.patch)
    }

    /// Embedded patches B×K×D, preceded by the class token, through all blocks and the last norm: B×(1+K)×D. `seen_bk` says which
    /// patches they are, if not all in order (needed for the relative bias only).
    pub fn encode(&self, tokens: &Tensor, seen_bk: Option<&Tensor>, train: bool) -> Tensor {
        let x = self.norm.forward(&self.through_blocks(tokens, seen_bk, train, |_| ()));
        look(|| "norm".into(), &x);
        x
    }

    fn through_blocks(&self, tokens: &Tensor, seen_bk: Option<&Tensor>, train: bool, mut behind: impl FnMut(&Tensor)) -> Tensor {
        let (mut x, bias) = self.start(tokens, seen_bk);
        look(|| "encoder input".into(), &x);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward_t(&x, bias.as_ref(), train);
            look(|| format!("blocks.{i}"), &x);
            behind(&x);
        }
        x
    }

    fn start(&self, tokens: &Tensor, seen_bk: Option<&Tensor>) -> (Tensor, Option<Tensor>) {
        let class = (&self.cls_token + self.pos_embed.narrow(1, 0, 1)).expand([tokens.size()[0], 1, self.dim], false);
        let x = Tensor::cat(&[class, tokens.to_kind(Kind::Float)], 1);
        (x, self.relative.as_ref().map(|r| r.forward(seen_bk)))
    }

    /// Images B×3×S×S to normalised features B×(1+N)×D, the class token first.
    pub fn forward_features(&self, x: &Tensor, train: bool) -> Tensor {
        self.encode(&self.embed(x), None, train)
    }

    /// As [`Vit::forward_features`], without the last norm: for a head that has a norm of its own.
    pub fn unnormed_features(&self, x: &Tensor, train: bool) -> Tensor {
        self.through_blocks(&self.embed(x), None, train, |_| ())
    }

    /// Output of each block (not normalised), B×(1+N)×D each: for probes by layer (arXiv 2112.10740 Fig. 5).
    #[must_use]
    pub fn layer_features(&self, x: &Tensor) -> Vec<Tensor> {
        self.outputs_of(x, &(1..=self.depth()).collect::<Vec<_>>(), false)
    }

    /// Outputs (not normalised) of the blocks of these numbers, counted from 1, B×(1+N)×D each; a number may come twice.
    #[must_use]
    pub fn outputs_of(&self, x: &Tensor, blocks: &[usize], train: bool) -> Vec<Tensor> {
        let mut all = Vec::with_capacity(self.blocks.len());
        let _ = self.through_blocks(&self.embed(x), None, train, |x| all.push(x.shallow_clone()));
        blocks.iter().map(|&n| all[n - 1].shallow_clone()).collect()
    }

    /// Attention of the last block for images B×3×S×S: B×H×(1+N)×(1+N), f32. Row 0 is the class token's, and each row sums to 1.
    pub fn last_attention(&self, x: &Tensor) -> Tensor {
        let (mut x, bias) = self.start(&self.embed(x), None);
        let (last, before) = self.blocks.split_last().expect("an encoder has blocks");
        for block in before {
            x = block.forward_t(&x, bias.as_ref(), false);
        }
        last.attention(&x, bias.as_ref())
    }

    /// Tokens of the last block after the final norm.
    pub fn normed(&self, tokens: &Tensor) -> Tensor {
        self.norm.forward(tokens)
    }

    /// How far below the top a backbone parameter lies: 1 for the last block, depth + 1 for the embeddings, 0 for all else, the shared table of relative
    /// biases too (arXiv 2106.08254's code).
    #[must_use]
    pub fn layers_below_top(&self, name: &str) -> u32 {
        let depth = self.blocks.len() as u32;
        if ["cls_token", "pos_embed", "mask_token"].contains(&name) || name.starts_with("patch_embed.") {
            return depth + 1;
        }
        let block = name
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        block.map_or(0, |i| depth.saturating_sub(i))
    }
}

/// Whether a parameter belongs to the backbone, i.e. to what is exported and fine-tuned.
#[must_use]
pub fn is_backbone_name(name: &str) -> bool {
    ["cls_token", "pos_embed"].contains(&name)
        || ["patch_embed.", "blocks.", "norm.", "rel_pos_bias."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::config::VitSize;

    fn small() -> VitConfig {
        VitConfig {
            size: VitSize::Nano,
            image: 16,
            patch: 4,
            width: 16,
            depth: 2,
            heads: 2,
            ..VitConfig::default()
        }
    }

    #[test]
    fn names_are_timms() {
        let _turn = crate::tensor::alone();
        let vs = nn::VarStore::new(Device::Cpu);
        let _vit = Vit::new(&vs.root(), &small(), 0.0);
        let mut names: Vec<String> = vs.variables().into_keys().filter(|n| !n.starts_with("blocks.1")).collect();
        names.sort();
        let want = "blocks.0.attn.proj.bias blocks.0.attn.proj.weight blocks.0.attn.qkv.bias blocks.0.attn.qkv.weight blocks.0.mlp.fc1.bias \
                    blocks.0.mlp.fc1.weight blocks.0.mlp.fc2.bias blocks.0.mlp.fc2.weight blocks.0.norm1.bias blocks.0.norm1.weight \
                    blocks.0.norm2.bias blocks.0.norm2.weight cls_token norm.bias norm.weight patch_embed.proj.bias \
                    patch_embed.proj.weight pos_embed";
        assert_eq!(names.join(" "), want);
        assert!(names.iter().all(|n| is_backbone_name(n)));
        assert!(!is_backbone_name("decoder.blocks.0.norm1.weight") && !is_backbone_name("mask_token"));
    }

    #[test]
    fn other_sizes_and_layers() {
        let _turn = crate::tensor::alone();
        let vs = nn::VarStore::new(Device::Cpu);
        let vit = Vit::new(
            &vs.root(),
            &VitConfig {
                layer_scale: 0.1,
                ..small()
            },
            0.0,
        );
        let x = Tensor::randn([2, 3, 24, 24], (Kind::Float, Device::Cpu));
        assert_eq!(vit.forward_features(&x, false).size(), [2, 37, 16]);
        assert_eq!(vit.last_attention(&x).size(), [2, 2, 37, 37]);
        let layers = vit.layer_features(&x);
        assert_eq!(layers.len(), 2);
        let last = vit.norm.forward(&layers[1]);
        assert_eq!(last, vit.forward_features(&x, false));
        assert_eq!(
            ["norm.weight", "blocks.1.norm1.weight", "blocks.0.norm1.weight", "pos_embed"].map(|n| vit.layers_below_top(n)),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn fixed_positions_and_a_frozen_patch_embedding_are_saved_and_not_trained() {
        let _turn = crate::tensor::alone();
        let vs = nn::VarStore::new(Device::Cpu);
        let options = VitOptions {
            weights: Init::Xavier,
            positions: Positions::SinCos,
            ..VitOptions::plain(0.0)
        };
        let vit = Vit::with(&vs.root(), &small(), &options);
        vit.freeze_patch_embedding();
        let x = Tensor::randn([2, 3, 16, 16], (Kind::Float, Device::Cpu));
        vit.forward_features(&x, true).square().mean(Kind::Float).backward();
        let vars = vs.variables();
        assert_eq!(vars["pos_embed"], crate::model::sin_cos_positions(4, 16));
        let mut still: Vec<&String> = vars.iter().filter(|(_, t)| !torch_ext::has_grad(t)).map(|(name, _)| name).collect();
        still.sort();
        assert_eq!(still, ["patch_embed.proj.bias", "patch_embed.proj.weight", "pos_embed"]);
        let bound = (6.0f64 / (48.0 + 16.0)).sqrt();
        let largest = vars["patch_embed.proj.weight"].abs().max().double_value(&[]);
        assert!(largest <= bound && largest > 0.9 * bound, "{largest} {bound}");
        assert!(vars["cls_token"].abs().max().double_value(&[]) < 0.1, "tokens are drawn small");
    }

    #[test]
    fn beit_choices_change_the_start() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(4);
        let vs = nn::VarStore::new(Device::Cpu);
        let options = VitOptions {
            qkv_bias: QkvBias::QueryValue,
            rescale: true,
            ..VitOptions::plain(0.0)
        };
        let _vit = Vit::with(&vs.root(), &small(), &options);
        let vars = vs.variables();
        assert!(vars.contains_key("blocks.0.attn.q_bias") && !vars.contains_key("blocks.0.attn.qkv.bias"));
        let spread = |i: usize| vars[&format!("blocks.{i}.mlp.fc2.weight")].std(true).double_value(&[]);
        assert!((spread(0) / spread(1) - 2f64.sqrt()).abs() < 0.2, "{} {}", spread(0), spread(1));
    }
}
