//! SplitMask (arXiv 2112.10740): self-supervised pre-training of vision transformers on your own images.
//!
//! Floors, low to high; a module imports only from floors below it: `exit` `signals` `setting` `exact` `detection` → `telemetry` → `tensor` → `loss` `optim` `model` →
//! `head` `dvae` → `objective` `words` → `checkpoint` `export` `eval` `picture` → `mirror` → `trainer` → `config` → `daemon` → `cli`.

pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod detection;
pub mod dvae;
pub mod eval;
pub mod exact;
pub mod exit;
pub mod export;
pub mod head;
pub mod held_lock;
pub mod loss;
pub mod mirror;
pub mod model;
pub mod objective;
pub mod optim;
pub mod panic_report;
pub mod picture;
pub mod setting;
pub mod signals;
pub mod telemetry;
pub mod tensor;
pub mod trainer;
pub mod words;
