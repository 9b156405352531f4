//! What a UperNet beside an encoder answers, by the tensors of a checkpoint.

use tch::{Device, Kind, Tensor, nn};

use super::{ExportError, Tensors};
use crate::head::{Neck, UperNet, UperNetShape};
use crate::model::Vit;

/// Where its parameters stand in a checkpoint.
pub(super) const PREFIX: &str = "head.upernet.";

/// Logits f32 B×K×h×w of `classes` classes of normalised images B×3×S×S.
///
/// # Errors
/// [`ExportError::Tensors`] naming the first one that is missing or does not fit.
pub(super) fn logits(vit: &Vit, head: &Tensors, shape: &UperNetShape, classes: i64, images: &Tensor) -> Result<Tensor, ExportError> {
    let vars = nn::VarStore::new(Device::Cpu);
    let net = UperNet::new(&(vars.root() / "head" / "upernet"), vit.dim(), shape, classes);
    let variables: Tensors = vars.variables().into_iter().collect();
    for (name, variable) in &variables {
        let tensor = head
            .get(name)
            .filter(|tensor| tensor.size() == variable.size())
            .ok_or_else(|| ExportError::Tensors(format!("there is no {name} of shape {:?}", variable.size())))?;
        tch::no_grad(|| variable.shallow_clone().copy_(tensor));
    }
    let maps = Neck::maps(&vit.outputs_of(images, &shape.blocks, false));
    let seen = net.necked(&maps, None).and_then(|maps| net.logits(&maps, None));
    Ok(seen.expect("no other rank is asked").to_kind(Kind::Float))
}
