//! One pre-norm transformer block.

use tch::nn::{self, Path};
use tch::{Device, Kind, Tensor};
use torch_ext::{Autocast, recomputed};

use crate::model::drop_path::{BatchRows, drop_path};
use crate::model::init::{Init, linear, parameter, project, through};

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
    /// Make activations again in backward instead of keeping them.
    pub recompute: bool,
}

const EPSILON: f64 = 1e-6;

/// LayerNorm with the vision transformer's epsilon.
pub(crate) fn layer_norm(vs: &Path<'_>, dim: i64) -> nn::LayerNorm {
    nn::layer_norm(
        vs,
        vec![dim],
        nn::LayerNormConfig {
            eps: EPSILON,
            ..Default::default()
        },
    )
}

/// The same as tensors, so that a second owner can be made.
#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn new(vs: &Path<'_>, dim: i64) -> Self {
        let made = layer_norm(vs, dim);
        let both = made.ws.zip(made.bs);
        let (weight, bias) = both.expect("a norm with elementwise_affine has weight and bias");
        Self { weight, bias }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), EPSILON, true)
    }

    fn shared(&self) -> Self {
        Self {
            weight: self.weight.shallow_clone(),
            bias: self.bias.shallow_clone(),
        }
    }
}

fn shared_linear(layer: &nn::Linear) -> nn::Linear {
    nn::Linear {
        ws: layer.ws.shallow_clone(),
        bs: layer.bs.as_ref().map(Tensor::shallow_clone),
    }
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
        let qkv = parameter(&(vs / "qkv"), "weight", &[3 * o.dim, o.dim], o.weights.of_query_key_value(o.dim));
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

    fn shared(&self) -> Self {
        Self {
            qkv: self.qkv.shallow_clone(),
            bias: match &self.bias {
                Biases::Full(bias) => Biases::Full(bias.shallow_clone()),
                Biases::QueryValue(q, v) => Biases::QueryValue(q.shallow_clone(), v.shallow_clone()),
            },
            proj: shared_linear(&self.proj),
            heads: self.heads,
        }
    }

    /// Query, key and value of tokens B×N×D: 3×B×H×N×D/H.
    fn projections(&self, x: &Tensor) -> Tensor {
        let (b, n, d) = x.size3().expect("tokens are B×N×D");
        let projected = match &self.bias {
            Biases::Full(bias) => project(x, &self.qkv, Some(bias)),
            Biases::QueryValue(q, v) => project(x, &self.qkv, Some(&Tensor::cat(&[q, &q.zeros_like(), v], 0))),
        };
        projected.view([b, n, 3, self.heads, d / self.heads]).permute([2, 0, 3, 1, 4])
    }

    fn forward(&self, x: &Tensor, position_bias: Option<&Tensor>) -> Tensor {
        let (b, n, d) = x.size3().expect("tokens are B×N×D");
        let mixed = attend(&self.projections(x), position_bias);
        through(&self.proj, &mixed.transpose(1, 2).reshape([b, n, d]))
    }

    /// How much of each token's value (columns) goes to each token (rows): B×H×N×N, f32, rows sum to 1.
    fn weights(&self, x: &Tensor, position_bias: Option<&Tensor>) -> Tensor {
        let parts = self.projections(x).to_kind(Kind::Float).unbind(0);
        let width = parts[0].size()[3] as f64;
        let logits = parts[0].matmul(&parts[1].transpose(2, 3)) / width.sqrt();
        let logits = position_bias.map_or_else(|| logits.shallow_clone(), |bias| &logits + bias);
        logits.softmax(-1, Kind::Float)
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
    norm1: Norm,
    attn: Attention,
    scale1: Option<Tensor>,
    norm2: Norm,
    fc1: nn::Linear,
    fc2: nn::Linear,
    scale2: Option<Tensor>,
    drop_path: f64,
    recompute: bool,
}

impl Block {
    /// Parameters under `vs`, drawn in a fixed order.
    #[must_use]
    pub fn new(vs: &Path<'_>, o: &BlockOptions, drop_path: f64) -> Self {
        let scale = |name: &str| (o.layer_scale > 0.0).then(|| parameter(&(vs / name), "gamma", &[o.dim], Init::Const(o.layer_scale)));
        Self {
            norm1: Norm::new(&(vs / "norm1"), o.dim),
            attn: Attention::new(&(vs / "attn"), o),
            scale1: scale("ls1"),
            norm2: Norm::new(&(vs / "norm2"), o.dim),
            fc1: linear(&(vs / "mlp" / "fc1"), o.dim, o.hidden, true, o.weights),
            fc2: linear(&(vs / "mlp" / "fc2"), o.hidden, o.dim, true, o.weights),
            scale2: scale("ls2"),
            drop_path,
            recompute: o.recompute,
        }
    }

    /// All its parameters.
    pub(crate) fn parameters(&self) -> Vec<&Tensor> {
        let (norms, layers) = ([&self.norm1, &self.norm2], [&self.attn.proj, &self.fc1, &self.fc2]);
        let mut all = vec![&self.attn.qkv];
        match &self.attn.bias {
            Biases::Full(bias) => all.push(bias),
            Biases::QueryValue(q, v) => all.extend([q, v]),
        }
        all.extend(norms.into_iter().flat_map(|norm| [&norm.weight, &norm.bias]));
        all.extend(layers.into_iter().flat_map(|layer| std::iter::once(&layer.ws).chain(&layer.bs)));
        all.extend(self.scale1.iter().chain(&self.scale2));
        all
    }

    /// Divides the last matrix of attention and MLP by `divisor` (BEiT's initialisation of layer l: √(2l)).
    pub fn rescale_outputs(&mut self, divisor: f64) {
        tch::no_grad(|| {
            let _ = self.attn.proj.ws.divide_scalar_(divisor);
            let _ = self.fc2.ws.divide_scalar_(divisor);
        });
    }

    /// The same parameters, owned a second time.
    fn shared(&self) -> Self {
        Self {
            norm1: self.norm1.shared(),
            attn: self.attn.shared(),
            scale1: self.scale1.as_ref().map(Tensor::shallow_clone),
            norm2: self.norm2.shared(),
            fc1: shared_linear(&self.fc1),
            fc2: shared_linear(&self.fc2),
            scale2: self.scale2.as_ref().map(Tensor::shallow_clone),
            drop_path: self.drop_path,
            recompute: false,
        }
    }

    /// The attention of [`Block::forward_t`] for tokens B×N×D, for a look at it: B×H×N×N, f32, the row of a token sums to 1.
    pub fn attention(&self, x: &Tensor, position_bias: Option<&Tensor>) -> Tensor {
        self.attn.weights(&self.norm1.forward(x), position_bias)
    }

    /// Tokens B×N×D to the same shape. `position_bias` (broadcast to B×H×N×N) is added to the attention logits. In training, drop
    /// path draws from libtorch's generator of the device.
    pub fn forward_t(&self, x: &Tensor, position_bias: Option<&Tensor>, train: bool) -> Tensor {
        if self.recompute && train && x.requires_grad() {
            let (block, rows) = (self.shared(), BatchRows::current());
            let body = move |x: &Tensor, bias: Option<&Tensor>| {
                let _rows = rows.map(BatchRows::enter);
                block.forward_t(x, bias, true)
            };
            return recomputed(x, position_bias, body).unwrap_or_else(|e| panic!("{e}"));
        }
        let scaled = |y: Tensor, s: &Option<Tensor>| s.as_ref().map_or_else(|| y.shallow_clone(), |s| &y * s);
        let drop = |y: Tensor| if train { drop_path(y, self.drop_path) } else { y };
        let y = self.attn.forward(&self.norm1.forward(x), position_bias);
        let x = x + drop(scaled(y, &self.scale1));
        let y = through(&self.fc2, &through(&self.fc1, &self.norm2.forward(&x)).gelu("none"));
        &x + drop(scaled(y, &self.scale2))
    }
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

    /// Blocks of 2 heads of 8.
    fn small(qkv_bias: QkvBias, std: f64) -> BlockOptions {
        BlockOptions {
            dim: 16,
            heads: 2,
            hidden: 32,
            layer_scale: 0.0,
            qkv_bias,
            weights: Init::Normal { std },
            recompute: false,
        }
    }

    #[test]
    fn rates_grow_linearly() {
        assert_eq!(linear_drop_path(3, 0.2), [0.0, 0.1, 0.2]);
        assert_eq!(linear_drop_path(1, 0.2), [0.2]);
    }

    #[test]
    fn recomputed_blocks_have_the_same_gradients_bit_for_bit() {
        let _turn = crate::tensor::alone();
        for (bf16, relative) in [(false, false), (true, false), (false, true)] {
            let run = |recompute: bool| {
                tch::manual_seed(6);
                let vs = nn::VarStore::new(Device::Cpu);
                let o = BlockOptions {
                    dim: 16,
                    heads: 2,
                    hidden: 32,
                    layer_scale: 0.1,
                    qkv_bias: QkvBias::QueryValue,
                    weights: Init::Normal { std: 0.2 },
                    recompute,
                };
                let blocks: Vec<Block> = (0..3).map(|i| Block::new(&(vs.root() / i), &o, 0.5)).collect();
                let x = Tensor::randn([6, 5, 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
                let table = Tensor::randn([1, 2, 5, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
                let bias = &table * 1.0;
                tch::manual_seed(7);
                let y = {
                    let _rows = BatchRows::enter(BatchRows {
                        start: 3,
                        len: 3,
                        total: 9,
                        stride: 1,
                    });
                    let _autocast = bf16.then(|| Autocast::bf16(Device::Cpu).unwrap());
                    let mut y = &x * 1.0;
                    for block in &blocks {
                        y = block.forward_t(&y, relative.then_some(&bias), true);
                    }
                    y
                };
                y.square().mean(Kind::Float).backward();
                let mut all: Vec<(String, Tensor)> = vs.variables().into_iter().map(|(n, t)| (n, t.grad())).collect();
                all.sort_by(|a, b| a.0.cmp(&b.0));
                all.push(("x".into(), x.grad()));
                if relative {
                    all.push(("table".into(), table.grad()));
                }
                all
            };
            assert_eq!(run(true), run(false), "bf16 {bf16}, relative {relative}");
        }
    }

    #[test]
    fn weights_of_attention_sum_to_1_and_mix_the_values_as_forward_does() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(8);
        let vs = nn::VarStore::new(Device::Cpu);
        let o = small(QkvBias::QueryValue, 0.5);
        let attention = Attention::new(&vs.root(), &o);
        let x = Tensor::randn([3, 5, 16], (Kind::Float, Device::Cpu));
        for bias in [None, Some(Tensor::randn([1, 2, 5, 5], (Kind::Float, Device::Cpu)))] {
            let weights = attention.weights(&x, bias.as_ref());
            assert_eq!(weights.size(), [3, 2, 5, 5]);
            let sums = weights.sum_dim_intlist(-1, false, Kind::Float) - 1.0;
            assert!(sums.abs().max().double_value(&[]) < 1e-6 && weights.min().double_value(&[]) >= 0.0);
            let mixed = weights
                .matmul(&attention.projections(&x).get(2))
                .transpose(1, 2)
                .reshape([3, 5, 16]);
            let error = through(&attention.proj, &mixed) - attention.forward(&x, bias.as_ref());
            assert!(error.abs().max().double_value(&[]) < 1e-4, "{error}");
        }
    }

    #[test]
    fn attention_under_autocast_is_close_to_f32() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(2);
        let vs = nn::VarStore::new(Device::Cpu);
        let o = small(QkvBias::Full, 0.2);
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
