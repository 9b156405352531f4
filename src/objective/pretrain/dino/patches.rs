//! Patches that the student does not see, told from what the teacher makes of them (iBOT, arXiv 2111.07832 §3.1).

use tch::{Kind, Tensor};

use super::{GLOBAL_CROPS, KIND};
use crate::objective::ObjectiveError;
use crate::objective::input::shape;
use crate::tensor::{StepInput, take_rows};

/// The hidden patches of B images' global crops, of which there are M.
#[derive(Debug)]
pub(super) struct Hidden {
    /// i64 M: rows of the patches (crops·B)×N of all crops, the second crops behind the first.
    pub(super) patches: Tensor,
    /// i64 M: the crop of each, crop × B + image.
    crops: Tensor,
    /// f32 M: 1 ÷ the hidden patches of the same crop.
    weights: Tensor,
    /// Crops of all images, those that hide nothing too.
    total: i64,
}

impl Hidden {
    /// Of what the pipeline hides; a crop has `n` patches.
    ///
    /// # Errors
    /// The batch says nothing of hidden patches, or of another number of patches.
    pub(super) fn of(x: &StepInput, n: i64) -> Result<Self, ObjectiveError> {
        let hidden = x.hidden.as_ref().ok_or(ObjectiveError::Lacks {
            objective: KIND.name,
            what: "hidden patches",
        })?;
        let of_image = i64::from(GLOBAL_CROPS) * n;
        shape(
            KIND.name,
            "the number of patches that may be hidden",
            &[hidden.patches],
            &[of_image],
        )?;
        let total = i64::from(GLOBAL_CROPS) * x.len;
        let image = hidden.rows.floor_divide_scalar(of_image);
        let place = &hidden.rows - &image * of_image;
        let crop = place.floor_divide_scalar(n);
        let crops = &crop * x.len + image;
        let patches = &crops * n + place - crop * n;
        let ones = Tensor::ones(crops.size(), (Kind::Float, crops.device()));
        let counts = Tensor::zeros([total], (Kind::Float, crops.device())).index_add(0, &crops, &ones);
        Ok(Self {
            weights: counts.index_select(0, &crops).reciprocal(),
            patches,
            crops,
            total,
        })
    }

    /// The tokens M×D of hidden patches among features (crops·B)×(1+N)×D, the class token first.
    pub(super) fn tokens(&self, features: &Tensor) -> Tensor {
        take_rows(features, &(&self.patches + &self.crops + 1))
    }

    /// The mean over the hidden patches of a crop, then over all crops, where one that hides nothing counts 0: of a value f32 M for each patch.
    pub(super) fn mean(&self, values: &Tensor) -> Tensor {
        (values * &self.weights).sum(Kind::Float) / self.total as f64
    }

    /// Share of crops with hidden patches.
    pub(super) fn share(&self) -> Tensor {
        self.mean(&self.weights.ones_like())
    }

    /// Cross-entropy of the student's outputs for hidden patches (f32 M×K) with the teacher's, which lose `centre` (K) before their temperature; and the
    /// entropy of the teacher's, without gradient. Both are means as iBOT's Eq. 2 and DINOv2's code have them; nats.
    pub(super) fn distillation(&self, student: &Tensor, teacher: &Tensor, centre: &Tensor, temperatures: [f64; 2]) -> [Tensor; 2] {
        let [of_student, of_teacher] = temperatures;
        let targets = tch::no_grad(|| ((teacher - centre) / of_teacher).softmax(-1, Kind::Float));
        let logits = student / of_student;
        let over = [-1i64].as_slice();
        let each = logits.logsumexp(over, false) - (&logits * &targets).sum_dim_intlist(over, false, Kind::Float);
        let entropy = tch::no_grad(|| self.mean(&targets.special_entr().sum_dim_intlist(over, false, Kind::Float)));
        [self.mean(&each), entropy]
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::tensor::HiddenPatches;

    /// Three images of two crops with four patches each: of image 0 one patch in its first crop, two in its second; of image 2 all in its second.
    fn input() -> StepInput {
        let rows = [1i64, 4, 6, 20, 21, 22, 23];
        StepInput {
            len: 3,
            views: vec![],
            words: None,
            largest_word: 0,
            sets: None,
            hidden: Some(HiddenPatches {
                patches: 8,
                rows: Tensor::from_slice(&rows),
            }),
            maps: None,
            objects: None,
            labels: Tensor::from_slice(&[-1i64; 3]),
        }
    }

    #[test]
    fn rows_are_those_of_crops_one_behind_the_other() {
        let hidden = Hidden::of(&input(), 4).unwrap();
        // First crops: rows 0 to 11, second ones from 12 on.
        assert_eq!(Vec::<i64>::try_from(&hidden.patches).unwrap(), [1, 12, 14, 20, 21, 22, 23]);
        assert_eq!(Vec::<i64>::try_from(&hidden.crops).unwrap(), [0, 3, 3, 5, 5, 5, 5]);
        assert_eq!(
            Vec::<f32>::try_from(&hidden.weights).unwrap(),
            [1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
        );
        assert!((hidden.share().double_value(&[]) - 0.5).abs() < 1e-6);
        let features = Tensor::arange(6 * 5, (Kind::Float, Device::Cpu)).view([6, 5, 1]);
        let tokens = Vec::<f32>::try_from(hidden.tokens(&features).flatten(0, 1)).unwrap();
        assert_eq!(tokens, [2.0, 16.0, 18.0, 26.0, 27.0, 28.0, 29.0]);
        let mut short = input();
        short.hidden.as_mut().unwrap().patches = 7;
        assert!(
            Hidden::of(&short, 4)
                .unwrap_err()
                .to_string()
                .contains("patches that may be hidden is [7]")
        );
        short.hidden = None;
        assert!(Hidden::of(&short, 4).unwrap_err().to_string().contains("no hidden patches"));
    }

    #[test]
    fn each_crop_counts_once_however_much_it_hides_and_guessing_costs_ln_k() {
        let hidden = Hidden::of(&input(), 4).unwrap();
        let zeros = Tensor::zeros([7, 16], (Kind::Float, Device::Cpu));
        let [loss, entropy] = hidden.distillation(&zeros, &zeros, &Tensor::zeros([16], (Kind::Float, Device::Cpu)), [0.1, 0.04]);
        // Three crops of six hide something.
        for value in [loss, entropy] {
            assert!((value.double_value(&[]) - 0.5 * 16f64.ln()).abs() < 1e-6);
        }
    }

    #[test]
    fn a_part_that_hides_nothing_costs_nothing_and_has_gradients_of_zero() {
        let _turn = crate::tensor::alone();
        let mut x = input();
        x.hidden.as_mut().unwrap().rows = Tensor::from_slice::<i64>(&[]);
        let hidden = Hidden::of(&x, 4).unwrap();
        let features = Tensor::ones([6, 5, 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let tokens = hidden.tokens(&features);
        let [loss, entropy] = hidden.distillation(&tokens, &tokens.detach(), &features.detach().get(0).get(0), [0.1, 0.04]);
        assert_eq!([&loss, &entropy, &hidden.share()].map(|t| t.double_value(&[])), [0.0; 3]);
        loss.backward();
        assert_eq!(features.grad().abs().max().double_value(&[]), 0.0);
    }
}
