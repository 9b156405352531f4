//! `run.init_from`: weights that a new run starts from. Every tensor of the encoder is loaded, or the start is refused with the list of those that are not:
//! half an encoder trains on as if nothing were missing. Only positions may be of another image size; they are interpolated. Heads and decoders may be
//! new; a head that tells classes apart is taken whole from weights that learnt the same classes, or not at all. All of that is told.

mod class_head;
mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::{Tensor, nn};

use self::class_head::{ClassHead, NotTaken};
use self::file::{heads_of, objective_of, read};
use super::error::TrainError;
use crate::checkpoint;
use crate::model::config::VitConfig;
use crate::model::{grid_of_positions, grid_of_relative_bias, interpolate_positions, interpolate_relative_bias, is_backbone_name};
use crate::objective::Pool;
use crate::optim::EMA_PREFIX;
use crate::tensor::is_finite;

/// A new run, as far as weights to start from must know it.
pub(super) struct NewRun<'a> {
    /// Its geometry.
    pub(super) model: &'a VitConfig,
    /// Its parameters, drawn.
    pub(super) vars: &'a nn::VarStore,
    /// Whether tensors of the encoder that do not fit may stay at random.
    pub(super) partial: bool,
    /// Whether a parameter belongs to the head that tells classes apart.
    pub(super) is_class_head: &'a dyn Fn(&str) -> bool,
    /// Whether it belongs to that head or stands between it and the encoder.
    pub(super) is_head: &'a dyn Fn(&str) -> bool,
    /// Names of the classes that it learns; empty where it learns none or nobody names them.
    pub(super) classes: &'a [String],
    /// `objective.kind`.
    pub(super) kind: &'a str,
    /// What its head of classes sees of an image.
    pub(super) pool: Option<Pool>,
}

/// What a place of weights holds.
struct Source {
    /// The checkpoint folder or file itself.
    place: PathBuf,
    tensors: Vec<(String, Tensor)>,
    /// Names of the classes that its head tells apart; empty where it does not say.
    classes: Vec<String>,
    /// `objective.kind` and `objective.pool` of its training, where they are known.
    objective: [Option<String>; 2],
}

/// What became of the tensors; names in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// Tensors taken, as they were or interpolated.
    taken: usize,
    /// Tensors with the name of one of the encoder's, whether they fit or not.
    known: usize,
    /// Position tables of another image size: name and both sizes in patches a side.
    interpolated: Vec<String>,
    /// Tensors of the encoder that do not fit: name and why.
    unfit: Vec<String>,
    /// Parameters besides the encoder that start at random.
    fresh: Vec<String>,
    /// Tensors of the file besides the encoder that nothing takes.
    unused: Vec<String>,
}

fn bad(from: &Path, detail: String, hint: impl Into<String>) -> TrainError {
    TrainError::BadSetting {
        key: "run.init_from".into(),
        value: from.display().to_string(),
        detail,
        hint: Some(hint.into()),
    }
}

/// Refuses weights of another number of heads, unless `partial` allows what does not fit; says so where nobody knows.
fn check_heads(from: &Path, model: &VitConfig, partial: bool) -> Result<(), TrainError> {
    let ours = model.head_count();
    match heads_of(from) {
        Some(theirs) if theirs != ours && partial => {
            tracing::warn!("run.init_partial = true: the weights were trained with {theirs} heads of attention, model.heads is {ours}");
        }
        Some(theirs) if theirs != ours => {
            return Err(bad(
                from,
                format!("its attention has {theirs} heads, this config's has {ours}: the same tensors compute something else"),
                format!("set model.heads = {theirs}; or set run.init_partial = true to start from them all the same"),
            ));
        }
        Some(_) => {}
        None => tracing::info!(
            "{} does not say how many heads its attention has: {ours} are taken (model.heads)",
            from.display()
        ),
    }
    Ok(())
}

/// What may be named.
const READABLE: &str = "name a run folder, a checkpoint folder (RUN/checkpoints/step-…) or a .safetensors file";

/// The checkpoint folder that a place means: itself, or the newest good one of a run folder.
fn checkpoint_of(from: &Path) -> Result<PathBuf, TrainError> {
    let root = checkpoint::folder_of(from);
    if from.join("complete.json").exists() || !root.is_dir() {
        return Ok(from.to_owned());
    }
    let found = checkpoint::newest_good(&root)?;
    for passed_over in &found.bad {
        tracing::warn!("run.init_from: passed over: {}", passed_over.reason);
    }
    match found.good {
        Some(good) => Ok(good.folder),
        None => Err(bad(
            from,
            format!("none of the {} checkpoints in it can be read", found.bad.len()),
            READABLE,
        )),
    }
}

fn open(from: &Path) -> Result<Source, TrainError> {
    if !from.is_dir() {
        let tensors = read(from).map_err(|(detail, hint)| bad(from, detail, hint.unwrap_or_else(|| READABLE.into())))?;
        return Ok(Source {
            place: from.to_owned(),
            tensors,
            classes: vec![],
            objective: [None, None],
        });
    }
    let place = checkpoint_of(from)?;
    let unreadable = |e: checkpoint::CheckpointError| bad(from, e.to_string(), format!("{READABLE}, such as its model.safetensors alone"));
    let good = checkpoint::read(&place).map_err(unreadable)?;
    Ok(Source {
        tensors: good.weights().map_err(unreadable)?,
        classes: good.progress.classes,
        objective: objective_of(&place),
        place,
    })
}

/// Why the head of `source` is not to be the run's, whose parameters are `variables`.
fn head_not_taken(source: &Source, variables: &BTreeMap<String, Tensor>, run: &NewRun<'_>) -> Option<NotTaken> {
    let theirs = source.tensors.iter().map(|(name, tensor)| (name, tensor));
    let ours = ClassHead {
        kind: Some(run.kind),
        pool: run.pool.map(Pool::name),
        classes: run.classes,
        shapes: shapes(variables.iter(), run.is_head),
    };
    let [kind, pool] = source.objective.each_ref().map(Option::as_deref);
    ours.refuses(&ClassHead {
        kind,
        pool,
        classes: &source.classes,
        shapes: shapes(theirs, run.is_head),
    })
}

/// Shapes of those tensors that belong to a head.
fn shapes<'a>(tensors: impl Iterator<Item = (&'a String, &'a Tensor)>, is_head: &dyn Fn(&str) -> bool) -> BTreeMap<String, Vec<i64>> {
    let of_head = tensors.filter(|(name, _)| is_head(name));
    of_head.map(|(name, tensor)| (name.clone(), tensor.size())).collect()
}

/// Refuses a head of the same classes that is built otherwise, unless `partial` allows a new one; says so of any other that is not taken.
fn check_class_head(from: &Path, head: &NotTaken, partial: bool) -> Result<(), TrainError> {
    if head.same_classes && !partial {
        let hint = "or set run.init_partial = true to take the encoder and begin with a new head";
        return Err(bad(from, head.why.clone(), format!("{}; {hint}", head.remedy)));
    }
    tracing::warn!("{}", head.told(from));
    Ok(())
}

/// Puts the weights of a run's newest checkpoint, a checkpoint folder or a safetensors file in place of those that were drawn. With `run.partial` tensors
/// of the encoder that do not fit stay at random, and are listed.
///
/// # Errors
/// It cannot be read, does not hold the whole encoder, was trained with another number of heads, or tells the same classes apart by a head that is built
/// otherwise; then no weight was changed.
pub(super) fn load(from: &Path, run: &NewRun<'_>) -> Result<(), TrainError> {
    let source = open(from)?;
    let variables: BTreeMap<String, Tensor> = run.vars.variables().into_iter().collect();
    let head = head_not_taken(&source, &variables, run);
    let (model, partial, from) = (run.model, run.partial, source.place.as_path());
    // What lies between the encoder and a head of other classes serves this run's too.
    let is_left_out = |name: &str| match &head {
        Some(head) if head.same_classes => (run.is_head)(name),
        Some(_) => (run.is_class_head)(name),
        None => false,
    };
    let (left_out, tensors): (Vec<_>, Vec<_>) = source.tensors.into_iter().partition(|(name, _)| is_left_out(name));
    let (found, mut report) = fit(tensors, &variables);
    report.unused.extend(left_out.into_iter().map(|(name, _)| name));
    report.unused.sort();
    if report.known == 0 {
        return Err(bad(
            from,
            "none of its tensors has the name of one of this encoder".into(),
            format!("{READABLE}; `splitmask import` makes one of the weights of other libraries"),
        ));
    }
    let none_fits = found.keys().all(|name| !is_backbone_name(name));
    if !report.unfit.is_empty() && (none_fits || !partial) {
        let encoder = variables.keys().filter(|name| is_backbone_name(name)).count();
        return Err(bad(
            from,
            format!(
                "{} tensors of an encoder of {encoder} do not fit this config's [model]:\n  {}",
                report.unfit.len(),
                report.unfit.join("\n  ")
            ),
            match none_fits {
                true => "take the [model] that the weights are of",
                false => {
                    "take the [model] that the weights are of; or set run.init_partial = true to start these at random and load the rest"
                }
            },
        ));
    }
    check_heads(from, model, partial)?;
    let unusable = found.iter().find(|(_, tensor)| !is_finite(tensor));
    if let Some((name, _)) = unusable {
        return Err(bad(
            from,
            format!("{name} holds values that are not finite (NaN or infinite)"),
            "training could not take a single step from it; take an older checkpoint, or convert the file again",
        ));
    }
    head.as_ref().map(|head| check_class_head(from, head, partial)).transpose()?;
    tch::no_grad(|| -> Result<(), TrainError> {
        for (name, tensor) in &found {
            variables[name].shallow_clone().f_copy_(tensor)?;
        }
        Ok(())
    })?;
    tracing::info!(tensors = report.taken, from = %from.display(), "initialised from weights");
    for line in &report.interpolated {
        tracing::warn!("{line}");
    }
    if !report.unfit.is_empty() {
        tracing::warn!(
            "run.init_partial = true: tensors of the encoder that start at random or are not used: {}",
            report.unfit.join(", ")
        );
    }
    if !report.fresh.is_empty() {
        tracing::info!("new, at random: {}", listed(&report.fresh));
    }
    if !report.unused.is_empty() {
        tracing::info!("in {}, but not used: {}", from.display(), listed(&report.unused));
    }
    Ok(())
}

/// Sorted names of tensors on one line: many of one part as one, `decoder.* (30)`.
fn listed(names: &[String]) -> String {
    const EACH: usize = 12;
    if names.len() <= EACH {
        return names.join(", ");
    }
    let part = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
    let parts = names.chunk_by(|a, b| part(a) == part(b)).map(|of_part| match of_part {
        [name] => name.clone(),
        several => format!("{}.* ({})", part(&several[0]), several.len()),
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// Biases of query and key-value in the spelling that the model has: joined (`attn.qkv.bias`), or apart and without the key's.
fn respelt(tensors: &mut BTreeMap<String, Tensor>, variables: &BTreeMap<String, Tensor>) {
    for name in variables
        .keys()
        .filter(|name| !tensors.contains_key(*name))
        .cloned()
        .collect::<Vec<_>>()
    {
        if let Some(prefix) = name.strip_suffix("qkv.bias") {
            let (q, v) = (format!("{prefix}q_bias"), format!("{prefix}v_bias"));
            if let (Some(query), Some(value)) = (tensors.get(&q), tensors.get(&v))
                && query.size() == value.size()
            {
                let joined = Tensor::cat(&[query, &query.zeros_like(), value], 0);
                tensors.insert(name, joined);
            }
        } else if let Some(prefix) = name.strip_suffix("q_bias") {
            let joined = tensors
                .get(&format!("{prefix}qkv.bias"))
                .filter(|t| t.dim() == 1 && t.size()[0] % 3 == 0);
            if let Some(thirds) = joined.map(|t| t.chunk(3, 0)) {
                tensors.insert(format!("{prefix}v_bias"), thirds[2].shallow_clone());
                tensors.insert(name, thirds[0].shallow_clone());
            }
        }
    }
    // The other spelling is no tensor too many.
    let joined_here = variables.keys().any(|name| name.ends_with("attn.qkv.bias"));
    tensors.retain(|name, _| {
        let apart = name.ends_with("attn.q_bias") || name.ends_with("attn.v_bias");
        variables.contains_key(name) || !(apart && joined_here || name.ends_with("attn.qkv.bias") && !joined_here)
    });
}

/// Which tensors go where, each in the shape of its variable.
fn fit(tensors: Vec<(String, Tensor)>, variables: &BTreeMap<String, Tensor>) -> (BTreeMap<String, Tensor>, Report) {
    let raw = tensors.into_iter().filter(|(name, _)| !name.starts_with(EMA_PREFIX));
    let mut tensors: BTreeMap<String, Tensor> = raw.collect();
    respelt(&mut tensors, variables);
    let (mut found, mut report) = (BTreeMap::new(), Report::default());
    for (name, variable) in variables {
        let encoder = is_backbone_name(name);
        let want = variable.size();
        let tensor = tensors.remove(name);
        report.known += usize::from(encoder && tensor.is_some());
        match tensor {
            Some(tensor) if tensor.size() == want => drop(found.insert(name.clone(), tensor)),
            Some(tensor) => match resized(name, &tensor, &want) {
                Some((table, told)) => {
                    report.interpolated.push(told);
                    found.insert(name.clone(), table);
                }
                None if encoder => report
                    .unfit
                    .push(format!("{name}: {:?} in it, {want:?} in this model", tensor.size())),
                None => {
                    report.fresh.push(name.clone());
                    report.unused.push(name.clone());
                }
            },
            None if encoder => report.unfit.push(format!("{name}: not in it, {want:?} in this model")),
            None => report.fresh.push(name.clone()),
        }
    }
    for (name, tensor) in tensors {
        if is_backbone_name(&name) {
            report.unfit.push(format!("{name}: {:?} in it, not in this model", tensor.size()));
        } else {
            report.unused.push(name);
        }
    }
    report.taken = found.len();
    (found, report)
}

/// A position table of another image size in the size that is wanted, and what to say of it; `None` if it is none.
fn resized(name: &str, tensor: &Tensor, want: &[i64]) -> Option<(Tensor, String)> {
    let told = |from: i64, to: i64| format!("{name}: interpolated from {from} × {from} patches to {to} × {to}");
    match (name, &tensor.size()[..], want) {
        // The table of a decoder is resized as the encoder's is.
        (_, [1, rows, d], [1, wanted, e]) if name.ends_with("pos_embed") && d == e => {
            let (from, to) = (grid_of_positions(*rows)?, grid_of_positions(*wanted)?);
            Some((interpolate_positions(tensor, to), told(from, to)))
        }
        (_, [rows, heads], [wanted, others]) if name.ends_with("relative_position_bias_table") && heads == others => {
            let (from, to) = (grid_of_relative_bias(*rows)?, grid_of_relative_bias(*wanted)?);
            Some((interpolate_relative_bias(tensor, to), told(from, to)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
