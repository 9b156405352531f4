use tch::{Device, nn};

use super::*;

#[test]
fn relative_bias_depends_on_offsets_only() {
    let _turn = crate::tensor::alone();
    let vs = nn::VarStore::new(Device::Cpu);
    let bias = RelativeBias::new(&vs.root(), 3, 2);
    let mut table = bias.table.shallow_clone();
    let values = Tensor::arange(28 * 2, (Kind::Float, Device::Cpu)).view([28, 2]);
    tch::no_grad(|| table.copy_(&values));
    let all = bias.forward(None);
    assert_eq!(all.size(), [1, 2, 10, 10]);
    // Patches 0→4 and 4→8 are both one row and one column apart.
    assert_eq!(all.double_value(&[0, 1, 1, 5]), all.double_value(&[0, 1, 5, 9]));
    assert_ne!(all.double_value(&[0, 1, 1, 5]), all.double_value(&[0, 1, 5, 1]));
    assert_ne!(all.double_value(&[0, 0, 0, 3]), all.double_value(&[0, 0, 3, 0]));
    let seen = Tensor::from_slice(&[0i64, 4, 4, 8]).view([2, 2]);
    let some = bias.forward(Some(&seen));
    assert_eq!(some.size(), [2, 2, 3, 3]);
    assert_eq!(some.double_value(&[0, 1, 1, 2]), some.double_value(&[1, 1, 1, 2]));
    assert_eq!(some.double_value(&[0, 0, 2, 0]), all.double_value(&[0, 0, 5, 0]));
}

#[test]
fn sines_and_cosines_tell_column_and_row() {
    let table = sin_cos_positions(3, 8);
    assert_eq!((table.size(), table.kind()), (vec![1, 10, 8], Kind::Float));
    let row = |patch: i64| Vec::<f64>::try_from(table.get(0).get(1 + patch).to_kind(Kind::Double)).unwrap();
    // Patch 5 of a 3 × 3 grid is row 1, column 2; the rates are 1 and 1/100.
    let want = [
        2f64.sin(),
        0.02f64.sin(),
        2f64.cos(),
        0.02f64.cos(),
        1f64.sin(),
        0.01f64.sin(),
        1f64.cos(),
        0.01f64.cos(),
    ];
    assert!(
        row(5).iter().zip(want).all(|(have, want)| (have - want).abs() < 1e-6),
        "{:?}",
        row(5)
    );
    assert_eq!(table.get(0).get(0).abs().max().double_value(&[]), 0.0, "the class slot");
}

#[test]
fn interpolation_is_libtorchs_resizing_with_its_gradient() {
    let _turn = crate::tensor::alone();
    for side in [3, 4, 9, 14] {
        let table = || {
            tch::manual_seed(3);
            Tensor::randn([1, 1 + 49, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true)
        };
        let (ours, theirs) = (table(), table());
        let grid = theirs.narrow(1, 1, 49).reshape([1, 7, 7, 5]).permute([0, 3, 1, 2]);
        let want = grid.internal_upsample_bicubic2d_aa([side, side], false, None, None);
        let got = interpolate_positions(&ours, side).narrow(1, 1, side * side);
        let want = want.permute([0, 2, 3, 1]).reshape([1, side * side, 5]);
        let off = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        assert!(off(&got, &want) < 1e-5, "side {side}: {}", off(&got, &want));
        let weight = Tensor::arange(side * side * 5, (Kind::Float, Device::Cpu)).view_as(&want).sin();
        (got * &weight).sum(Kind::Float).backward();
        (want * &weight).sum(Kind::Float).backward();
        assert!(off(&ours.grad(), &theirs.grad()) < 1e-5, "side {side}");
    }
}

#[test]
fn interpolation_keeps_class_and_constants() {
    let table = Tensor::full([1, 5, 3], 2.0, (Kind::Float, Device::Cpu));
    let _ = table.narrow(1, 0, 1).fill_(7.0);
    let big = interpolate_positions(&table, 5);
    assert_eq!(big.size(), [1, 26, 3]);
    assert_eq!(big.double_value(&[0, 0, 0]), 7.0);
    let off = (big.narrow(1, 1, 25) - 2.0).abs().max().double_value(&[]);
    assert!(off < 1e-6, "{off}");
    let table = Tensor::full([12, 2], 2.0, (Kind::Float, Device::Cpu));
    let _ = table.narrow(0, 9, 3).fill_(7.0);
    for side in [1, 3, 6] {
        let other = interpolate_relative_bias(&table, side);
        let offsets = (2 * side - 1).pow(2);
        assert_eq!(other.size(), [offsets + 3, 2]);
        let off = (other.narrow(0, 0, offsets) - 2.0).abs().max().double_value(&[]);
        assert!(off < 1e-6 && other.double_value(&[offsets, 1]) == 7.0, "{side}: {off}");
    }
}

/// Values of timm and scipy; `tests/fixtures/make_positions.py` made them.
#[test]
fn positions_of_another_grid_are_those_of_timm_and_of_beits_code() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/positions.safetensors");
    let all: std::collections::BTreeMap<String, Tensor> = Tensor::read_safetensors(file).unwrap().into_iter().collect();
    for side in [3, 6, 9] {
        let close = |have: Tensor, want: &Tensor| (have - want).abs().max().double_value(&[]);
        let off = close(interpolate_positions(&all["positions"], side), &all[&format!("positions.{side}")]);
        assert!(off < 1e-6, "positions, {side}: {off}");
        let off = close(interpolate_relative_bias(&all["bias"], side), &all[&format!("bias.{side}")]);
        assert!(off < 1e-5, "bias, {side}: {off}");
    }
}

#[test]
fn grids_are_told_by_the_rows_of_a_table() {
    assert_eq!([17, 2, 18, 1, 0].map(grid_of_positions), [Some(4), Some(1), None, None, None]);
    assert_eq!(
        [52, 4, 12, 19, 3].map(grid_of_relative_bias),
        [Some(4), Some(1), Some(2), None, None]
    );
}
