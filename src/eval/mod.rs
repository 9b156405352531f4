//! How good the features are: by what was learnt without labels (the loss), by how many directions they use (their spread), without training anything
//! on them (k-NN) or hardly anything (a linear probe); how often a run that learns classes names the right one, and how well one that learns classes of pixels tells them. Each is a row in [`EVALUATIONS`].

mod baseline;
pub mod classes;
pub mod classify;
pub mod config;
pub mod data;
pub mod detect;
mod error;
mod evaluation;
pub mod extract;
pub mod features;
pub mod knn;
pub mod lbfgs;
pub mod linear;
pub mod loss;
mod marks;
pub mod patience;
pub mod pool;
pub mod probe;
mod progress;
pub mod registry;
pub mod segment;
pub mod sharing;
pub mod spread;

pub use baseline::Baseline;
pub use error::{EvalError, fenced};
pub use evaluation::{EvalNumber, Evaluation, Score, Subject};
pub use progress::{GoOn, Progress};
pub use registry::{EVALUATIONS, evaluation};
