//! Predicting pixels (arXiv 2111.06377 §3).

use tch::{Kind, Tensor};

/// Added to a patch's variance, as in MAE's code.
const EPSILON: f64 = 1e-6;

/// Images B×3×S×S to the pixels of their patches, B×N×3p²: rows of a patch one after the other, the three channels of a pixel side by side, as MAE's code
/// lays them out.
pub fn patch_pixels(images: &Tensor, patch: i64) -> Tensor {
    let (b, c, side, _) = images.size4().expect("images are B×3×S×S");
    let g = side / patch;
    images
        .reshape([b, c, g, patch, g, patch])
        .permute([0, 2, 4, 3, 5, 1])
        .reshape([b, g * g, patch * patch * c])
}

/// The way back of [`patch_pixels`]: B×N×3p² to B×3×S×S.
pub fn image_of_patches(pixels: &Tensor, patch: i64) -> Tensor {
    let (b, n, d) = pixels.size3().expect("pixels of patches are B×N×3p²");
    let (g, c) = ((n as f64).sqrt().round() as i64, d / (patch * patch));
    pixels
        .reshape([b, g, g, patch, patch, c])
        .permute([0, 5, 1, 3, 2, 4])
        .reshape([b, c, g * patch, g * patch])
}

/// Mean and deviation of the pixels of each patch, …×1 each: what normalised targets are made with and predictions are drawn with. The variance is the
/// unbiased one plus 1e-6, as in MAE's code, so a patch whose three channels have one value throughout becomes zeros.
pub fn patch_scale(pixels: &Tensor) -> (Tensor, Tensor) {
    let (var, mean) = pixels.var_mean_dim([-1i64].as_slice(), true, true);
    (mean, (var + EPSILON).sqrt())
}

/// Mean over rows and columns of (predicted − target)², both M×D: f32 scalar.
pub fn mean_squared_error(predicted: &Tensor, target: &Tensor) -> Tensor {
    (predicted.to_kind(Kind::Float) - target.to_kind(Kind::Float))
        .square()
        .mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn patches_are_laid_out_as_maes_code_does_and_go_back() {
        let images = Tensor::arange(2 * 3 * 6 * 6, (Kind::Float, Device::Cpu)).view([2, 3, 6, 6]);
        let pixels = patch_pixels(&images, 2);
        assert_eq!(pixels.size(), [2, 9, 12]);
        // Patch 4 is the middle one; its second row begins at pixel (3, 2).
        let patch = Vec::<f64>::try_from(pixels.get(1).get(4).to_kind(Kind::Double)).unwrap();
        let at = |c: i64, y: i64, x: i64| images.double_value(&[1, c, y, x]);
        assert_eq!(patch[..4], [at(0, 2, 2), at(1, 2, 2), at(2, 2, 2), at(0, 2, 3)]);
        assert_eq!(patch[6..9], [at(0, 3, 2), at(1, 3, 2), at(2, 3, 2)]);
        assert_eq!(image_of_patches(&pixels, 2), images);
    }

    #[test]
    fn a_prediction_of_zero_costs_about_1_and_a_flat_patch_nothing() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(2);
        let normalised = |pixels: &Tensor| {
            let (mean, deviation) = patch_scale(pixels);
            (pixels - mean) / deviation
        };
        let noise = Tensor::randn([50, 192], (Kind::Float, Device::Cpu)) * 3.0 + 1.0;
        let zeros = noise.zeros_like();
        let cost = mean_squared_error(&zeros, &normalised(&noise)).double_value(&[]);
        assert!((cost - 191.0 / 192.0).abs() < 1e-5, "{cost}");
        let flat = noise.ones_like() * 0.3;
        assert!(mean_squared_error(&zeros, &normalised(&flat)).double_value(&[]) < 1e-6);
    }
}
