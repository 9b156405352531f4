//! Objectives that learn from images alone, one file each, with `supervised` to compare them with; and the registry of all objectives, those of
//! [`super::transfer`] too.

pub mod beit;
pub mod dino;
pub mod mae;
pub mod moco_v3;
pub mod simclr;
pub mod splitmask;
pub mod supervised;

use super::Kind;
use super::transfer::{classify, detect, segment};

/// All objectives; the first one is the default.
pub static OBJECTIVES: &[&Kind] = &[
    &splitmask::KIND,
    &beit::KIND,
    &mae::KIND,
    &simclr::KIND,
    &dino::KIND,
    &moco_v3::KIND,
    &supervised::KIND,
    &classify::KIND,
    &segment::KIND,
    &detect::KIND,
];
