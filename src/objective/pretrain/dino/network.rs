//! Student, teacher and centre.

use std::cell::RefCell;

use tch::nn::Path;
use tch::{Kind, Tensor};

use super::head::Head;
use super::loss::distillation;
use super::{DinoConfig, GLOBAL, GLOBAL_CROPS, KIND, LOCAL};
use crate::loss::unit_rows;
use crate::model::Vit;
use crate::objective::input::shape;
use crate::objective::teacher::TeacherWeights;
use crate::objective::{Losses, Objective, ObjectiveError, Plan, Scope, StepContext, settings};
use crate::optim::ParamRule;
use crate::tensor::StepInput;

/// Prefix of the student's parameters. The teacher's stand at the root, where evaluations, `export` and `run.init_from` look for an encoder.
const STUDENT: &str = "student";

/// An encoder with its head: student or teacher.
#[derive(Debug)]
struct Network {
    vit: Vit,
    head: Head,
}

impl Network {
    /// Parameters under `vs`: the encoder's, and `head.*`.
    fn new(vs: &Path<'_>, config: &DinoConfig, at: &Scope<'_>) -> Self {
        let vit = Vit::new(vs, at.model, config.drop_path);
        let head = Head::new(&(vs / "head"), vit.dim(), config);
        Self { vit, head }
    }

    /// Class tokens of views of one size, in one pass: (views·B)×D, view after view.
    fn describe(&self, views: &[&Tensor], train: bool) -> Tensor {
        self.vit.forward_features(&Tensor::cat(views, 0), train).select(1, 0)
    }
}

/// The student sees all crops, the teacher the global ones. A loss is a mean over images, and the centre that it uses is of the steps before: a batch
/// in parts has the gradients of the whole one.
#[derive(Debug)]
pub(super) struct Dino {
    student: Network,
    teacher: Network,
    weights: TeacherWeights,
    /// Running mean of the teacher's outputs, f32 K; a buffer, `centre`.
    centre: Tensor,
    /// Sum of the teacher's outputs over the parts so far of the step under way, f32 K, and how many there were. Written by passes, taken by
    /// [`Objective::after_step`].
    outputs: RefCell<Option<(Tensor, i64)>>,
    config: DinoConfig,
}

impl Dino {
    /// Parameters under `vs`: the teacher's at its root, the student's under `student`, and the buffer `centre`.
    pub(super) fn new(vs: &Path<'_>, config: &DinoConfig, at: &Scope<'_>) -> Self {
        let network = |vs: &Path<'_>| Network::new(vs, config, at);
        let (student, teacher, weights) = TeacherWeights::build(&(vs / STUDENT), vs, network);
        Self {
            student,
            teacher,
            weights,
            centre: vs.zeros_no_train("centre", &[i64::from(config.prototypes)]),
            outputs: RefCell::new(None),
            config: config.clone(),
        }
    }

    /// The crops of that name: as many and as large as the request asks for.
    fn crops<'a>(x: &'a StepInput, name: &'static str, count: u32, side: i64) -> Result<Vec<&'a Tensor>, ObjectiveError> {
        let objective = KIND.name;
        let crops: Vec<&Tensor> = x.views_named(name).collect();
        if crops.is_empty() && count > 0 {
            let what = if name == GLOBAL { "view named global" } else { "view named local" };
            return Err(ObjectiveError::Lacks { objective, what });
        }
        let number = if name == GLOBAL {
            "the number of global views"
        } else {
            "the number of local views"
        };
        shape(objective, number, &[crops.len() as i64], &[i64::from(count)])?;
        for crop in &crops {
            shape(objective, "the view", &crop.size(), &[x.len, 3, side, side])?;
        }
        Ok(crops)
    }

    /// Adds a part's outputs of the teacher to those of the step under way. The first part begins anew: a step that failed for want of memory is taken
    /// again.
    fn note_outputs(&self, outputs: &Tensor, ctx: &StepContext) {
        let sum = outputs.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
        let rows = outputs.size()[0];
        let mut noted = self.outputs.borrow_mut();
        *noted = match noted.take() {
            Some((before, earlier)) if ctx.rows.start > 0 => Some((before + sum, earlier + rows)),
            _ => Some((sum, rows)),
        };
    }
}

/// Standard deviation of the directions M×D of each view of B images, times √D: one number for `views` of them.
fn spread(described: &Tensor, views: u32) -> Tensor {
    let d = described.size()[1];
    let directions = unit_rows(described).view([i64::from(views), -1, d]);
    directions.std_dim(1, false, false).mean(Kind::Float) * (d as f64).sqrt()
}

impl Objective for Dino {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let config = &self.config;
        let global = Self::crops(x, GLOBAL, GLOBAL_CROPS, self.teacher.vit.image())?;
        let local = Self::crops(x, LOCAL, config.local_crops, i64::from(config.local_size))?;
        if ctx.train && ctx.step == 0 {
            // Weights of run.init_from have gone to the teacher, and the two begin alike. In a run without them nothing changes here.
            self.weights.reset_student();
        }
        let (seen, spread) = tch::no_grad(|| {
            let described = self.teacher.describe(&global, false);
            let seen = self.teacher.head.forward(&described, false);
            if ctx.train {
                self.note_outputs(&seen, ctx);
            }
            (seen, spread(&described, GLOBAL_CROPS))
        });
        let mut described = vec![self.student.describe(&global, ctx.train)];
        if !local.is_empty() {
            described.push(self.student.describe(&local, ctx.train));
        }
        let frozen = ctx.step < config.freeze_last_layer_steps;
        let said = self.student.head.forward(&Tensor::cat(&described, 0), frozen);
        let temperature = config.teacher_temperature_at(ctx.step);
        let found = distillation(&said, &seen, &self.centre, config.student_temperature, temperature);
        Ok(Losses {
            stats: vec![
                ("teacher_entropy", found.entropy),
                ("teacher_divergence", found.divergence),
                ("descriptor_spread", spread),
            ],
            ..Losses::of_term("distillation", found.loss)
        })
    }

    /// The teacher, which is the better one throughout (arXiv 2104.14294 §5.2).
    fn encoder(&self) -> &Vit {
        &self.teacher.vit
    }

    fn take_live(&mut self, plan: &dyn Plan) -> Result<(), ObjectiveError> {
        let new: &DinoConfig = settings(plan, &KIND)?;
        self.config.teacher_temperature = new.teacher_temperature;
        self.config.momentum_end = new.momentum_end;
        self.config.centre_momentum = new.centre_momentum;
        Ok(())
    }

    fn after_step(&mut self, ctx: &StepContext, skipped: &Tensor) -> Result<(), ObjectiveError> {
        self.weights.update(self.config.momentum_at(ctx.step, ctx.total), skipped)?;
        let Some((sum, rows)) = self.outputs.take() else { return Ok(()) };
        tch::no_grad(|| {
            let keep = self.config.centre_momentum;
            let moved = &self.centre * keep + sum * ((1.0 - keep) / rows as f64);
            // Chosen, not weighted: outputs of a step that was held back may be NaN.
            let centre = self.centre.where_self(&skipped.to_kind(Kind::Bool), &moved);
            self.centre.copy_(&centre);
        });
        Ok(())
    }

    /// All tensors of two and more dimensions decay, class token and position table too (the authors' `get_params_groups`).
    fn rule(&self, name: &str, dims: &[i64]) -> ParamRule {
        let of_encoder = name.strip_prefix("student.").unwrap_or(name);
        ParamRule {
            decay: dims.len() > 1,
            layers_below_top: self.student.vit.layers_below_top(of_encoder),
        }
    }
}

#[cfg(test)]
mod tests;
