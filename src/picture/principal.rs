//! `features.png`: the features of patches as colours, by their first three principal components (as DINOv2 shows them, arXiv 2304.07193 figure 1).

use tch::{Kind, Tensor};

use crate::eval::EvalError;

/// Components, one for each of red, green and blue.
const COLOURS: i64 = 3;
/// Deviations from the mean that the range of a colour reaches to either side.
const REACH: f64 = 2.0;

/// Colours of the patches of some images: u8 B×N×3.
///
/// `features` (B×N×D) of all patches give the axes: their three principal components, each scaled to a deviation of 1. Those are unique only up to sign,
/// and where two are nearly as large, up to a rotation between them; training moves both at random, so colours of two pictures could not be compared.
/// They are therefore turned, as a rigid body, to lie as near as possible to the three principal components of `pixels` (B×N×P), the patches
/// themselves: the orthogonal Procrustes problem (Schönemann 1966). The images are the same all through a run, so this goal never moves, nothing of an
/// earlier picture has to be remembered, and a resumed run paints what an undisturbed one would.
///
/// # Errors
/// What libtorch said; shapes that do not fit, features that are not finite.
pub fn principal_colours(features: &Tensor, pixels: &Tensor) -> Result<Tensor, EvalError> {
    let _guard = tch::no_grad_guard();
    let (b, n, _) = features.size3()?;
    let finite = features.f_isfinite()?.f_all()?;
    if !bool::try_from(finite)? {
        return Err(EvalError::Picture("the features of the picture's images are not finite".into()));
    }
    let (scores, goal) = (components(features)?, components(pixels)?);
    let (u, _, v) = scores.f_tr()?.f_matmul(&goal)?.f_svd(true, true)?;
    let turned = scores.f_matmul(&u.f_matmul(&v.f_tr()?)?)?;
    let shares = turned.f_div_scalar(2.0 * REACH)?.f_add_scalar(0.5)?.f_clamp(0.0, 1.0)?;
    Ok(shares
        .f_mul_scalar(255.0)?
        .f_round()?
        .f_to_kind(Kind::Uint8)?
        .f_view([b, n, COLOURS])?)
}

/// Principal components of the rows of B×N×D, each of mean 0 and deviation 1: f64 B·N×3. A component without variance is 0 everywhere.
fn components(rows: &Tensor) -> Result<Tensor, EvalError> {
    let dims = *rows.size().last().unwrap_or(&0);
    let rows = rows.f_to_kind(Kind::Double)?.f_reshape([-1, dims])?;
    let centred = rows.f_sub(&rows.f_mean_dim(0i64, true, Kind::Double)?)?;
    // Products of the rows have the variances that products of the columns have; the decomposition takes the cube of the fewer ones.
    let (count, by_rows) = (rows.size()[0], rows.size()[0] < dims);
    let transposed = centred.f_tr()?;
    let products = if by_rows {
        centred.f_matmul(&transposed)?
    } else {
        transposed.f_matmul(&centred)?
    };
    // Ascending, so the largest are the last ones.
    let (variances, axes) = products.f_div_scalar(count as f64)?.f_linalg_eigh("L")?;
    let side = dims.min(count);
    let most = side.min(COLOURS);
    let axes = axes.f_narrow(1, side - most, most)?.f_flip([1i64])?;
    let variances = variances.f_narrow(0, side - most, most)?.f_flip([0i64])?.f_clamp_min(0.0)?;
    // What rounding leaves of a component that is none, is none.
    let least = variances.f_max()?.f_mul_scalar(1e-10)?.f_clamp_min(1e-24)?;
    let there = variances.f_gt_tensor(&least)?;
    let there = there.f_to_kind(Kind::Double)?;
    let scores = if by_rows {
        // An axis of the rows is the component itself, of length 1.
        axes.f_mul(&there)?.f_mul_scalar((count as f64).sqrt())?
    } else {
        let deviations = variances.f_maximum(&least)?.f_sqrt()?;
        centred.f_matmul(&axes)?.f_mul(&there.f_div(&deviations)?)?
    };
    Ok(scores.f_constant_pad_nd([0, COLOURS - most])?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn drawn(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Double, Device::Cpu))
    }

    fn bytes(t: &Tensor) -> Vec<i64> {
        Vec::<i64>::try_from(t.to_kind(Kind::Int64).flatten(0, -1)).unwrap()
    }

    #[test]
    fn colours_stay_when_the_features_are_turned_mirrored_moved_or_painted_again() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(3);
        let spread = Tensor::from_slice(&[5.0, 4.9, 4.8, 1.0, 0.5, 0.1]);
        let (features, pixels) = (drawn(&[2, 16, 6]) * spread, drawn(&[2, 16, 12]));
        let first = principal_colours(&features, &pixels).unwrap();
        assert_eq!(first.size(), [2, 16, 3]);
        assert_eq!(first, principal_colours(&features, &pixels).unwrap());
        let (turn, _) = Tensor::linalg_qr(&drawn(&[6, 6]), "reduced");
        for other in [features.matmul(&turn), -&features, &features + 7.0] {
            let again = principal_colours(&other, &pixels).unwrap();
            let most = bytes(&first).iter().zip(bytes(&again)).map(|(a, b)| (a - b).abs()).max().unwrap();
            assert!(most <= 1, "{most}");
        }
        // Without a goal the mirrored features would have the opposite colours.
        let spread = bytes(&first);
        assert!(spread.iter().max().unwrap() - spread.iter().min().unwrap() > 200);
    }

    #[test]
    fn components_are_the_same_by_rows_and_by_columns() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(5);
        // Ten rows of 64 numbers in which six directions differ, and the same in other axes, of which the last ones are 0.
        let few = drawn(&[10, 6]) * Tensor::from_slice(&[9.0, 5.0, 3.0, 1.0, 0.5, 0.1]);
        let (axes, _) = Tensor::linalg_qr(&drawn(&[64, 6]), "reduced");
        let by_columns = components(&few).unwrap();
        let by_rows = components(&few.matmul(&axes.tr())).unwrap();
        let signs = (&by_columns * &by_rows)
            .sum_dim_intlist([0i64].as_slice(), true, Kind::Double)
            .sign();
        let apart = (by_columns - by_rows * signs).abs().max().double_value(&[]);
        assert!(apart < 1e-9, "{apart}");
    }

    #[test]
    fn equal_patches_have_equal_colours_and_different_ones_different() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(4);
        let kinds = drawn(&[3, 8]);
        let which = Tensor::from_slice(&[0i64, 1, 2, 0, 0, 1, 2, 2]);
        let features = kinds.index_select(0, &which).view([2, 4, 8]);
        let colours = bytes(&principal_colours(&features, &drawn(&[2, 4, 12])).unwrap());
        let colour = |patch: usize| &colours[3 * patch..3 * patch + 3];
        assert!(
            colour(0) == colour(3) && colour(1) == colour(5) && colour(2) == colour(7),
            "{colours:?}"
        );
        let apart = |a: usize, b: usize| colour(a).iter().zip(colour(b)).any(|(x, y)| (x - y).abs() > 40);
        assert!(apart(0, 1) && apart(1, 2) && apart(0, 2), "{colours:?}");
    }

    #[test]
    fn features_that_are_all_alike_are_grey_and_broken_ones_refused() {
        let grey = principal_colours(
            &Tensor::ones([1, 4, 2], (Kind::Float, Device::Cpu)),
            &Tensor::zeros([1, 4, 3], (Kind::Float, Device::Cpu)),
        );
        assert!(bytes(&grey.unwrap()).iter().all(|c| *c == 128));
        let broken = Tensor::full([1, 4, 2], f64::NAN, (Kind::Float, Device::Cpu));
        let error = principal_colours(&broken, &broken).unwrap_err().to_string();
        assert!(error.contains("not finite"), "{error}");
    }
}
