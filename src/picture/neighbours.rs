//! `neighbours.png`: images beside those that the encoder takes for the most similar.

use tch::Tensor;

use crate::eval::EvalError;
use crate::eval::features::directions;

/// Frame of a neighbour of the query's class.
const SAME: [u8; 3] = [40, 170, 70];
/// Frame of a neighbour of another class.
const OTHER: [u8; 3] = [210, 50, 50];
/// Frame where the class of one of the two is not known.
const UNKNOWN: [u8; 3] = [150, 150, 156];

/// The `k` nearest neighbours of each of the first `queries` rows among all other rows of features N×D, the nearest first, by cosine; of two that are
/// equally near, the one with the lower index. Fewer where there are fewer rows.
///
/// # Errors
/// What libtorch said; features that are not finite.
pub fn nearest(features: &Tensor, queries: usize, k: usize) -> Result<Vec<Vec<usize>>, EvalError> {
    let _guard = tch::no_grad_guard();
    if !bool::try_from(features.f_isfinite()?.f_all()?)? {
        return Err(EvalError::Picture("the features of the validation images are not finite".into()));
    }
    let unit = directions(features)?;
    let rows = unit.size()[0] as usize;
    let queries = queries.min(rows);
    let cosines = unit.f_narrow(0, 0, queries as i64)?.f_matmul(&unit.f_tr()?)?;
    let cosines = Vec::<f32>::try_from(cosines.f_contiguous()?.f_view([-1])?)?;
    let of = |(query, near): (usize, &[f32])| {
        let mut others: Vec<usize> = (0..rows).filter(|row| *row != query).collect();
        others.sort_by(|a, b| near[*b].total_cmp(&near[*a]).then(a.cmp(b)));
        others.truncate(k);
        others
    };
    Ok(cosines.chunks_exact(rows.max(1)).enumerate().map(of).collect())
}

/// Colour of a neighbour's frame: green for the query's class, red for another, grey where a label is missing (below 0).
#[must_use]
pub fn frame(query: i64, neighbour: i64) -> [u8; 3] {
    match (query, neighbour) {
        (q, n) if q < 0 || n < 0 => UNKNOWN,
        (q, n) if q == n => SAME,
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_neighbours_of_duplicates_are_the_duplicates() {
        // Rows 0 and 3 point the same way, at different lengths; 1, 2 and 4 are one image three times.
        let features = Tensor::from_slice2(&[[1.0f32, 0.1], [0.0, 1.0], [0.0, 1.0], [5.0, 0.5], [0.0, 1.0]]);
        let found = nearest(&features, 3, 2).unwrap();
        assert_eq!(found, [vec![3, 1], vec![2, 4], vec![1, 4]]);
        assert_eq!(nearest(&features, 1, 9).unwrap()[0].len(), 4, "no image is its own neighbour");
        assert_eq!(nearest(&features.narrow(0, 0, 1), 4, 2).unwrap(), [Vec::<usize>::new()]);
    }

    #[test]
    fn frames_tell_the_class() {
        assert_eq!(
            [frame(3, 3), frame(3, 4), frame(-1, 3), frame(3, -1), frame(-1, -1)],
            [SAME, OTHER, UNKNOWN, UNKNOWN, UNKNOWN]
        );
    }
}
