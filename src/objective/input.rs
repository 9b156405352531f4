//! Checks of what a batch holds against the model.

use splitmask_pipeline::request::IMAGE;
use tch::Tensor;

use super::ObjectiveError;
use crate::model::Vit;
use crate::tensor::StepInput;

/// The view of an objective that asks for one, [`IMAGE`], of the encoder's size: f32 B×3×S×S, normalised.
///
/// # Errors
/// There is no such view, or it has another shape.
pub fn image<'a>(objective: &'static str, input: &'a StepInput, vit: &Vit) -> Result<&'a Tensor, ObjectiveError> {
    square_view(objective, input, IMAGE, vit)
}

/// The first view of that name, of the encoder's size: f32 B×3×S×S, normalised.
///
/// # Errors
/// There is no such view, or it has another shape.
pub fn square_view<'a>(objective: &'static str, input: &'a StepInput, name: &str, vit: &Vit) -> Result<&'a Tensor, ObjectiveError> {
    let view = input.view(name).ok_or(ObjectiveError::Lacks { objective, what: "view" })?;
    shape(objective, "the view", &view.size(), &[input.len, 3, vit.image(), vit.image()])?;
    Ok(view)
}

/// Refuses a tensor, `what`, whose shape is another one.
pub(super) fn shape(objective: &'static str, what: &'static str, got: &[i64], want: &[i64]) -> Result<(), ObjectiveError> {
    if got == want {
        return Ok(());
    }
    Err(ObjectiveError::Shape {
        objective,
        what,
        got: got.to_vec(),
        want: format!("{want:?}"),
    })
}
