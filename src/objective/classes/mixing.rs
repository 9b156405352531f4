//! Mixing the images of a batch in pairs: mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899), as timm mixes a batch: one draw for all of it, the
//! partner of image i is image B−1−i.

use splitmask_pipeline::seed::Purpose;
use tch::Tensor;

use super::Recipe;
use super::draws::Draws;

/// How the images of a step are mixed with their partners.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mix {
    /// Not at all.
    Off,
    /// All pixels: the share of an image itself in the mixture.
    Blend(f64),
    /// A rectangle is the partner's.
    Paste(Patch),
}

/// A rectangle of a square image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patch {
    pub(super) top: i64,
    pub(super) left: i64,
    pub(super) height: i64,
    pub(super) width: i64,
    /// Side of the image, pixels.
    pub(super) side: i64,
}

impl Patch {
    /// The rectangle of an image B×3×S×S; no copy.
    pub(super) fn of(&self, images: &Tensor) -> Tensor {
        images.narrow(2, self.top, self.height).narrow(3, self.left, self.width)
    }

    /// With sides √(1 − `share`) of the image's and a centre anywhere in it, cut at its borders.
    fn around(draws: &mut Draws, share: f64, side: i64) -> Self {
        let half = (side as f64 * (1.0 - share).sqrt()) as i64 / 2;
        let mut place = || {
            let centre = draws.below(side);
            ((centre - half).max(0), (centre + half).min(side))
        };
        let ((top, bottom), (left, right)) = (place(), place());
        Self {
            top,
            left,
            height: bottom - top,
            width: right - left,
            side,
        }
    }
}

impl Mix {
    /// Draws that of a step for images of `side` pixels.
    pub(super) fn draw(config: &Recipe, seed: u64, side: i64) -> Self {
        let mut draws = Draws::new(seed, Purpose::Mixing, 0);
        let chosen = draws.uniform();
        let cutmix = match (config.mixup > 0.0, config.cutmix > 0.0) {
            (false, false) => return Self::Off,
            (true, true) => chosen < config.cutmix_share,
            (_, cutmix) => cutmix,
        };
        if cutmix {
            let share = draws.symmetric_beta(config.cutmix);
            Self::Paste(Patch::around(&mut draws, share, side))
        } else {
            Self::Blend(draws.symmetric_beta(config.mixup))
        }
    }

    /// Share of an image in its mixture, and so of its class in the target: 1 − area of what was pasted.
    pub(super) fn own_share(self) -> f64 {
        match self {
            Self::Off => 1.0,
            Self::Blend(share) => share,
            Self::Paste(patch) => 1.0 - (patch.height * patch.width) as f64 / (patch.side * patch.side) as f64,
        }
    }

    /// Images B×3×S×S mixed with `partners`, row by row.
    pub(super) fn apply(self, images: &Tensor, partners: &Tensor) -> Tensor {
        match self {
            Self::Off => images.shallow_clone(),
            Self::Blend(share) => images * share + partners * (1.0 - share),
            Self::Paste(patch) => {
                let mixed = images.copy();
                patch.of(&mixed).copy_(&patch.of(partners));
                mixed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn recipe(mixup: f64, cutmix: f64) -> Recipe {
        Recipe {
            classes: 2,
            smoothing: 0.1,
            mixup,
            cutmix,
            cutmix_share: 0.5,
            repeats: 1,
            rand_augment: 0.0,
            rand_augment_deviation: 0.5,
            erasing: 0.0,
            drop_path: 0.0,
        }
    }

    #[test]
    fn a_step_is_mixed_as_its_seed_says_and_half_of_them_by_cutmix() {
        let config = recipe(0.8, 1.0);
        let drawn: Vec<Mix> = (0..2000).map(|seed| Mix::draw(&config, seed, 32)).collect();
        assert!(drawn.iter().zip(0..).all(|(mix, seed)| *mix == Mix::draw(&config, seed, 32)));
        let pasted = drawn.iter().filter(|mix| matches!(mix, Mix::Paste(_))).count();
        assert!((900..1100).contains(&pasted), "{pasted}");
        assert!(drawn.iter().all(|mix| (0.0..=1.0).contains(&mix.own_share())));
        let only = |mixup, cutmix| {
            let config = recipe(mixup, cutmix);
            (0..50).map(|seed| Mix::draw(&config, seed, 32)).collect::<Vec<_>>()
        };
        assert!(only(0.0, 0.0).iter().all(|mix| *mix == Mix::Off));
        assert!(only(0.8, 0.0).iter().all(|mix| matches!(mix, Mix::Blend(_))));
        assert!(only(0.0, 1.0).iter().all(|mix| matches!(mix, Mix::Paste(_))));
    }

    #[test]
    fn the_share_of_a_pasted_image_is_its_area() {
        let options = (Kind::Float, Device::Cpu);
        for seed in 0..200 {
            let mut draws = Draws::new(seed, Purpose::Mixing, 1);
            let share = draws.symmetric_beta(1.0);
            let mix = Mix::Paste(Patch::around(&mut draws, share, 24));
            let mixed = mix.apply(&Tensor::ones([2, 3, 24, 24], options), &Tensor::zeros([2, 3, 24, 24], options));
            assert!((mixed.mean(Kind::Double).double_value(&[]) - mix.own_share()).abs() < 1e-6);
            // The borders only take away, and whole pixels round down.
            assert!(mix.own_share() >= share - 1e-9, "{share} {mix:?}");
        }
    }
}
