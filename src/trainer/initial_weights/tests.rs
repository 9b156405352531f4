//! Weights to start from: what is taken, interpolated, refused.

mod class_heads;

use tch::{Device, Kind};

use super::*;
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

/// A run that learns no classes.
fn load(from: &Path, model: &VitConfig, vars: &nn::VarStore, partial: bool) -> Result<(), TrainError> {
    load_into(from, model, vars, partial, &[])
}

/// A run that learns `classes`, with a head of that name.
fn load_into(from: &Path, model: &VitConfig, vars: &nn::VarStore, partial: bool, classes: &[String]) -> Result<(), TrainError> {
    let run = NewRun {
        model,
        vars,
        partial,
        is_class_head: &|name| name.starts_with("head"),
        is_head: &|name| name.starts_with("head"),
        classes,
        kind: "classify",
        pool: None,
    };
    super::load(from, &run)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Writes a checkpoint of a run that learnt `classes`, and answers its folder.
fn checkpoint_in(run: &Path, vars: &nn::VarStore, classes: &[String]) -> PathBuf {
    checkpoint_of_config(run, vars, classes, "")
}

fn checkpoint_of_config(run: &Path, vars: &nn::VarStore, classes: &[String], config: &str) -> PathBuf {
    let snapshot = checkpoint::Snapshot {
        model: vars.variables().into_iter().collect(),
        optimizer: vec![("step.head".into(), Tensor::from(1f32))],
        progress: serde_json::from_value(serde_json::json!({
            "step": 7, "cursor": splitmask_pipeline::cursor::Cursor::default(), "counters": {}, "meter": {}, "word_counts": [], "token_entropy": 0.0,
            "codebook_perplexity": 0.0, "codebook": "", "classes": classes,
        }))
        .unwrap(),
        config_toml: config.into(),
    };
    checkpoint::save(&checkpoint::folder_of(run), &snapshot).unwrap()
}

fn attempt(from: &nn::VarStore, to: &nn::VarStore, partial: bool) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("start.safetensors");
    saved(from, &file);
    load(&file, &model(|_| {}), to, partial).map_err(|e| e.to_string())
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
fn weights_of_another_number_of_heads_are_refused_where_a_config_lies_with_them() {
    let _turn = crate::tensor::alone();
    let (two, four) = (model(|_| {}), model(|m| m.heads = 4));
    let from = vars(&two, QkvBias::Full, &[]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    saved(&from, &file);
    let attempt = |model: &VitConfig, partial: bool| {
        let to = vars(model, QkvBias::Full, &[]);
        load(&file, model, &to, partial).map_err(|e| e.to_string())
    };
    attempt(&four, false).expect("nobody knows");
    for (name, text) in [
        ("config.toml", "[model]\nimage = 16\npatch = 4\nwidth = 16\ndepth = 2\nheads = 2\n"),
        ("config.json", "{\"num_attention_heads\": 2}"),
        ("config.json", "{\"model_args\": {\"num_heads\": 2}}"),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
        attempt(&two, false).unwrap();
        let refused = attempt(&four, false).unwrap_err();
        assert!(refused.contains("2 heads, this config's has 4"), "{refused}");
        attempt(&four, true).unwrap();
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
}

#[test]
fn what_is_no_file_of_weights_is_refused_in_words() {
    let _turn = crate::tensor::alone();
    let to = vars(&model(|_| {}), QkvBias::Full, &[]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("words.safetensors");
    Tensor::write_safetensors(&[("usage", Tensor::zeros([4], (Kind::Int64, Device::Cpu)))], &file).unwrap();
    let words = load(&file, &model(|_| {}), &to, false).unwrap_err().to_string();
    assert!(words.contains("usage is of type I64, which no weight is"), "{words}");
    for (content, told) in [
        (&b"abc"[..], "no safetensors file"),
        (b"\x02\0\0\0\0\0\0\0{]", "no safetensors file"),
    ] {
        std::fs::write(&file, content).unwrap();
        let words = load(&file, &model(|_| {}), &to, false).unwrap_err().to_string();
        assert!(words.contains(told), "{words}");
    }
}

#[test]
fn a_file_without_an_encoder_is_refused_even_in_part() {
    let _turn = crate::tensor::alone();
    let to = vars(&model(|_| {}), QkvBias::Full, &["mim_head"]);
    let other = nn::VarStore::new(Device::Cpu);
    let _head = crate::model::parameter(&other.root(), "mim_head", &[4, 4], Init::Const(0.1));
    assert!(attempt(&other, &to, true).unwrap_err().contains("none of its tensors has the name"));
    assert!(
        load(Path::new("nowhere"), &model(|_| {}), &to, true)
            .unwrap_err()
            .hint()
            .unwrap()
            .contains(".safetensors")
    );
}

#[test]
fn a_head_of_classes_is_taken_from_a_run_of_the_same_classes_alone() {
    let _turn = crate::tensor::alone();
    let plain = model(|_| {});
    let from = vars(&plain, QkvBias::Full, &["head", "mim_head"]);
    let _ = tch::no_grad(|| of(&from, "head").fill_(7.0));
    let dir = tempfile::tempdir().unwrap();
    let folder = checkpoint_in(dir.path(), &from, &names(&["cat", "dog"]));
    // A run folder means its newest checkpoint.
    for (place, classes, taken) in [
        (dir.path(), names(&["cat", "dog"]), true),
        (folder.as_path(), names(&["cat", "dog"]), true),
        (dir.path(), names(&["dog", "cat"]), false),
        (dir.path(), names(&["cat", "dog", "fish"]), false),
        (dir.path(), vec![], false),
    ] {
        let to = vars(&plain, QkvBias::Full, &["head"]);
        let drawn = of(&to, "head").copy();
        load_into(place, &plain, &to, false, &classes).unwrap();
        assert_eq!(of(&to, "cls_token"), of(&from, "cls_token"));
        let want = if taken { of(&from, "head") } else { drawn };
        assert_eq!(of(&to, "head"), want, "{classes:?}");
    }
    // A file of weights does not say which classes they are.
    let file = dir.path().join("weights.safetensors");
    saved(&from, &file);
    let to = vars(&plain, QkvBias::Full, &["head"]);
    load_into(&file, &plain, &to, false, &names(&["cat", "dog"])).unwrap();
    assert_eq!(of(&to, "head").double_value(&[0, 0]), 0.5);
    // Without a checkpoint that can be read there is nothing to start from.
    std::fs::write(folder.join("model.safetensors"), "cut").unwrap();
    let refused = load_into(dir.path(), &plain, &to, false, &[]).unwrap_err();
    assert!(
        refused.to_string().contains("none of the 1 checkpoints in it can be read"),
        "{refused}"
    );
}

#[test]
fn many_names_of_one_part_are_told_as_one() {
    assert_eq!(listed(&["head.bias", "head.weight"].map(String::from)), "head.bias, head.weight");
    let mut many: Vec<String> = (10..25).map(|n| format!("decoder.{n}.weight")).collect();
    many.insert(0, "centre".into());
    many.push("head.bias".into());
    assert_eq!(listed(&many), "centre, decoder.* (15), head.bias");
}
