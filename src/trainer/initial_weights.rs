//! `run.init_from`: weights that a new run starts from. Every tensor of the encoder is loaded, or the start is refused with the list of those that are not:
//! half an encoder trains on as if nothing were missing. Only positions may be of another image size; they are interpolated. Heads and decoders may be
//! new; a head that tells classes apart is, unless the weights learnt the same classes. All of that is told.

mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::{Tensor, nn};

use self::file::{heads_of, read};
use super::error::TrainError;
use crate::checkpoint;
use crate::model::config::VitConfig;
use crate::model::{grid_of_positions, grid_of_relative_bias, interpolate_positions, interpolate_relative_bias, is_backbone_name};
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
    /// Names of the classes that it learns; empty where it learns none or nobody names them.
    pub(super) classes: &'a [String],
}

/// What a place of weights holds.
struct Source {
    /// The checkpoint folder or file itself.
    place: PathBuf,
    tensors: Vec<(String, Tensor)>,
    /// Names of the classes that its head tells apart; empty where it does not say.
    classes: Vec<String>,
}

/// What became of the tensors; names in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// Tensors taken, as they were or interpolated.
    taken: usize,
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
        });
    }
    let place = checkpoint_of(from)?;
    let unreadable = |e: checkpoint::CheckpointError| bad(from, e.to_string(), format!("{READABLE}, such as its model.safetensors alone"));
    let good = checkpoint::read(&place).map_err(unreadable)?;
    Ok(Source {
        tensors: good.weights().map_err(unreadable)?,
        classes: good.progress.classes,
        place,
    })
}

/// Takes the tensors of a head out that tells other classes apart than `run`, or nobody knows which; answers their names. Says why.
fn without_other_classes(source: &mut Source, run: &NewRun<'_>) -> Vec<String> {
    let (theirs, ours) = (&source.classes, run.classes);
    if !ours.is_empty() && theirs == ours {
        return vec![];
    }
    let (out, kept) = std::mem::take(&mut source.tensors)
        .into_iter()
        .partition(|(name, _)| (run.is_class_head)(name));
    source.tensors = kept;
    let out: Vec<(String, Tensor)> = out;
    if let Some((_, head)) = out.iter().find(|(name, _)| name == "head.weight") {
        let (place, outputs) = (source.place.display(), head.size()[0]);
        let first = |names: &[String]| names.first().map_or_else(String::new, |name| format!(", from {name:?}"));
        if theirs.is_empty() || ours.is_empty() {
            tracing::warn!(
                "{place} does not say which classes its head of {outputs} outputs tells apart, or this run does not know its own: a new head"
            );
        } else {
            tracing::warn!(
                "the head of {place} tells other classes apart ({}{}) than this run ({}{}): a new head",
                theirs.len(),
                first(theirs),
                ours.len(),
                first(ours)
            );
        }
    }
    out.into_iter().map(|(name, _)| name).collect()
}

/// Refuses a head of another kind that tells the same classes apart, unless `run.init_partial` allows a new one: somebody who names such weights thinks of
/// that head.
fn check_kind_of_head(source: &Source, run: &NewRun<'_>) -> Result<(), TrainError> {
    let variables = run.vars.variables();
    let ours = || variables.keys().filter(|name| (run.is_class_head)(name));
    let theirs: Vec<&String> = source
        .tensors
        .iter()
        .map(|(name, _)| name)
        .filter(|name| (run.is_class_head)(name))
        .collect();
    let (Some(first), Some(their_first)) = (ours().min(), theirs.iter().min()) else {
        return Ok(());
    };
    if theirs.iter().any(|name| variables.contains_key(*name)) {
        return Ok(());
    }
    let detail = format!(
        "its head tells the same {} classes apart and is of another kind (it has {their_first}, this run {first})",
        run.classes.len()
    );
    if run.partial {
        tracing::warn!(
            "{}: {detail}: a new head, as run.init_partial = true allows",
            source.place.display()
        );
        return Ok(());
    }
    Err(bad(
        &source.place,
        detail,
        "set objective.head to that of the weights; or set run.init_partial = true to take the encoder and begin with a new head",
    ))
}

/// Puts the weights of a run's newest checkpoint, a checkpoint folder or a safetensors file in place of those that were drawn. With `run.partial` tensors
/// of the encoder that do not fit stay at random, and are listed.
///
/// # Errors
/// It cannot be read, does not hold the whole encoder, or was trained with another number of heads; then no weight was changed.
pub(super) fn load(from: &Path, run: &NewRun<'_>) -> Result<(), TrainError> {
    let mut source = open(from)?;
    let left_out = without_other_classes(&mut source, run);
    check_kind_of_head(&source, run)?;
    let (model, partial, from) = (run.model, run.partial, source.place.as_path());
    let variables: BTreeMap<String, Tensor> = run.vars.variables().into_iter().collect();
    let (found, mut report) = fit(source.tensors, &variables);
    report.unused.extend(left_out);
    report.unused.sort();
    if found.keys().all(|name| !is_backbone_name(name)) {
        return Err(bad(
            from,
            format!("it holds no tensor of this encoder; {}", report.unfit.join("; ")),
            format!("{READABLE}; `splitmask import` makes one of the weights of other libraries"),
        ));
    }
    if !report.unfit.is_empty() && !partial {
        let encoder = variables.keys().filter(|name| is_backbone_name(name)).count();
        return Err(bad(
            from,
            format!(
                "{} tensors of an encoder of {encoder} do not fit this config's [model]:\n  {}",
                report.unfit.len(),
                report.unfit.join("\n  ")
            ),
            "take the [model] that the weights are of; or set run.init_partial = true to start these at random and load the rest",
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
    let listed = |names: &[String]| names.join(", ");
    if !report.unfit.is_empty() {
        tracing::warn!(
            "run.init_partial = true: tensors of the encoder that start at random or are not used: {}",
            listed(&report.unfit)
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
        match tensors.remove(name) {
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
