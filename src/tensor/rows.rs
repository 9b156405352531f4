//! Moving whole rows of tokens by index: one flat `index_select` or `index_copy`, whose backward passes are cheap.

use tch::{Kind, Tensor};

/// Turns per-image indices M×K into indices of rows of a tensor flattened from images of `stride` rows each; image `m` reads from
/// image `m mod images` of that tensor. `offset` is added to each (1 to skip a class token). Answers i64 M·K.
#[must_use]
pub fn flat_rows(index_mk: &Tensor, images: i64, stride: i64, offset: i64) -> Tensor {
    let m = index_mk.size()[0];
    let base = Tensor::arange(m, (Kind::Int64, index_mk.device())).remainder(images) * stride + offset;
    (index_mk + base.unsqueeze(1)).flatten(0, 1)
}

/// Rows of `tokens` (…×D, flattened) at `rows`: len(rows)×D.
#[must_use]
pub fn take_rows(tokens: &Tensor, rows: &Tensor) -> Tensor {
    let d = *tokens.size().last().expect("tokens have at least one dimension");
    tokens.reshape([-1, d]).index_select(0, rows)
}

/// `background` (n×D, possibly expanded) with the rows at `rows` replaced by `values` (len(rows)×D).
#[must_use]
pub fn place_rows(background: &Tensor, rows: &Tensor, values: &Tensor) -> Tensor {
    background.index_copy(0, rows, &values.to_kind(background.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_branches_read_the_same_images() {
        let index = Tensor::from_slice(&[0i64, 2, 1, 2, 1, 3, 0, 3]).view([4, 2]);
        let rows = Vec::<i64>::try_from(flat_rows(&index, 2, 4, 0)).unwrap();
        assert_eq!(rows, [0, 2, 5, 6, 1, 3, 4, 7]);
        let rows = Vec::<i64>::try_from(flat_rows(&index, 4, 5, 1)).unwrap();
        assert_eq!(rows, [1, 3, 7, 8, 12, 14, 16, 19]);
    }

    #[test]
    fn placed_rows_are_taken_back() {
        let values = Tensor::arange(6, (Kind::Float, tch::Device::Cpu)).view([3, 2]);
        let rows = Tensor::from_slice(&[4i64, 0, 2]);
        let all = place_rows(
            &Tensor::full([1, 2], -1.0, (Kind::Float, tch::Device::Cpu)).expand([5, 2], false),
            &rows,
            &values,
        );
        assert_eq!(take_rows(&all, &rows), values);
        assert_eq!(all.double_value(&[1, 0]), -1.0);
    }
}
