//! Floating point operations by formula: one multiply-add is two. Norms, biases, softmax and GELU are left out, as is usual; they are below 2 %.

use super::config::VitConfig;

/// Of a linear layer over `rows` vectors: 2 · rows · in · out.
#[must_use]
pub fn linear_flops(rows: i64, inputs: i64, outputs: i64) -> f64 {
    2.0 * rows as f64 * inputs as f64 * outputs as f64
}

/// Of one block over a sequence of `tokens`: query, key, value and output projections 8·n·d², the two attention products 4·n²·d, the MLP 4·n·d·h.
#[must_use]
pub fn block_flops(tokens: i64, dim: i64, hidden: i64) -> f64 {
    linear_flops(tokens, dim, 4 * dim) + 2.0 * linear_flops(tokens, tokens, dim) + linear_flops(tokens, dim, 2 * hidden)
}

/// Of an encoder over an image: the embedding of `patches` patches, and all blocks over the class token and the `seen` ones among them.
#[must_use]
pub fn encoder_flops(model: &VitConfig, patches: i64, seen: i64) -> f64 {
    let dim = model.dim();
    linear_flops(patches, 3 * i64::from(model.patch).pow(2), dim) + model.layers() as f64 * block_flops(1 + seen, dim, model.hidden())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_vit_s16_takes_4_6_billion_multiply_adds() {
        // Counted by hand: 12 blocks over 197 tokens of 4·384² + 2·384·1536 multiply-adds each and 2·197²·384 of attention, and the
        // patch embedding 196·768·384. The "4.6 GFLOPs" of DeiT-S are such multiply-adds.
        let blocks = 12.0 * block_flops(197, 384, 1536);
        let embedding = linear_flops(196, 768, 384);
        let by_hand = 12i64 * (197 * (4 * 384 * 384 + 2 * 384 * 1536) + 2 * 197 * 197 * 384) + 196 * 768 * 384;
        assert_eq!(blocks + embedding, 2.0 * by_hand as f64);
        assert!(((blocks + embedding) / 2e9 - 4.6).abs() < 0.01, "{}", (blocks + embedding) / 2e9);
    }
}
