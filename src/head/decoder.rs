//! The shallow transformer that fills in what a branch did not see (arXiv 2112.10740 §4.2).

use tch::nn::{self, Module, Path};
use tch::{Kind, Tensor};

use crate::model::{Block, BlockOptions, Init, Positions, linear_drop_path, parameter};
use crate::tensor::{flat_rows, look, place_rows};

/// Choices of a decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecoderConfig {
    /// Blocks.
    pub depth: i64,
    /// Patches N of an image.
    pub patches: i64,
    /// How its position table is made.
    pub positions: Positions,
    /// Insert mask embeddings at the absent patches; false if the encoder's output is already whole.
    pub insert: bool,
    /// Add the decoder's positions to seen patches (and class token) too.
    pub positions_on_seen: bool,
    /// Drop path of the last block.
    pub drop_path: f64,
}

/// Mask embedding, own position table, blocks and last norm.
#[derive(Debug)]
pub struct Decoder {
    mask_token: Option<Tensor>,
    pos_embed: Tensor,
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
    positions_on_seen: bool,
}

impl Decoder {
    /// Parameters under `vs`.
    #[must_use]
    pub fn new(vs: &Path<'_>, config: &DecoderConfig, blocks: &BlockOptions) -> Self {
        let table = Init::Normal { std: 0.02 };
        let dim = blocks.dim;
        let rates = linear_drop_path(config.depth, config.drop_path);
        Self {
            mask_token: config.insert.then(|| parameter(vs, "mask_token", &[1, 1, dim], table)),
            pos_embed: config.positions.table(vs, config.patches, dim, table),
            blocks: rates
                .into_iter()
                .enumerate()
                .map(|(i, rate)| Block::new(&(vs / "blocks" / i), blocks, rate))
                .collect(),
            norm: nn::layer_norm(
                vs / "norm",
                vec![dim],
                nn::LayerNormConfig {
                    eps: 1e-6,
                    ..Default::default()
                },
            ),
            positions_on_seen: config.positions_on_seen,
        }
    }

    /// Encoder output M×(1+K)×D of the patches `seen_mk` to M×(1+N)×D, normalised. Without mask embeddings K is N and `seen_mk` only
    /// says where positions are added, if not everywhere.
    pub fn forward_t(&self, encoded: &Tensor, seen_mk: &Tensor, train: bool) -> Tensor {
        let mut x = self.place(&encoded.to_kind(Kind::Float), seen_mk);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward_t(&x, None, train);
            look(|| format!("decoder.blocks.{i}"), &x);
        }
        let x = self.norm.forward(&x);
        look(|| "decoder.norm".into(), &x);
        x
    }

    fn place(&self, encoded: &Tensor, seen_mk: &Tensor) -> Tensor {
        let (m, _, d) = encoded.size3().expect("encoder output is M×(1+K)×D");
        let length = self.pos_embed.size()[1];
        // Rows of M images of 1+N tokens that the encoder's tokens go to: the class token and the seen patches.
        let class = Tensor::full([m, 1], -1, (Kind::Int64, seen_mk.device()));
        let rows = flat_rows(&Tensor::cat(&[class, seen_mk.shallow_clone()], 1), m, length, 1);
        let whole = |row: &Tensor| row.expand([m, length, d], false).reshape([-1, d]);
        match (&self.mask_token, self.positions_on_seen) {
            (Some(mask), true) => {
                let background = mask.view([1, d]).expand([m * length, d], false);
                place_rows(&background, &rows, &encoded.reshape([-1, d])).view([m, length, d]) + &self.pos_embed
            }
            (Some(mask), false) => place_rows(&whole(&(mask + &self.pos_embed)), &rows, &encoded.reshape([-1, d])).view([m, length, d]),
            (None, true) => encoded + &self.pos_embed,
            (None, false) => encoded + whole(&self.pos_embed).index_fill(0, &rows, 0.0).view([m, length, d]),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::QkvBias;

    fn decoder(insert: bool, positions_on_seen: bool) -> (nn::VarStore, Decoder) {
        let vs = nn::VarStore::new(Device::Cpu);
        let blocks = BlockOptions {
            dim: 4,
            heads: 1,
            hidden: 4,
            layer_scale: 0.0,
            qkv_bias: QkvBias::Full,
            weights: Init::Normal { std: 0.02 },
            recompute: false,
        };
        let config = DecoderConfig {
            depth: 1,
            patches: 3,
            positions: Positions::Learned,
            insert,
            positions_on_seen,
            drop_path: 0.0,
        };
        let decoder = Decoder::new(&vs.root(), &config, &blocks);
        let mut table = decoder.pos_embed.shallow_clone();
        let values = (Tensor::arange(4, (Kind::Float, Device::Cpu)) * 10.0).view([1, 4, 1]);
        tch::no_grad(|| table.copy_(&values.expand([1, 4, 4], false)));
        if let Some(mask) = &decoder.mask_token {
            let mut mask = mask.shallow_clone();
            let _ = tch::no_grad(|| mask.fill_(-1.0));
        }
        (vs, decoder)
    }

    fn first_column(x: &Tensor) -> Vec<Vec<f64>> {
        Vec::<Vec<f64>>::try_from(x.select(2, 0).to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn tokens_go_to_their_places() {
        let _turn = crate::tensor::alone();
        let encoded = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])
            .view([2, 3, 1])
            .expand([2, 3, 4], false);
        let seen = Tensor::from_slice(&[0i64, 2, 1, 2]).view([2, 2]);
        let (_vs, d) = decoder(true, true);
        assert_eq!(
            first_column(&d.place(&encoded, &seen)),
            [[1.0, 12.0, 19.0, 33.0], [4.0, 9.0, 25.0, 36.0]]
        );
        let (_vs, d) = decoder(true, false);
        assert_eq!(
            first_column(&d.place(&encoded, &seen)),
            [[1.0, 2.0, 19.0, 3.0], [4.0, 9.0, 5.0, 6.0]]
        );
    }

    #[test]
    fn whole_sequences_are_left_in_order() {
        let _turn = crate::tensor::alone();
        let encoded = Tensor::ones([1, 4, 4], (Kind::Float, Device::Cpu));
        let seen = Tensor::from_slice(&[0i64, 2]).view([1, 2]);
        let (_vs, d) = decoder(false, true);
        assert_eq!(first_column(&d.place(&encoded, &seen)), [[1.0, 11.0, 21.0, 31.0]]);
        let (_vs, d) = decoder(false, false);
        assert_eq!(first_column(&d.place(&encoded, &seen)), [[1.0, 1.0, 21.0, 1.0]]);
    }
}
