//! Student, teacher and centre.

use std::cell::Cell;

use tch::nn::Path;
use tch::{Kind, Tensor};
use torch_ext::ranks::{Ranks, RanksError};

use super::centre::{Centre, Centring};
use super::head::Head;
use super::loss::distillation;
use super::patches::Hidden;
use super::{DinoConfig, GLOBAL, GLOBAL_CROPS, KIND, LOCAL};
use crate::loss::{koleo, unit_rows};
use crate::model::{Init, Vit, parameter};
use crate::objective::input::shape;
use crate::objective::masked::embed_hidden;
use crate::objective::teacher::{TeacherWeights, in_force};
use crate::objective::{BetweenImages, Losses, Objective, ObjectiveError, Plan, Scope, StepContext, settings};
use crate::optim::ParamRule;
use crate::tensor::StepInput;

/// Prefix of the student's parameters. The teacher's stand at the root, where evaluations, `export` and `run.init_from` look for an encoder.
const STUDENT: &str = "student";

/// An encoder with its heads: student or teacher.
#[derive(Debug)]
struct Network {
    vit: Vit,
    head: Head,
    /// The patches' own; none = they use the other.
    patch_head: Option<Head>,
}

impl Network {
    /// Parameters under `vs`: the encoder's, `head.*`, and `patch_head.*` where patches have their own.
    fn new(vs: &Path<'_>, config: &DinoConfig, at: &Scope<'_>) -> Self {
        let vit = Vit::new(vs, at.model, config.drop_path);
        let head = Head::new(&(vs / "head"), vit.dim(), config.prototypes, config);
        let own = config.learns_patches() && config.separate_heads;
        let patch_head = own.then(|| Head::new(&(vs / "patch_head"), vit.dim(), config.patch_prototypes(), config));
        Self { vit, head, patch_head }
    }

    /// Features of views of one size, in one pass: (views·B)×(1+N)×D, view after view.
    fn features(&self, views: &[&Tensor], train: bool) -> Tensor {
        self.vit.forward_features(&Tensor::cat(views, 0), train)
    }

    /// Class tokens of views of one size: (views·B)×D, view after view.
    fn describe(&self, views: &[&Tensor], train: bool) -> Tensor {
        self.features(views, train).select(1, 0)
    }

    fn head_of_patches(&self) -> &Head {
        self.patch_head.as_ref().unwrap_or(&self.head)
    }
}

/// What hidden patches need beside the networks.
#[derive(Debug)]
struct Patches {
    /// 1×1×D: what the student sees instead of a hidden patch. The teacher hides none.
    mask_token: Tensor,
    centre: Centre,
}

/// The student sees all crops, the teacher the global ones. A loss is a mean over images, and a running mean of the teacher's outputs is of the steps
/// before: a batch in parts has the gradients of the whole one. What compares images, or their outputs, goes by [`BetweenImages`].
#[derive(Debug)]
pub(super) struct Dino {
    student: Network,
    teacher: Network,
    weights: TeacherWeights,
    centre: Centre,
    patches: Option<Patches>,
    /// Temperature of the teacher at the step of the parts that were gathered.
    temperature: Cell<f64>,
    config: DinoConfig,
}

/// The global crops of some images, what of them is hidden, and the local crops.
struct Seen<'a> {
    global: Vec<&'a Tensor>,
    hidden: Option<Hidden>,
    local: Vec<&'a Tensor>,
}

impl Dino {
    /// Parameters under `vs`: the teacher's at its root, the student's under `student`, and the buffers `centre` and `patch_centre` of running means.
    pub(super) fn new(vs: &Path<'_>, config: &DinoConfig, at: &Scope<'_>) -> Self {
        let network = |vs: &Path<'_>| Network::new(vs, config, at);
        let of_student = vs / STUDENT;
        let (student, teacher, weights) = TeacherWeights::build(&of_student, vs, network);
        let centre = Centre::new(vs, "centre", config.prototypes, config.centring);
        let patches = config.learns_patches().then(|| Patches {
            mask_token: parameter(&of_student, "mask_token", &[1, 1, at.model.dim()], Init::Const(0.0)),
            centre: Centre::new(vs, "patch_centre", config.patch_prototypes(), config.centring),
        });
        Self {
            student,
            teacher,
            weights,
            centre,
            patches,
            temperature: Cell::new(config.teacher_temperature),
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

    /// What of a batch there is to see.
    fn seen<'a>(&self, x: &'a StepInput) -> Result<Seen<'a>, ObjectiveError> {
        let vit = &self.teacher.vit;
        let global = Self::crops(x, GLOBAL, GLOBAL_CROPS, vit.image())?;
        let local = Self::crops(x, LOCAL, self.config.local_crops, i64::from(self.config.local_size))?;
        let hidden = self.patches.is_some().then(|| Hidden::of(x, (vit.image() / vit.patch()).pow(2)));
        Ok(Seen {
            global,
            hidden: hidden.transpose()?,
            local,
        })
    }

    /// The student's features of the global crops, without what is hidden of them: (2·B)×(1+N)×D.
    fn student_features(&self, seen: &Seen<'_>, train: bool) -> Tensor {
        let (Some(hidden), Some(patches)) = (&seen.hidden, &self.patches) else {
            return self.student.features(&seen.global, train);
        };
        let vit = &self.student.vit;
        let tokens = embed_hidden(vit, &Tensor::cat(&seen.global, 0), &hidden.patches, &patches.mask_token);
        vit.encode(&tokens, None, train)
    }

    /// Gives the student the teacher's weights before the first step.
    fn begin(&self, ctx: &StepContext) {
        if ctx.train && ctx.step == 0 {
            // Weights of run.init_from have gone to the teacher, and the two begin alike. In a run without them nothing changes here.
            self.weights.reset_student();
        }
    }

    /// Losses without the term between images, and the student's class tokens of the global crops, 2×B×D. With `in_parts` the images are a part of a batch
    /// that was gathered.
    fn losses(&self, x: &StepInput, ctx: &StepContext, in_parts: bool) -> Result<(Losses, Tensor), ObjectiveError> {
        let config = &self.config;
        let seen = self.seen(x)?;
        self.begin(ctx);
        let (of_teacher, of_hidden, spread) = tch::no_grad(|| {
            let features = self.teacher.features(&seen.global, false);
            let described = features.select(1, 0);
            let outputs = self.teacher.head.forward(&described, false);
            let head = self.teacher.head_of_patches();
            let of_hidden = seen.hidden.as_ref().map(|hidden| head.forward(&hidden.tokens(&features), false));
            if ctx.train {
                self.centre.note(&outputs, ctx);
                if let (Some(patches), Some(outputs)) = (&self.patches, &of_hidden) {
                    patches.centre.note(outputs, ctx);
                }
            }
            (outputs, of_hidden, spread(&described, GLOBAL_CROPS, &ctx.ranks))
        });
        let spread = spread?;
        let features = self.student_features(&seen, ctx.train);
        let class_tokens = features.select(1, 0);
        let mut described = vec![class_tokens.shallow_clone()];
        if !seen.local.is_empty() {
            described.push(self.student.describe(&seen.local, ctx.train));
        }
        let frozen = ctx.step < config.freeze_last_layer_steps;
        let said = self.student.head.forward(&Tensor::cat(&described, 0), frozen);
        let temperatures = [config.student_temperature, config.teacher_temperature_at(ctx.step)];
        let centre = self.centre.of(&of_teacher, temperatures[1], in_parts, &ctx.ranks)?;
        let found = distillation(&said, &of_teacher, &centre, temperatures[0], temperatures[1]);
        let mut losses = Losses {
            stats: vec![
                ("teacher_entropy", found.entropy),
                ("teacher_divergence", found.divergence),
                ("descriptor_spread", spread),
                ("teacher_temperature", in_force(temperatures[1], &said)),
                ("teacher_momentum", in_force(config.momentum_at(ctx.step, ctx.total), &said)),
            ],
            ..Losses::of_term("distillation", found.loss)
        };
        if let (Some(patches), Some(hidden), Some(of_teacher)) = (&self.patches, &seen.hidden, &of_hidden) {
            let said = self.student.head_of_patches().forward(&hidden.tokens(&features), frozen);
            let centre = patches.centre.of(of_teacher, temperatures[1], in_parts, &ctx.ranks)?;
            let [loss, entropy] = hidden.distillation(&said, of_teacher, &centre, temperatures);
            losses.terms.push(("ibot", loss.detach()));
            losses.stats.push(("patch_teacher_entropy", entropy));
            let masked = hidden.share();
            losses
                .stats
                .push(("ibot_guess", &masked * f64::from(config.patch_prototypes()).ln()));
            losses.stats.push(("masked_crops", masked));
            // Not in place: the terms share the total's memory.
            losses.total = &losses.total + loss * config.ibot_weight;
        }
        Ok((losses, by_crop(&class_tokens)))
    }

    /// KoLeo over the class tokens 2×B×D of a batch, each crop by itself: two crops of an image may lie together.
    fn apart(&self, class_tokens: &Tensor) -> Losses {
        let spread = koleo(&class_tokens.get(0)) + koleo(&class_tokens.get(1));
        Losses {
            total: &spread * self.config.koleo_weight,
            ..Losses::of_term("koleo", spread)
        }
    }

    /// Descriptors without columns, where images are not compared.
    fn no_descriptors(&self, x: &StepInput) -> Tensor {
        Tensor::zeros([i64::from(GLOBAL_CROPS), x.len, 0], (Kind::Float, x.labels.device()))
    }
}

/// Class tokens (2·B)×D as 2×B×D, f32.
fn by_crop(class_tokens: &Tensor) -> Tensor {
    let d = class_tokens.size()[1];
    class_tokens.to_kind(Kind::Float).view([i64::from(GLOBAL_CROPS), -1, d])
}

/// Standard deviation of the directions M×D of each view of B images on all ranks, times √D: one number for `views` of them.
fn spread(described: &Tensor, views: u32, ranks: &Ranks) -> Result<Tensor, RanksError> {
    let d = described.size()[1];
    let directions = unit_rows(described).view([i64::from(views), -1, d]);
    let deviations = if ranks.world() == 1 {
        directions.std_dim(1, false, false)
    } else {
        let (var, mean) = directions.var_mean_dim([1i64].as_slice(), false, false);
        let all = ranks.gather(&Tensor::stack(&[var, mean], 0))?;
        // As many images on each rank: the mean of their variances, and what their means differ by.
        let mean = |of: i64| all.select(1, of).mean_dim([0i64].as_slice(), false, Kind::Float);
        (mean(0) + all.select(1, 1).var_dim([0i64].as_slice(), false, false)).sqrt()
    };
    Ok(deviations.mean(Kind::Float) * (d as f64).sqrt())
}

impl BetweenImages for Dino {
    fn descriptors(&self, x: &StepInput, ctx: &StepContext) -> Result<Tensor, ObjectiveError> {
        let _guard = tch::no_grad_guard();
        let seen = self.seen(x)?;
        self.begin(ctx);
        if self.config.centring == Centring::Sinkhorn {
            self.temperature.set(self.config.teacher_temperature_at(ctx.step));
            let features = self.teacher.features(&seen.global, false);
            let first = ctx.rows.begin_a_step();
            self.centre.gather(|| self.teacher.head.bottleneck(&features.select(1, 0)), first);
            if let (Some(patches), Some(hidden)) = (&self.patches, &seen.hidden) {
                let vectors = || self.teacher.head_of_patches().bottleneck(&hidden.tokens(&features));
                patches.centre.gather(vectors, first);
            }
        }
        Ok(if self.config.koleo_weight > 0.0 {
            by_crop(&self.student_features(&seen, ctx.train).select(1, 0))
        } else {
            self.no_descriptors(x)
        })
    }

    fn describe(&self, x: &StepInput, ctx: &StepContext) -> Result<(Losses, Tensor), ObjectiveError> {
        let (losses, class_tokens) = self.losses(x, ctx, ctx.rows.are_a_part())?;
        let compared = self.config.koleo_weight > 0.0;
        Ok((losses, if compared { class_tokens } else { self.no_descriptors(x) }))
    }

    fn compare(&self, descriptors: &Tensor, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let temperature = self.temperature.get();
        self.centre
            .settle(|vectors| self.teacher.head.outputs(vectors), temperature, &ctx.ranks)?;
        if let Some(patches) = &self.patches {
            let head = self.teacher.head_of_patches();
            patches.centre.settle(|vectors| head.outputs(vectors), temperature, &ctx.ranks)?;
        }
        if self.config.koleo_weight > 0.0 {
            return Ok(self.apart(descriptors));
        }
        // Nothing is compared: a sum of nothing, with a gradient of no columns.
        Ok(Losses {
            terms: vec![],
            ..Losses::of_term("koleo", descriptors.sum(Kind::Float))
        })
    }
}

impl Objective for Dino {
    fn forward(&self, x: &StepInput, ctx: &StepContext) -> Result<Losses, ObjectiveError> {
        let (mut losses, class_tokens) = self.losses(x, ctx, false)?;
        if self.config.koleo_weight > 0.0 {
            let compared = self.apart(&class_tokens);
            losses.total = &losses.total + compared.total;
            losses.terms.extend(compared.terms);
        }
        Ok(losses)
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
        self.config.koleo_weight = new.koleo_weight;
        self.config.ibot_weight = new.ibot_weight;
        Ok(())
    }

    /// KoLeo and Sinkhorn-Knopp see all images of a batch.
    fn between_images(&self) -> Option<&dyn BetweenImages> {
        let between = self.config.koleo_weight > 0.0 || self.config.centring == Centring::Sinkhorn;
        between.then_some(self)
    }

    fn after_step(&mut self, ctx: &StepContext, skipped: &Tensor) -> Result<(), ObjectiveError> {
        self.weights.update(self.config.momentum_at(ctx.step, ctx.total), skipped)?;
        let keep = self.config.centre_momentum;
        self.centre.after_step(keep, skipped, &ctx.ranks)?;
        if let Some(patches) = &mut self.patches {
            patches.centre.after_step(keep, skipped, &ctx.ranks)?;
        }
        Ok(())
    }

    fn frozen_until(&self, name: &str) -> u64 {
        let of_last_layer = name.starts_with("student.") && name.contains("head.last.");
        if of_last_layer { self.config.freeze_last_layer_steps } else { 0 }
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
