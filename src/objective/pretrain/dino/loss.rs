//! Cross-entropy between the crops of an image (arXiv 2104.14294 Eq. 2 and 3).

use tch::{Kind, Tensor};

/// What [`distillation`] answers: f32 scalars, nats.
#[derive(Debug)]
pub(super) struct Distillation {
    /// Mean cross-entropy over the pairs of a global crop that the teacher sees and another crop that the student sees.
    pub(super) loss: Tensor,
    /// Mean entropy of the teacher's probabilities; no gradient.
    pub(super) entropy: Tensor,
    /// Mean divergence of the student's probabilities from the teacher's, KL(teacher‖student): the loss without the entropy; no gradient.
    pub(super) divergence: Tensor,
}

/// Of the student's outputs for all crops C, the two global ones first (f32 (C·B)×K, crop after crop), and the teacher's for the global ones (f32
/// 2B×K, no gradient). The teacher's lose `centre` (K) before its temperature: (2 (C−1)) pairs, each crop with others only.
pub(super) fn distillation(
    student: &Tensor,
    teacher: &Tensor,
    centre: &Tensor,
    student_temperature: f64,
    teacher_temperature: f64,
) -> Distillation {
    let (rows, k) = teacher.size2().expect("outputs are 2B×K");
    let images = rows / 2;
    let targets = tch::no_grad(|| ((teacher - centre) / teacher_temperature).softmax(-1, Kind::Float)).view([2, images, k]);
    let logits = (student / student_temperature).view([-1, images, k]);
    let crops = logits.size()[0];
    // −Σ q ln p of one pair is ln Z − Σ q·logit: ln p itself is never held, and the targets of a crop are summed before the product.
    let normaliser = logits.logsumexp([-1i64].as_slice(), false);
    let part = |of: &Tensor, start: i64, len: i64| of.narrow(0, start, len);
    let other = targets.flip([0i64].as_slice());
    let mut sum = part(&normaliser, 0, 2).sum(Kind::Float) - (part(&logits, 0, 2) * other).sum(Kind::Float);
    if crops > 2 {
        let both = targets.sum_dim_intlist([0i64].as_slice(), true, Kind::Float);
        sum += part(&normaliser, 2, crops - 2).sum(Kind::Float) * 2.0 - (part(&logits, 2, crops - 2) * both).sum(Kind::Float);
    }
    let loss = sum / (2 * (crops - 1) * images) as f64;
    let (entropy, divergence) = tch::no_grad(|| {
        let entropy = targets.special_entr().sum(Kind::Float) / rows as f64;
        let divergence = loss.detach() - &entropy;
        (entropy, divergence)
    });
    Distillation { loss, entropy, divergence }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Pair by pair, image by image, on the host.
    fn by_hand(student: &[Vec<f64>], teacher: &[Vec<f64>], centre: &[f64], images: usize, [ts, tt]: [f64; 2]) -> [f64; 3] {
        let softmax = |logits: Vec<f64>| -> Vec<f64> {
            let sum: f64 = logits.iter().map(|l| l.exp()).sum();
            logits.iter().map(|l| l.exp() / sum).collect()
        };
        let (mut loss, mut entropy, mut pairs) = (0.0, 0.0, 0.0);
        for t in 0..2 {
            for image in 0..images {
                let q = softmax(teacher[t * images + image].iter().zip(centre).map(|(x, c)| (x - c) / tt).collect());
                for s in (0..student.len() / images).filter(|s| *s != t) {
                    let p = softmax(student[s * images + image].iter().map(|x| x / ts).collect());
                    loss -= q.iter().zip(&p).map(|(q, p)| q * p.ln()).sum::<f64>();
                    entropy -= q.iter().map(|q| q * q.ln()).sum::<f64>();
                    pairs += 1.0;
                }
            }
        }
        [loss / pairs, entropy / pairs, (loss - entropy) / pairs]
    }

    #[test]
    fn every_crop_is_held_against_the_teachers_others() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(3);
        let options = (Kind::Float, Device::Cpu);
        for crops in [2, 3, 6] {
            let (student, teacher) = (Tensor::rand([crops * 4, 7], options), Tensor::rand([8, 7], options));
            let centre = Tensor::rand([7], options) * 0.1;
            let rows = |t: &Tensor| Vec::<Vec<f64>>::try_from(t.to_kind(Kind::Double)).unwrap();
            let center = Vec::<f64>::try_from(centre.to_kind(Kind::Double)).unwrap();
            let want = by_hand(&rows(&student), &rows(&teacher), &center, 4, [0.1, 0.05]);
            let got = distillation(&student, &teacher, &centre, 0.1, 0.05);
            for (got, want) in [got.loss, got.entropy, got.divergence].iter().zip(want) {
                assert!((got.double_value(&[]) - want).abs() < 1e-5, "{crops} crops: {got} {want}");
            }
        }
    }

    #[test]
    fn a_uniform_teacher_costs_ln_k_and_has_that_entropy() {
        let zeros = |rows| Tensor::zeros([rows, 16], (Kind::Float, Device::Cpu));
        let found = distillation(&zeros(12), &zeros(6), &zeros(1).squeeze(), 0.1, 0.04);
        for value in [found.loss, found.entropy] {
            assert!((value.double_value(&[]) - 16f64.ln()).abs() < 1e-6);
        }
        assert!(found.divergence.double_value(&[]).abs() < 1e-6);
    }
}
