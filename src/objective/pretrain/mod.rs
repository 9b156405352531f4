//! Objectives, one file each, and the registry of them. All but `supervised` learn without labels.

pub mod beit;
pub mod dino;
pub mod mae;
pub mod moco_v3;
pub mod simclr;
pub mod splitmask;
pub mod supervised;

use super::Kind;

/// All objectives; the first one is the default.
pub static OBJECTIVES: &[&Kind] = &[
    &splitmask::KIND,
    &beit::KIND,
    &mae::KIND,
    &simclr::KIND,
    &dino::KIND,
    &moco_v3::KIND,
    &supervised::KIND,
];
