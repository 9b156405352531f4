//! Random erasing (arXiv 1708.04896): a rectangle of some images becomes noise, as timm's `pixel` mode draws it.

use splitmask_pipeline::seed::Purpose;
use tch::{Kind, Tensor};

use super::draws::Draws;
use super::mixing::Patch;

/// Range of the share of the area that is erased.
const AREA: [f64; 2] = [0.02, 1.0 / 3.0];
/// Range of the rectangle's height ÷ width; its logarithm is uniform.
const ASPECT: [f64; 2] = [0.3, 1.0 / 0.3];
/// Rectangles that are tried before an image stays whole: long ones do not fit.
const TRIES: usize = 10;

/// The rectangle of an image that is erased, if any.
fn rectangle(draws: &mut Draws, probability: f64, side: i64) -> Option<Patch> {
    if draws.uniform() >= probability {
        return None;
    }
    (0..TRIES).find_map(|_| {
        let area = draws.between(AREA[0], AREA[1]) * (side * side) as f64;
        let aspect = draws.between(ASPECT[0].ln(), ASPECT[1].ln()).exp();
        let (height, width) = ((area * aspect).sqrt().round() as i64, (area / aspect).sqrt().round() as i64);
        (height < side && width < side).then(|| Patch {
            top: draws.below(side - height + 1),
            left: draws.below(side - width + 1),
            height,
            width,
            side,
        })
    })
}

/// Normalised images B×3×S×S of which each has lost a rectangle to normal noise with `probability`; `first` is the place of the first one in its batch,
/// `stride` the way from each to the next. What happens to an image depends on the seed of the step and its place in the batch, not on the part that it comes in.
///
/// The noise is drawn by libtorch's generator of the device, which is left as the seed of the step sets it.
pub(super) fn erased(images: &Tensor, probability: f64, seed: u64, first: i64, stride: i64) -> Tensor {
    let (len, side) = (images.size()[0], images.size()[3]);
    let mut changed = None;
    for row in 0..len {
        let mut draws = Draws::new(seed, Purpose::Erasing, (first + row * stride) as u64);
        let Some(patch) = rectangle(&mut draws, probability, side) else {
            continue;
        };
        let images: &Tensor = changed.get_or_insert_with(|| images.copy());
        tch::manual_seed(draws.bits() as i64);
        let noise = Tensor::empty([1, 3, patch.height, patch.width], (Kind::Float, images.device())).normal_(0.0, 1.0);
        patch.of(&images.narrow(0, row, 1)).copy_(&noise);
    }
    if changed.is_some() {
        tch::manual_seed(seed as i64);
    }
    changed.unwrap_or_else(|| images.shallow_clone())
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn rectangles_have_the_published_size_and_are_as_frequent_as_was_asked() {
        let drawn: Vec<Patch> = (0..20_000)
            .filter_map(|row| rectangle(&mut Draws::new(1, Purpose::Erasing, row), 0.25, 224))
            .collect();
        assert!((4800..5200).contains(&drawn.len()), "{}", drawn.len());
        let area = |p: &Patch| (p.height * p.width) as f64 / (224.0 * 224.0);
        // Rounding to whole pixels moves small areas a little.
        assert!(
            drawn
                .iter()
                .all(|p| (0.018..0.34).contains(&area(p)) && p.top + p.height <= 224 && p.left + p.width <= 224)
        );
        let mean = drawn.iter().map(area).sum::<f64>() / drawn.len() as f64;
        // Long and large ones do not fit, so the mean lies a little under that of the range, 0.177.
        assert!((0.165..0.18).contains(&mean), "{mean}");
        let tall = drawn.iter().filter(|p| p.height > p.width).count() as f64 / drawn.len() as f64;
        assert!((tall - 0.5).abs() < 0.03, "{tall}");
    }

    #[test]
    fn an_image_loses_the_same_pixels_in_any_part_of_the_batch() {
        let _turn = crate::tensor::alone();
        let images = Tensor::zeros([12, 3, 16, 16], (Kind::Float, Device::Cpu));
        let whole = erased(&images, 0.5, 7, 0, 1);
        for (start, len) in [(0, 4), (4, 4), (8, 4), (3, 1), (5, 7)] {
            assert_eq!(
                erased(&images.narrow(0, start, len), 0.5, 7, start, 1),
                whole.narrow(0, start, len),
                "{start} {len}"
            );
        }
        for rank in 0..3 {
            let share = |of: &Tensor| of.slice(0, rank, None, 3);
            assert_eq!(erased(&share(&images), 0.5, 7, rank, 3), share(&whole), "rank {rank} of 3");
        }
        let touched = whole
            .abs()
            .sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float)
            .gt(0.0)
            .sum(Kind::Int64);
        assert!((3..=9).contains(&touched.int64_value(&[])), "{touched:?}");
        assert_eq!(images.abs().max().double_value(&[]), 0.0, "what came in stays as it is");
        assert_ne!(erased(&images, 0.5, 8, 0, 1), whole);
    }
}
