//! How many directions the features of images use, without any label: an encoder that answers the same whatever it sees has collapsed.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::classes::Remarks;
use super::error::EvalError;
use super::evaluation::{EvalNumber, Evaluation, Score, Subject};
use super::extract::of_val;
use super::features::directions;
use super::progress::GoOn;
use crate::objective::{Better, Panel};
use crate::telemetry::metrics::SideTask;

/// What RankMe adds to each share of the singular values (arXiv 2210.02885, equation 1).
const EPSILON: f64 = 1e-7;
/// An effective rank below this is told as a collapse; the alert FeatureCollapse has the same number.
pub const COLLAPSED: f64 = 2.0;
/// The largest possible rank below which a low one tells nothing: two images have a rank of at most 2. The alert does not know how many images there were.
const TELLING: i64 = 8;

/// The spread of the features of `data.val`.
pub static SPREAD: Evaluation = Evaluation {
    name: "spread",
    doc: "How many directions the features of data.val use: effective rank (RankMe, arXiv 2210.02885), cosine, deviation. Needs no labels.",
    number: EvalNumber {
        name: "feature_rank",
        panel: None,
        gauge: |metrics| &metrics.eval.feature_rank,
    },
    better: Better::Higher,
    beside: &[
        EvalNumber {
            name: "feature_cosine",
            panel: Some(Panel::Shares),
            gauge: |metrics| &metrics.eval.feature_cosine,
        },
        EvalNumber {
            name: "feature_deviation",
            panel: Some(Panel::Shares),
            gauge: |metrics| &metrics.eval.feature_deviation,
        },
    ],
    task: SideTask::Spread,
    every: |config| match config.spread_every_steps {
        0 => config.every_steps,
        apart => apart,
    },
    budget_s: |_| None,
    run: score,
};

fn score(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Score, EvalError> {
    let found = of_subject(subject, go_on)?;
    let FeatureSpread {
        rank, cosine, deviation, ..
    } = found;
    let warning = (rank < COLLAPSED && found.most >= TELLING).then(|| {
        let images = found.images;
        format!("the features of {images} images have an effective rank of {rank:.2}: the encoder answers nearly the same whatever it sees")
    });
    Ok(Score {
        value: rank,
        line: format!(
            "features: effective rank {rank:.2} of {}, cosine {cosine:.4}, deviation {deviation:.4}",
            found.most
        ),
        table: vec![
            format!("effective rank  {rank:.2}   (of {} at most; {} images)", found.most, found.images),
            format!("features        {} of the last layer", subject.eval.pool.words()),
            format!("cosine          {cosine:.4}   (mean of all pairs; 1 = all alike)"),
            format!("deviation       {deviation:.4}   (0 = all alike, 1 = every direction)"),
        ],
        details: serde_json::json!(found),
        beside: vec![cosine, deviation],
        remarks: Remarks {
            warning,
            ..Remarks::default()
        },
        ..Score::default()
    })
}

/// How features are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FeatureSpread {
    /// Effective rank by RankMe (arXiv 2210.02885, equation 1): exp of the entropy of the singular values, each divided by their sum, plus 1e-7. Of the
    /// features as they are, neither centred nor normalised. From 1 to `most`, but for the 1e-7.
    pub rank: f64,
    /// Mean cosine of two different images, -1 to 1.
    pub cosine: f64,
    /// Standard deviation (of the population) of each dimension of the L2-normalised features, mean over the dimensions, times √D (arXiv 2011.10566
    /// §4.1): 0 where all are alike, 1 for directions spread evenly over the sphere.
    pub deviation: f64,
    /// The largest rank that there can be: images or dimensions, whichever are fewer.
    pub most: i64,
    /// Images.
    pub images: i64,
}

/// The spread of the features of `data.val`.
///
/// # Errors
/// As [`Evaluation::run`].
pub fn of_subject(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<FeatureSpread, EvalError> {
    let features = of_val(subject, go_on)?;
    measure(&features.vectors, &features.labels.place)
}

/// Measures features N×D of the images of `place`, in f64.
///
/// # Errors
/// [`EvalError::TooFewImages`] for fewer than 2, or what libtorch said.
pub fn measure(features: &Tensor, place: &str) -> Result<FeatureSpread, EvalError> {
    let _guard = tch::no_grad_guard();
    let (images, dims) = features.size2()?;
    if images < 2 {
        return Err(EvalError::TooFewImages {
            place: place.to_owned(),
            images,
        });
    }
    let features = features.f_to_kind(Kind::Double)?;
    let unit = directions(&features)?;
    let number = |t: &Tensor| f64::try_from(t);
    // ‖Σu‖² is the sum of u·v over all pairs, those of an image with itself included.
    let all = number(&unit.f_sum_dim_intlist(0i64, false, Kind::Double)?.f_square()?.f_sum(Kind::Double)?)?;
    let own = number(&unit.f_square()?.f_sum(Kind::Double)?)?;
    let deviations = unit.f_std_dim(0i64, false, false)?;
    Ok(FeatureSpread {
        rank: effective_rank(&features)?,
        cosine: (all - own) / (images as f64 * (images as f64 - 1.0)),
        deviation: number(&deviations.f_mean(Kind::Double)?)? * (dims as f64).sqrt(),
        most: images.min(dims),
        images,
    })
}

/// RankMe of finite features N×D, f64.
fn effective_rank(features: &Tensor) -> Result<f64, EvalError> {
    // The triangle of a QR decomposition has the same singular values and is no larger than D×D. Eigenvalues of a product of the features with
    // themselves would have half the digits.
    let (_, triangle) = Tensor::f_linalg_qr(features, "r")?;
    let (_, singular, _) = triangle.f_svd(true, false)?;
    let sum = singular.f_sum(Kind::Double)?.f_clamp_min(f64::MIN_POSITIVE)?;
    let shares = singular.f_div(&sum)?.f_add_scalar(EPSILON)?;
    let entropy = shares.f_mul(&shares.f_log()?)?.f_sum(Kind::Double)?.f_neg()?;
    Ok(f64::try_from(entropy.f_exp()?)?)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tch::Device;

    use super::*;

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    #[test]
    fn numbers_are_those_of_numpy() {
        let _turn = crate::tensor::alone();
        // Written by tests/fixtures/make_spread.py.
        let cases: Value = serde_json::from_str(include_str!("../../tests/fixtures/spread.json")).unwrap();
        let cases = cases.as_array().unwrap();
        assert_eq!(cases.len(), 5);
        for case in cases {
            let rows = case["features"].as_array().unwrap();
            let flat: Vec<f32> = rows.iter().flat_map(numbers).map(|v| v as f32).collect();
            let features = Tensor::from_slice(&flat).view([rows.len() as i64, -1]);
            let got = measure(&features, "val").unwrap();
            for (name, got) in [("rank", got.rank), ("cosine", got.cosine), ("deviation", got.deviation)] {
                let want = case[name].as_f64().unwrap();
                assert!((got - want).abs() < 1e-6, "{} of {}: {got}, numpy {want}", name, case["name"]);
            }
        }
    }

    #[test]
    fn all_alike_is_rank_1_and_orthogonal_ones_are_of_full_rank() {
        let _turn = crate::tensor::alone();
        let alike = measure(&Tensor::ones([50, 8], (Kind::Float, Device::Cpu)), "val").unwrap();
        assert!((alike.rank - 1.0).abs() < 1e-4, "{alike:?}");
        assert!((alike.cosine - 1.0).abs() < 1e-12 && alike.deviation < 1e-12, "{alike:?}");
        let apart = measure(&Tensor::eye(8, (Kind::Float, Device::Cpu)), "val").unwrap();
        assert!((apart.rank - 8.0).abs() < 1e-4 && apart.cosine == 0.0, "{apart:?}");
        let nothing = measure(&Tensor::zeros([4, 8], (Kind::Float, Device::Cpu)), "val").unwrap();
        assert!(nothing.rank < COLLAPSED && nothing.deviation == 0.0, "{nothing:?}");
    }

    #[test]
    fn fewer_images_than_dimensions_bound_the_rank_and_directions_of_a_sphere_deviate_by_1() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(1);
        let few = measure(&Tensor::randn([3, 64], (Kind::Float, Device::Cpu)), "val").unwrap();
        assert!(few.most == 3 && few.rank > 2.5 && few.rank < 3.001, "{few:?}");
        let sphere = measure(&Tensor::randn([4000, 16], (Kind::Float, Device::Cpu)), "val").unwrap();
        assert!((sphere.deviation - 1.0).abs() < 0.01 && sphere.cosine.abs() < 0.01, "{sphere:?}");
    }

    #[test]
    fn a_single_image_is_refused_in_words() {
        let _turn = crate::tensor::alone();
        let error = measure(&Tensor::from_slice2(&[[0.0f32, 1.0]]), "data/val").unwrap_err().to_string();
        assert!(error.contains("at least 2"), "{error}");
    }
}
