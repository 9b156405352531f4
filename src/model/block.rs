//! One pre-norm transformer block.

use tch::nn::{self, Module, Path};
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;

use crate::model::init::{Init, linear, parameter};

/// Where the projections to query, key and value have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkvBias {
    /// All three (`attn.qkv.bias`).
    Full,
    /// Query and value (`attn.q_bias`, `attn.v_bias`), as BEiT: a key bias cannot change a softmax over keys.
    QueryValue,
}

/// What all blocks of a stack share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockOptions {
    /// Width D.
    pub dim: i64,
    /// Heads, divides D.
    pub heads: i64,
    /// Hidden width of the MLP.
    pub hidden: i64,
    /// Initial LayerScale; 0 = none.
    pub layer_scale: f64,
    /// Biases of query, key, value.
    pub qkv_bias: QkvBias,
    /// Distribution of the matrices.
    pub weights: Init,
}

/// LayerNorm with the vision transformer's epsilon.
pub(crate) fn layer_norm(vs: &Path<'_>, dim: i64) -> nn::LayerNorm {
    nn::layer_norm(
        vs,
        vec![dim],
        nn::LayerNormConfig {
            eps: 1e-6,
            ..Default::default()
        },
    )
}

#[derive(Debug)]
enum Biases {
    Full(Tensor),
    QueryValue(Tensor, Tensor),
}

#[derive(Debug)]
struct Attention {
    qkv: Tensor,
    bias: Biases,
    proj: nn::Linear,
    heads: i64,
}

impl Attention {
    fn new(vs: &Path<'_>, o: &BlockOptions) -> Self {
        let qkv = parameter(&(vs / "qkv"), "weight", &[3 * o.dim, o.dim], o.weights);
        let zero = Init::Const(0.0);
        let bias = match o.qkv_bias {
            QkvBias::Full => Biases::Full(parameter(&(vs / "qkv"), "bias", &[3 * o.dim], zero)),
            QkvBias::QueryValue => Biases::QueryValue(parameter(vs, "q_bias", &[o.dim], zero), parameter(vs, "v_bias", &[o.dim], zero)),
        };
        Self {
            qkv,
            bias,
            proj: linear(&(vs / "proj"), o.dim, o.dim, true, o.weights),
            heads: o.heads,
        }
    }

    fn forward(&self, x: &Tensor, position_bias: Option<&Tensor>) -> Tensor {
        let (b, n, d) = x.size3().expect("tokens are B×N×D");
        let projected = match &self.bias {
            Biases::Full(bias) => x.linear(&self.qkv, Some(bias)),
            Biases::QueryValue(q, v) => x.linear(&self.qkv, Some(&Tensor::cat(&[q, &q.zeros_like(), v], 0))),
        };
        let qkv = projected.view([b, n, 3, self.heads, d / self.heads]).permute([2, 0, 3, 1, 4]);
        let mixed = attend(&qkv, position_bias);
        self.proj.forward(&mixed.transpose(1, 2).reshape([b, n, d]))
    }
}

/// Scaled dot-product attention of 3×B×H×N×D/H.
///
/// On the CPU it runs in f32 even under bf16 autocast: libtorch 2.11's bf16 backward of CPU flash attention is several times
/// slower than its f32 one, and softmax in f32 is what one wants anyway.
fn attend(qkv: &Tensor, position_bias: Option<&Tensor>) -> Tensor {
    let dot = |qkv: &Tensor| {
        let parts = qkv.unbind(0);
        Tensor::scaled_dot_product_attention(&parts[0], &parts[1], &parts[2], position_bias, 0.0, false, None, false)
    };
    if qkv.device() == Device::Cpu && qkv.kind() != Kind::Float {
        let _f32 = Autocast::off(Device::Cpu).expect("the CPU has autocast");
        return dot(&qkv.to_kind(Kind::Float));
    }
    dot(qkv)
}

/// Attention and MLP, each with LayerNorm before, optional LayerScale after, and drop path (arXiv 1603.09382).
#[derive(Debug)]
pub struct Block {
    norm1: nn::LayerNorm,
    attn: Attention,
    scale1: Option<Tensor>,
    norm2: nn::LayerNorm,
    fc1: nn::Linear,
    fc2: nn::Linear,
    scale2: Option<Tensor>,
    drop_path: f64,
}

impl Block {
    /// Parameters under `vs`, drawn in a fixed order.
    #[must_use]
    pub fn new(vs: &Path<'_>, o: &BlockOptions, drop_path: f64) -> Self {
        let scale = |name: &str| (o.layer_scale > 0.0).then(|| parameter(&(vs / name), "gamma", &[o.dim], Init::Const(o.layer_scale)));
        Self {
            norm1: layer_norm(&(vs / "norm1"), o.dim),
            attn: Attention::new(&(vs / "attn"), o),
            scale1: scale("ls1"),
            norm2: layer_norm(&(vs / "norm2"), o.dim),
            fc1: linear(&(vs / "mlp" / "fc1"), o.dim, o.hidden, true, o.weights),
            fc2: linear(&(vs / "mlp" / "fc2"), o.hidden, o.dim, true, o.weights),
            scale2: scale("ls2"),
            drop_path,
        }
    }

    /// Divides the last matrix of attention and MLP by `divisor` (BEiT's initialisation of layer l: √(2l)).
    pub fn rescale_outputs(&mut self, divisor: f64) {
        tch::no_grad(|| {
            let _ = self.attn.proj.ws.divide_scalar_(divisor);
            let _ = self.fc2.ws.divide_scalar_(divisor);
        });
    }

    /// Changes the probability with which a sample skips a branch in training.
    pub fn set_drop_path(&mut self, rate: f64) {
        self.drop_path = rate;
    }

    /// Tokens B×N×D to the same shape. `position_bias` (broadcast to B×H×N×N) is added to the attention logits. In training, drop
    /// path draws from libtorch's generator of the device.
    #[must_use]
    pub fn forward_t(&self, x: &Tensor, position_bias: Option<&Tensor>, train: bool) -> Tensor {
        let scaled = |y: Tensor, s: &Option<Tensor>| s.as_ref().map_or_else(|| y.shallow_clone(), |s| &y * s);
        let drop = |y: Tensor| if train { drop_path(y, self.drop_path) } else { y };
        let y = self.attn.forward(&self.norm1.forward(x), position_bias);
        let x = x + drop(scaled(y, &self.scale1));
        let y = self.fc2.forward(&self.fc1.forward(&self.norm2.forward(&x)).gelu("none"));
        &x + drop(scaled(y, &self.scale2))
    }
}

/// Zeroes whole samples of B×N×D with probability `rate` and scales the others by 1/(1 − rate).
fn drop_path(y: Tensor, rate: f64) -> Tensor {
    if rate <= 0.0 {
        return y;
    }
    let keep = 1.0 - rate;
    let mask = Tensor::empty([y.size()[0], 1, 1], (y.kind(), y.device())).bernoulli_float_(keep) / keep;
    y * mask
}

/// Drop-path rates of `depth` blocks: from 0 linearly to `last`.
#[must_use]
pub fn linear_drop_path(depth: i64, last: f64) -> Vec<f64> {
    (0..depth)
        .map(|i| if depth > 1 { last * i as f64 / (depth - 1) as f64 } else { last })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_path_drops_whole_samples_and_keeps_the_mean() {
        tch::manual_seed(1);
        let y = drop_path(Tensor::ones([4000, 2, 3], (Kind::Float, Device::Cpu)), 0.25);
        let per_sample = y.view([4000, 6]);
        assert_eq!(per_sample.std_dim(1, true, false).max().double_value(&[]), 0.0);
        let mean = y.mean(Kind::Float).double_value(&[]);
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        assert_eq!(y.max().double_value(&[]) as f32, 1.0 / 0.75);
    }

    #[test]
    fn rates_grow_linearly() {
        assert_eq!(linear_drop_path(3, 0.2), [0.0, 0.1, 0.2]);
        assert_eq!(linear_drop_path(1, 0.2), [0.2]);
    }

    #[test]
    fn attention_under_autocast_is_close_to_f32() {
        tch::manual_seed(2);
        let vs = nn::VarStore::new(Device::Cpu);
        let o = BlockOptions {
            dim: 16,
            heads: 2,
            hidden: 32,
            layer_scale: 0.0,
            qkv_bias: QkvBias::Full,
            weights: Init::Normal { std: 0.2 },
        };
        let block = Block::new(&vs.root(), &o, 0.0);
        let x = Tensor::randn([2, 5, 16], (Kind::Float, Device::Cpu));
        let exact = block.forward_t(&x, None, false);
        let _bf16 = Autocast::bf16(Device::Cpu).unwrap();
        let near = block.forward_t(&x, None, false);
        assert_eq!(near.kind(), Kind::Float);
        let error = (&near - &exact).abs().max().double_value(&[]);
        assert!(error > 0.0 && error < 0.1, "{error}");
    }
}
