//! `run.init_from`: weights that a new run starts from. Every tensor of the encoder is loaded, or the start is refused with the list of those that are not:
//! half an encoder trains on as if nothing were missing. Only positions may be of another image size; they are interpolated. Heads and decoders may be
//! new. All of that is told.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Tensor, nn};

use super::error::TrainError;
use crate::checkpoint;
use crate::model::{grid_of_positions, grid_of_relative_bias, interpolate_positions, interpolate_relative_bias, is_backbone_name};
use crate::optim::EMA_PREFIX;
use crate::tensor::is_finite;

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

/// Puts the weights of a checkpoint folder or safetensors file in place of those that were drawn. With `partial` tensors of the encoder that do not fit
/// stay at random, and are listed.
///
/// # Errors
/// It cannot be read, or does not hold the whole encoder; then no weight was changed.
pub(super) fn load(from: &Path, vars: &nn::VarStore, partial: bool) -> Result<(), TrainError> {
    let readable = "name a checkpoint folder (RUN/checkpoints/step-…) or a .safetensors file";
    let tensors = if from.is_dir() {
        checkpoint::load_model(from).map_err(|e| bad(from, e.to_string(), format!("{readable}, such as its model.safetensors alone")))?
    } else {
        Tensor::read_safetensors(from).map_err(|e| bad(from, e.to_string(), readable))?
    };
    let variables: BTreeMap<String, Tensor> = vars.variables().into_iter().collect();
    let (found, report) = fit(tensors, &variables);
    if found.keys().all(|name| !is_backbone_name(name)) {
        return Err(bad(
            from,
            format!("it holds no tensor of this encoder; {}", report.unfit.join("; ")),
            readable,
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
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::model::config::VitConfig;
    use crate::model::{Init, QkvBias, Vit, VitOptions};

    fn model(change: impl FnOnce(&mut VitConfig)) -> VitConfig {
        let mut config = VitConfig {
            image: 16,
            patch: 4,
            width: 16,
            depth: 2,
            heads: 2,
            ..VitConfig::default()
        };
        change(&mut config);
        config
    }

    fn vars(config: &VitConfig, qkv_bias: QkvBias, heads: &[&str]) -> nn::VarStore {
        let vars = nn::VarStore::new(Device::Cpu);
        let options = VitOptions {
            qkv_bias,
            ..VitOptions::plain(0.0)
        };
        let _vit = Vit::with(&vars.root(), config, &options);
        for head in heads {
            let _head = crate::model::parameter(&vars.root(), head, &[4, 4], Init::Const(0.5));
        }
        vars
    }

    fn saved(vars: &nn::VarStore, path: &Path) {
        let mut all: Vec<(String, Tensor)> = vars.variables().into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Tensor::write_safetensors(&all, path).unwrap();
    }

    fn attempt(from: &nn::VarStore, to: &nn::VarStore, partial: bool) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("start.safetensors");
        saved(from, &file);
        load(&file, to, partial).map_err(|e| e.to_string())
    }

    fn of(vars: &nn::VarStore, name: &str) -> Tensor {
        vars.variables()[name].shallow_clone()
    }

    #[test]
    fn an_encoder_that_fits_is_taken_whole_and_heads_may_be_new() {
        let _turn = crate::tensor::alone();
        let plain = model(|_| {});
        let (from, to) = (
            vars(&plain, QkvBias::Full, &["mim_head"]),
            vars(&plain, QkvBias::Full, &["match_head"]),
        );
        assert_ne!(of(&from, "pos_embed"), of(&to, "pos_embed"));
        attempt(&from, &to, false).unwrap();
        for (name, tensor) in BTreeMap::from_iter(from.variables()) {
            assert!(name == "mim_head" || tensor == of(&to, &name), "{name}");
        }
    }

    #[test]
    fn weights_that_are_not_finite_are_refused_by_name() {
        let _turn = crate::tensor::alone();
        let plain = model(|_| {});
        for bad in [f64::NAN, f64::INFINITY] {
            let (from, to) = (vars(&plain, QkvBias::Full, &[]), vars(&plain, QkvBias::Full, &[]));
            let before = of(&to, "cls_token").copy();
            let _ = tch::no_grad(|| of(&from, "blocks.0.attn.qkv.weight").get(0).get(0).fill_(bad));
            let refused = attempt(&from, &to, true).unwrap_err();
            assert!(
                refused.contains("blocks.0.attn.qkv.weight holds values that are not finite"),
                "{refused}"
            );
            assert_eq!(of(&to, "cls_token"), before);
        }
    }

    #[test]
    fn each_other_geometry_is_refused_with_the_tensors_and_both_shapes() {
        let _turn = crate::tensor::alone();
        let from = vars(&model(|_| {}), QkvBias::Full, &[]);
        let cases: [(&str, VitConfig, &[&str]); 6] = [
            (
                "mlp",
                model(|m| m.mlp_ratio = 2.0),
                &["blocks.0.mlp.fc1.weight: [64, 16] in it, [32, 16] in this model"],
            ),
            (
                "deeper",
                model(|m| m.depth = 3),
                &["blocks.2.norm1.weight: not in it, [16] in this model"],
            ),
            (
                "shallower",
                model(|m| m.depth = 1),
                &["blocks.1.mlp.fc2.bias: [16] in it, not in this model"],
            ),
            (
                "patch",
                model(|m| m.patch = 8),
                &["patch_embed.proj.weight: [16, 3, 4, 4] in it, [16, 3, 8, 8]"],
            ),
            (
                "width",
                model(|m| m.width = 32),
                &["norm.weight: [16] in it, [32]", "pos_embed: [1, 17, 16] in it"],
            ),
            ("scale", model(|m| m.layer_scale = 0.1), &["blocks.0.ls1.gamma: not in it"]),
        ];
        for (what, config, told) in cases {
            let to = vars(&config, QkvBias::Full, &[]);
            let before: BTreeMap<String, Tensor> = to.variables().into_iter().map(|(name, t)| (name, t.copy())).collect();
            let error = attempt(&from, &to, false).unwrap_err();
            for words in told {
                assert!(error.contains(words), "{what}: {error}");
            }
            assert!(
                before.iter().all(|(name, t)| *t == of(&to, name)),
                "{what}: a refused start changes nothing"
            );
            if what != "width" {
                attempt(&from, &to, true).unwrap();
                assert_eq!(of(&to, "blocks.0.attn.qkv.weight"), of(&from, "blocks.0.attn.qkv.weight"), "{what}");
            }
        }
    }

    #[test]
    fn positions_and_relative_biases_of_another_image_size_are_interpolated() {
        let _turn = crate::tensor::alone();
        let relative = |image| model(|m| (m.image, m.relative_bias) = (image, true));
        let (from, to) = (vars(&relative(16), QkvBias::Full, &[]), vars(&relative(24), QkvBias::Full, &[]));
        let table = "rel_pos_bias.relative_position_bias_table";
        tch::no_grad(|| of(&from, table).copy_(&Tensor::randn([52, 2], (Kind::Float, Device::Cpu))));
        attempt(&from, &to, false).unwrap();
        assert_eq!(of(&to, "pos_embed"), interpolate_positions(&of(&from, "pos_embed"), 6));
        assert_eq!(of(&to, table), interpolate_relative_bias(&of(&from, table), 6));
        // Only one of the two models has the table.
        let without = vars(&model(|_| {}), QkvBias::Full, &[]);
        for (from, to) in [(&without, &from), (&from, &without)] {
            assert!(attempt(from, to, false).unwrap_err().contains(table));
        }
    }

    #[test]
    fn biases_are_taken_in_either_spelling() {
        let _turn = crate::tensor::alone();
        let plain = model(|_| {});
        let (joined, apart) = (vars(&plain, QkvBias::Full, &[]), vars(&plain, QkvBias::QueryValue, &[]));
        tch::no_grad(|| of(&joined, "blocks.1.attn.qkv.bias").copy_(&Tensor::arange(48, (Kind::Float, Device::Cpu))));
        attempt(&joined, &apart, false).unwrap();
        assert_eq!(of(&apart, "blocks.1.attn.v_bias").double_value(&[0]), 32.0);
        let back = vars(&plain, QkvBias::Full, &[]);
        attempt(&apart, &back, false).unwrap();
        let bias = of(&back, "blocks.1.attn.qkv.bias");
        assert_eq!(
            [1, 17, 33].map(|i| bias.double_value(&[i])),
            [1.0, 0.0, 33.0],
            "BEiT has no bias of the key"
        );
    }

    #[test]
    fn a_file_without_an_encoder_is_refused_even_in_part() {
        let _turn = crate::tensor::alone();
        let to = vars(&model(|_| {}), QkvBias::Full, &["mim_head"]);
        let other = nn::VarStore::new(Device::Cpu);
        let _head = crate::model::parameter(&other.root(), "mim_head", &[4, 4], Init::Const(0.1));
        assert!(attempt(&other, &to, true).unwrap_err().contains("no tensor of this encoder"));
        assert!(
            load(Path::new("nowhere"), &to, true)
                .unwrap_err()
                .hint()
                .unwrap()
                .contains(".safetensors")
        );
    }
}
