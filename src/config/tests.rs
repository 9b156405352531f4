//! Layers, differences, explanations.

mod objective;
mod recipes;
mod refusals;

use std::path::PathBuf;

use super::*;
use crate::objective::OBJECTIVES;

const GOOD: &str = "[data]\ntrain = \"shards\"\n[codebook]\npath = \"words.safetensors\"\n";

fn source(sets: &[&str], environment: &[(&str, &str)]) -> Source {
    Source {
        file: PathBuf::from("demo.toml"),
        environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        sets: sets.iter().map(|s| (*s).to_owned()).collect(),
        remarks: vec![],
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    source(&[], &[]).load_text(text).map(|(config, _)| config)
}

fn refused(text: &str) -> String {
    load(text).expect_err("must be refused").to_string()
}

#[test]
fn later_layers_win() {
    let text = format!("{GOOD}[optim]\nlr = 1e-3\nclip = 1\nbeta1 = 0.8\n");
    let source = source(
        &["optim.lr=3e-3"],
        &[("SPLITMASK_OPTIM__LR", "2e-3"), ("SPLITMASK_OPTIM__CLIP", "2")],
    );
    let (config, places) = source.load_text(&text).unwrap();
    assert_eq!(
        (config.optim.lr, config.optim.clip, config.optim.beta1, config.optim.beta2),
        (3e-3, 2.0, 0.8, 0.999)
    );
    assert_eq!(places["optim.lr"], Place::CommandLine);
    assert_eq!(places["optim.clip"], Place::Environment("SPLITMASK_OPTIM__CLIP".into()));
    assert_eq!(places["optim.beta1"].to_string(), "demo.toml:8:1");
    assert!(!places.contains_key("optim.beta2"));
}

#[test]
fn a_kind_that_is_replaced_chooses_nothing() {
    let text = format!("{GOOD}[objective]\nkind = \"splitmask\"\n");
    let (config, places) = source(&["objective.kind=beit"], &[]).load_text(&text).unwrap();
    assert_eq!(
        (config.objective.kind().name, &places["objective.kind"]),
        ("beit", &Place::CommandLine)
    );
    let text = format!("{text}match = true\n");
    let error = source(&["objective.kind=beit"], &[]).load_text(&text).unwrap_err().to_string();
    assert!(error.contains("objective.match") && !error.contains("unknown field"), "{error}");
}

#[test]
fn bare_text_sets_strings_and_only_those() {
    let config = source(&["data.val=s3://bucket/val", "run.name=007", "admin.lifecycle=true"], &[])
        .load_text(GOOD)
        .unwrap()
        .0;
    assert_eq!(
        (config.data.val.as_str(), config.run.name.as_str(), config.admin.lifecycle),
        ("s3://bucket/val", "007", true)
    );
    let error = source(&["optim.lr=fast"], &[]).load_text(GOOD).unwrap_err().to_string();
    assert_eq!(
        error,
        "command line: optim.lr = \"fast\": expected a number, found string: peak learning rate (the default is 0.0015)"
    );
}

#[test]
fn effective_config_loads_back_equal() {
    for kind in OBJECTIVES {
        let kind = kind.name;
        let config = load(&format!(
            "{GOOD}[objective]\nkind = \"{kind}\"\n[augment.crop]\narea = [0.1, 0.9]\n"
        ))
        .unwrap();
        let again = load(&config.to_toml()).unwrap();
        assert_eq!(config, again);
        assert_eq!(config.sha256(), again.sha256());
        assert!(config.to_toml().contains("area = [0.1, 0.9]"), "{}", config.to_toml());
    }
}

#[test]
fn spelling_of_the_file_does_not_change_the_digest() {
    let a = load(&format!("{GOOD}[optim]\nlr = 0.001\nclip = 3\n")).unwrap();
    let b = load(&format!("# note\n{GOOD}[optim]\nclip = 3.0\nlr = 1e-3\n")).unwrap();
    assert_eq!(a.sha256(), b.sha256());
    assert!(diff(&a, &b).is_empty());
}

#[test]
fn differences_carry_their_class() {
    let old = load(GOOD).unwrap();
    let text = format!("{GOOD}[optim]\nlr = 1e-3\n[pipeline]\nworkers = 3\n[train]\nbatch = 64\n[model]\ndepth = 6\n");
    let changes = diff(&old, &load(&text).unwrap());
    let got: Vec<(&str, &str, &str, Class)> = changes
        .iter()
        .map(|c| (c.path.as_str(), c.old.as_str(), c.new.as_str(), c.class))
        .collect();
    let want = [
        ("model.depth", "0", "6", Class::Frozen),
        ("optim.lr", "0.0015", "0.001", Class::Live),
        ("pipeline.workers", "0", "3", Class::Rebuild),
        ("train.batch", "128", "64", Class::Restart),
    ];
    assert_eq!(got, want);
    assert_eq!(diff::strongest(&changes), Some(Class::Frozen));
    assert_eq!(diff::strongest(&changes[1..]), Some(Class::Restart));
}

#[test]
fn mask_of_another_kind_changes_by_restart_and_objective_is_frozen() {
    let old = load(GOOD).unwrap();
    let uniform = load(&format!("{GOOD}[objective.mask]\nkind = \"uniform-split\"\nkeep = 0.25\n")).unwrap();
    let changes = diff(&old, &uniform);
    assert_eq!(diff::strongest(&changes), Some(Class::Restart));
    assert!(
        changes
            .iter()
            .any(|c| c.path == "objective.mask.keep" && c.old == "absent" && c.new == "0.25"),
        "{changes:?}"
    );
    let beit = load(&format!("{GOOD}[objective]\nkind = \"beit\"\n")).unwrap();
    assert_eq!(diff::strongest(&diff(&old, &beit)), Some(Class::Frozen));
}

#[test]
fn stored_configs_of_other_versions_are_compared_by_meaning() {
    let new = load(GOOD).unwrap();
    assert_eq!(diff::diff_stored(&new.to_toml(), &new).unwrap(), []);
    let older = new
        .to_toml()
        .replace("layer_decay = 1.0\n", "")
        .replace("clip = 3.0\n", "clip = 2.0\nretired = 4\n");
    assert!(older.len() != new.to_toml().len());
    let changes = diff::diff_stored(&older, &new).unwrap();
    assert_eq!(
        changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["optim.clip 2.0 → 3.0 (live)"]
    );
    let elsewhere = load(&format!("{GOOD}[run]\ndir = \"moved\"\n")).unwrap();
    assert_eq!(diff::diff_stored(&new.to_toml(), &elsewhere).unwrap(), []);
}

#[test]
fn explanation_names_values_facts_and_oddities() {
    let source = source(&["pipeline.queue_mib=10"], &[]);
    let (config, places) = source.load_text(GOOD).unwrap();
    let text = explain::explain(&Loaded {
        config,
        places,
        file_sha256: String::new(),
        shadowed: Default::default(),
    });
    for fragment in [
        "data.train = \"shards\"  [rebuild]  demo.toml:2:1",
        "pipeline.queue_mib = 10  [rebuild]  command line",
        "187500 steps × 128 images = 24000000 images",
        "warning: one batch takes 19 MiB",
    ] {
        assert!(text.contains(fragment), "{fragment:?} not in\n{text}");
    }
    assert!(!text.contains("optim.lr"), "defaults are not listed:\n{text}");
}

#[test]
fn a_key_of_an_older_version_is_taken_under_its_new_name() {
    let source = Source::default();
    let (config, _) = source
        .load_text("[codebook]\npath = \"w\"\n[data]\ntrain = \"t\"\n[train]\nnonfinite_limit = 7\n")
        .unwrap();
    assert_eq!(config.stability.nonfinite_run, 7);
}

#[test]
fn a_variable_with_one_underscore_is_known_by_its_table() {
    let meant = |name: &str| super::load::meant(name);
    assert_eq!(meant("SPLITMASK_OPTIM_LR").as_deref(), Some("optim.lr"));
    assert_eq!(meant("SPLITMASK_DATA_MAX_PIXELS").as_deref(), Some("data.max_pixels"));
    assert_eq!(meant("SPLITMASK_OPTIM_LRR").as_deref(), Some("optim.lrr"));
    assert_eq!(
        [meant("SPLITMASK_CACHE"), meant("SPLITMASK_UPDATE_DOCS"), meant("PATH")],
        [None, None, None]
    );
}
