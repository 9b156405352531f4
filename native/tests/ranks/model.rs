//! A small network with two losses: words from each token, and InfoNCE between two views over all images.

use tch::{Device, Kind, Tensor};

const WIDTH: i64 = 32;
const TOKENS: i64 = 5;
const PIXELS: i64 = 24;
const WORDS: i64 = 50;

pub(crate) struct Model {
    kind: Kind,
    seed: i64,
    params: Vec<(String, Tensor)>,
}

impl Model {
    pub(crate) fn new(kind: Kind, seed: i64) -> Self {
        tch::manual_seed(seed);
        let mut params = Vec::new();
        let mut leaf = |name: &str, shape: &[i64], scale: f64| {
            // Drawn alike whatever the kind.
            let w = (Tensor::randn(shape, (Kind::Double, Device::Cpu)) * scale).to_kind(kind);
            params.push((name.to_owned(), w.set_requires_grad(true)));
        };
        leaf("embed", &[WIDTH, PIXELS], 0.1);
        for i in 0..3 {
            leaf(&format!("block.{i}.w1"), &[4 * WIDTH, WIDTH], 0.1);
            leaf(&format!("block.{i}.b1"), &[4 * WIDTH], 0.1);
            leaf(&format!("block.{i}.w2"), &[WIDTH, 4 * WIDTH], 0.1);
            leaf(&format!("block.{i}.b2"), &[WIDTH], 0.1);
        }
        leaf("head", &[WORDS, WIDTH], 0.1);
        Self { kind, seed, params }
    }

    pub(crate) fn named(&self) -> Vec<(String, Tensor)> {
        self.params.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect()
    }

    pub(crate) fn params(&self) -> Vec<Tensor> {
        self.params.iter().map(|(_, t)| t.shallow_clone()).collect()
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.params.iter().find(|(n, _)| n == name).unwrap().1
    }

    pub(crate) fn clear(&self) {
        torch_ext::clear_grads(&self.params()).unwrap();
    }

    /// Two views of `images` images and the word of each token: 2×B×T×P and 2×B×T.
    pub(crate) fn batch(&self, images: i64) -> (Tensor, Tensor) {
        tch::manual_seed(self.seed + 1000);
        let x = Tensor::randn([2, images, TOKENS, PIXELS], (Kind::Double, Device::Cpu)).to_kind(self.kind);
        (x, Tensor::randint(WORDS, [2, images, TOKENS], (Kind::Int64, Device::Cpu)))
    }

    /// 2×B×T×D.
    pub(crate) fn features(&self, x: &Tensor) -> Tensor {
        let mut h = x.matmul(&self.get("embed").tr());
        for i in 0..3 {
            let p = |name: &str| self.get(&format!("block.{i}.{name}"));
            h = &h + (h.matmul(&p("w1").tr()) + p("b1")).gelu("none").matmul(&p("w2").tr()) + p("b2");
        }
        h
    }

    /// Mean cross-entropy over all tokens.
    pub(crate) fn word_loss(&self, features: &Tensor, words: &Tensor) -> Tensor {
        let logits = features.matmul(&self.get("head").tr());
        cross_entropy(&logits.reshape([-1, WORDS]), &words.flatten(0, -1))
    }

    pub(crate) fn flat_grads(&self) -> Tensor {
        let grads: Vec<Tensor> = self.params.iter().map(|(_, t)| t.grad().flatten(0, -1)).collect();
        Tensor::cat(&grads, 0)
    }
}

/// In the kind of the logits; tch's own is f32 always.
fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    logits.log_softmax(-1, logits.kind()).nll_loss(targets)
}

/// One descriptor an image and view, 2×B×D.
pub(crate) fn descriptors(features: &Tensor) -> Tensor {
    features.mean_dim([2i64].as_slice(), false, None::<Kind>)
}

/// InfoNCE (arXiv 1807.03748) over both views: each of the 2B descriptors finds its other view among all others.
pub(crate) fn info_nce(d: &Tensor) -> Tensor {
    let n = d.size()[1];
    let flat = d.reshape([2 * n, -1]);
    let unit = &flat / flat.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
    let eye = Tensor::eye(2 * n, (Kind::Bool, Device::Cpu));
    let logits = (unit.matmul(&unit.tr()) / 0.2).masked_fill(&eye, -1e30);
    let place = (Tensor::arange(2 * n, (Kind::Int64, Device::Cpu)) + n).remainder(2 * n);
    cross_entropy(&logits, &place)
}

/// ‖a − b‖ ÷ ‖b‖ in f64.
pub(crate) fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
    norm(&(a.to_kind(Kind::Double) - b.to_kind(Kind::Double))) / norm(b)
}
