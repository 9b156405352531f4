//! Training on several ranks: one process and one device each, one run together. `peers` is what a trainer asks of the others, `launching` how it comes
//! to them, `processors` with whom it divides those, `boundary` what they tell each other between two steps, `start` how all begin alike, `sharing` what they
//! make for rank 0, `pace` which of them is slow. One process uses none of it.

pub(super) mod boundary;
pub mod config;
pub mod launching;
pub(super) mod pace;
pub(super) mod peers;
mod processors;
mod sharing;
pub(super) mod start;
