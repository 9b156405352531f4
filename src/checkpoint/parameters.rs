//! Putting the parameters of a checkpoint in place.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Tensor, nn};

use super::CheckpointError;
use crate::optim::EMA_PREFIX;

/// Puts a checkpoint's trained parameters in place: all of them, and no other. Averaged ones beside them are passed over. `folder` is named in errors.
///
/// # Errors
/// [`CheckpointError::Mismatch`] naming the first parameter that differs.
pub fn put_weights(folder: &Path, weights: &[(String, Tensor)], vars: &nn::VarStore) -> Result<(), CheckpointError> {
    let mismatch = |detail: String| CheckpointError::Mismatch {
        path: folder.to_owned(),
        detail,
    };
    let raw = weights.iter().filter(|(n, _)| !n.starts_with(EMA_PREFIX));
    let mut saved: BTreeMap<&str, &Tensor> = raw.map(|(n, t)| (n.as_str(), t)).collect();
    let variables: BTreeMap<String, Tensor> = vars.variables().into_iter().collect();
    for (name, variable) in &variables {
        let Some(tensor) = saved.remove(name.as_str()) else {
            return Err(mismatch(format!("it has no parameter {name}; this config's model has")));
        };
        if tensor.size() != variable.size() {
            return Err(mismatch(format!(
                "{name} is {:?} in it, {:?} in this config's model",
                tensor.size(),
                variable.size()
            )));
        }
        tch::no_grad(|| variable.shallow_clone().copy_(tensor));
    }
    match saved.keys().next() {
        Some(name) => Err(mismatch(format!("it has a parameter {name} that this config's model lacks"))),
        None => Ok(()),
    }
}
