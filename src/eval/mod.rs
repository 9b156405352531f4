//! How good the features are, without training anything on them (k-NN) or hardly anything (a linear probe).

pub mod classes;
mod error;
pub mod features;
pub mod knn;
pub mod lbfgs;
pub mod linear;
pub mod watch;

pub use error::{EvalError, fenced};
