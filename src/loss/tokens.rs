//! Predicting visual words.

use tch::{Kind, Reduction, Tensor};

/// Mean cross-entropy in nats of `logits` M×V against `words` (i64 M).
#[must_use]
pub fn token_cross_entropy(logits: &Tensor, words: &Tensor) -> Tensor {
    logits
        .to_kind(Kind::Float)
        .cross_entropy_loss::<Tensor>(words, None, Reduction::Mean, -100, 0.0)
}

/// Share of rows of `logits` M×V whose largest is the right word (i64 M); no gradient.
#[must_use]
pub fn token_accuracy(logits: &Tensor, words: &Tensor) -> Tensor {
    tch::no_grad(|| logits.argmax(-1, false).eq_tensor(words).to_kind(Kind::Float).mean(Kind::Float))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_cost_ln_v_and_certain_ones_nothing() {
        let words = Tensor::from_slice(&[3i64, 0]);
        let flat = Tensor::zeros([2, 8], (Kind::BFloat16, tch::Device::Cpu));
        let loss = token_cross_entropy(&flat, &words);
        assert_eq!(loss.kind(), Kind::Float);
        assert!((loss.double_value(&[]) - 8f64.ln()).abs() < 1e-6);
        let sure = words.one_hot(8).to_kind(Kind::Float) * 100.0;
        assert!(token_cross_entropy(&sure, &words).double_value(&[]) < 1e-6);
        assert_eq!(token_accuracy(&sure, &words).double_value(&[]), 1.0);
        assert_eq!(token_accuracy(&flat, &words).double_value(&[]), 0.5);
    }
}
