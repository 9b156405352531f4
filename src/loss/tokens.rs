//! Predicting visual words.

use tch::{Kind, Tensor};

/// Mean cross-entropy in nats of the logits `x·weightᵀ + bias` against `words` (i64 M), f32 scalar, and the word of the largest logit of each row
/// (i64 M, no gradient): x M×D, weight V×D, bias V. The M×V logits are never held at once ([`torch_ext::linear_cross_entropy`]).
///
/// # Panics
/// If shapes do not fit each other.
pub fn token_cross_entropy(x: &Tensor, weight: &Tensor, bias: &Tensor, words: &Tensor) -> (Tensor, Tensor) {
    torch_ext::linear_cross_entropy(x, weight, bias, words).unwrap_or_else(|e| panic!("{e}"))
}

/// Share of `predicted` words that are the right ones (both i64 M).
pub fn token_accuracy(predicted: &Tensor, words: &Tensor) -> Tensor {
    predicted.eq_tensor(words).to_kind(Kind::Float).mean(Kind::Float)
}

/// How often each of V words stands in `words` (i64 of any shape, each below V): i64 V on their device. Unlike `bincount`, it lets no host wait:
/// the shape depends on no value. Whole numbers sum to the same in any order, so it is repeatable on every device.
pub fn count_words(words: &Tensor, vocabulary: i64) -> Tensor {
    let flat = words.reshape([-1]);
    Tensor::zeros([vocabulary], (Kind::Int64, words.device())).scatter_add(0, &flat, &flat.ones_like())
}

/// exp(entropy) of `counts` (V, not all 0): as many words in even use would have it. f64 scalar on their device, 1 to V.
pub fn perplexity(counts: &Tensor) -> Tensor {
    let counts = counts.to_kind(Kind::Double);
    (&counts / counts.sum(Kind::Double)).special_entr().sum(Kind::Double).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_cost_ln_v_and_certain_ones_nothing() {
        let words = Tensor::from_slice(&[3i64, 0]);
        let of = |logits: &Tensor| {
            // The identity's product with a matrix is the matrix.
            let (eye, none) = (
                Tensor::eye(8, (Kind::Float, tch::Device::Cpu)),
                Tensor::zeros([8], (Kind::Float, tch::Device::Cpu)),
            );
            let (loss, likeliest) = token_cross_entropy(logits, &eye, &none, &words);
            assert_eq!(loss.kind(), Kind::Float);
            (loss.double_value(&[]), token_accuracy(&likeliest, &words).double_value(&[]))
        };
        let (loss, accuracy) = of(&Tensor::zeros([2, 8], (Kind::Float, tch::Device::Cpu)));
        assert!((loss - 8f64.ln()).abs() < 1e-6 && accuracy == 0.5);
        let (loss, accuracy) = of(&(words.one_hot(8).to_kind(Kind::Float) * 100.0));
        assert!(loss < 1e-6 && accuracy == 1.0);
    }

    #[test]
    fn perplexity_is_the_number_of_words_in_even_use() {
        let words = Tensor::from_slice(&[5i64, 2, 2, 5, 0, 0]).view([2, 3]);
        let counts = count_words(&words, 8);
        assert_eq!(Vec::<i64>::try_from(&counts).unwrap(), [2, 0, 2, 0, 0, 2, 0, 0]);
        assert!((perplexity(&counts).double_value(&[]) - 3.0).abs() < 1e-12);
        assert_eq!(perplexity(&count_words(&Tensor::from_slice(&[7i64; 9]), 8)).double_value(&[]), 1.0);
        // Three of one and one of another: 4 / 27^(1/4).
        let uneven = perplexity(&Tensor::from_slice(&[3i64, 1])).double_value(&[]);
        assert!((uneven - 4.0 / 27f64.powf(0.25)).abs() < 1e-12, "{uneven}");
    }
}
