use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use splitmask_pipeline::cursor::Cursor;
use tch::{Device, Kind, Tensor};

use super::files::{COMPLETE, CONFIG, FILES, MODEL, OPTIMIZER, PROGRESS};
use super::*;
use crate::eval::config::Watched;
use crate::eval::patience::{Patience, Way};

fn snapshot(step: u64) -> Snapshot {
    let t = |v: f64| Tensor::full([3], v, (Kind::Float, Device::Cpu));
    Snapshot {
        model: vec![("a.weight".into(), t(step as f64))],
        optimizer: vec![("a.weight.exp_avg".into(), t(0.5))],
        progress: Progress {
            step,
            cursor: Cursor::default(),
            cursors: vec![],
            counters: BTreeMap::from([("steps".into(), step as f64)]),
            meter: BTreeMap::from([("total".into(), 0.1)]),
            word_counts: vec![1, 2],
            token_entropy: 1.5,
            codebook_perplexity: 4.5,
            codebook: "c0de".into(),
            classes: vec![],
            patience: Patience::default(),
            shards: String::new(),
            collapsed: BTreeMap::new(),
            stability: Stability::default(),
            micro_batches: 0,
        },
        config_toml: "[run]\n".into(),
    }
}

fn newest_step(root: &Path) -> Option<u64> {
    newest_good(root).unwrap().good.map(|good| good.progress.step)
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let want = snapshot(7);
    let path = save(dir.path(), &want).unwrap();
    let have = load(&path).unwrap();
    assert_eq!(have.progress, want.progress);
    assert_eq!(have.model[0].0, "a.weight");
    assert_eq!(have.model[0].1, want.model[0].1);
    assert_eq!(have.config_toml, want.config_toml);
}

/// Any bits, the odd ones often.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        prop_oneof![
            Just(f64::NAN),
            Just(-f64::NAN),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(-0.0)
        ],
        -20.0..20.0f64,
    ]
}

fn numbers() -> impl Strategy<Value = BTreeMap<String, f64>> {
    proptest::collection::btree_map("[a-z_{}=\"]{0,12}", number(), 0..6)
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>()).prop_map(|(epoch, member, taken, before)| Cursor {
        epoch,
        member,
        taken,
        before,
        ..Cursor::default()
    })
}

prop_compose! {
    fn rollback()(numbers in any::<[u64; 4]>(), from in cursor(), to in cursor(), reason in ".{0,20}") -> Rollback {
        let [consumed, from_step, to_step, first_bad_step] = numbers;
        Rollback { consumed, from_step, to_step, first_bad_step, reason, skipped_from: from, skipped_to: to }
    }
}

prop_compose! {
    fn stability()(
        consumed: u64,
        judged: u64,
        recent in proptest::collection::vec_deque(proptest::option::of((number(), number())), 0..9),
        rollbacks in proptest::collection::vec(rollback(), 0..3),
    ) -> Stability {
        Stability { consumed, judged, recent, rollbacks }
    }
}

prop_compose! {
    fn progress()(
        (step, micro_batches) in (0..10_000_000u64, any::<u32>()),
        cursor in cursor(),
        (counters, meter) in (numbers(), numbers()),
        word_counts in proptest::collection::vec(any::<u64>(), 0..9),
        (token_entropy, codebook_perplexity) in (number(), number()),
        (codebook, shards, classes) in (".{0,9}", ".{0,9}", proptest::collection::vec(".{0,5}", 0..3)),
        collapsed in proptest::collection::btree_map("[a-z]{1,5}", any::<u64>(), 0..3),
        (loss, best, since) in (any::<bool>(), proptest::option::of((number(), any::<u64>())), any::<u32>()),
        stability in stability(),
    ) -> Progress {
        let watched = if loss { Watched::Loss } else { Watched::Knn };
        let patience = Patience { watched, way: Way::default(), best, since };
        Progress { step, cursor, cursors: vec![], counters, meter, word_counts, token_entropy, codebook_perplexity, codebook, classes, shards, patience, collapsed, stability, micro_batches }
    }
}

/// NaN equals itself here, if its bits do.
fn bits(progress: &Progress) -> String {
    let Progress {
        counters,
        meter,
        patience,
        stability,
        ..
    } = progress;
    let map = |all: &BTreeMap<String, f64>| all.iter().map(|(k, v)| (k.clone(), v.to_bits())).collect::<Vec<_>>();
    let rest = Progress {
        counters: BTreeMap::new(),
        meter: BTreeMap::new(),
        token_entropy: 0.0,
        codebook_perplexity: 0.0,
        patience: Patience { best: None, ..*patience },
        stability: Stability {
            recent: Default::default(),
            ..stability.clone()
        },
        ..progress.clone()
    };
    let recent: Vec<_> = stability
        .recent
        .iter()
        .map(|r| r.map(|(a, b)| (a.to_bits(), b.to_bits())))
        .collect();
    let single = [progress.token_entropy, progress.codebook_perplexity].map(f64::to_bits);
    let best = patience.best.map(|(v, step)| (v.to_bits(), step));
    format!("{rest:?} {:?} {:?} {recent:?} {single:?} {best:?}", map(counters), map(meter))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn every_state_is_saved_and_loaded_bit_for_bit(progress in progress(), weights in any::<[u32; 6]>(), config_toml in "\\PC{0,40}") {
        let dir = tempfile::tempdir().unwrap();
        let tensor = Tensor::from_slice(&weights.map(f32::from_bits));
        let step = progress.step;
        let want = Snapshot {
            model: vec![("a".into(), tensor.shallow_clone())],
            optimizer: vec![("a.exp_avg".into(), tensor.shallow_clone())],
            progress,
            config_toml,
        };
        save(dir.path(), &want).unwrap();
        prop_assert_eq!(newest_step(dir.path()), Some(step));
        let have = newest_good(dir.path()).unwrap().good.unwrap().with_tensors().unwrap();
        prop_assert_eq!(bits(&have.progress), bits(&want.progress));
        prop_assert_eq!(&have.config_toml, &want.config_toml);
        for tensors in [&have.model, &have.optimizer] {
            let loaded = Vec::<f32>::try_from(&tensors[0].1).unwrap();
            prop_assert_eq!(loaded.iter().map(|w| w.to_bits()).collect::<Vec<_>>(), weights.to_vec());
        }
    }
}

#[test]
fn a_null_in_the_progress_of_an_older_version_is_read_as_not_a_number() {
    let text = serde_json::to_string(&snapshot(3).progress).unwrap();
    let old = text
        .replace("\"total\":\"0.1\"", "\"total\":null")
        .replace("\"token_entropy\":\"1.5\"", "\"token_entropy\":1.5");
    assert_ne!(old, text);
    let mut value: serde_json::Value = serde_json::from_str(&old).unwrap();
    value.as_object_mut().unwrap().remove("watch");
    let read: Progress = serde_json::from_value(value).unwrap();
    assert!(read.meter["total"].is_nan() && read.token_entropy == 1.5);
}

#[test]
fn the_best_is_a_link_that_moves_and_that_no_search_takes_for_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    for step in [1, 2] {
        save(dir.path(), &snapshot(step)).unwrap();
        mark_best(dir.path(), step).unwrap();
    }
    assert_eq!(load(&dir.path().join("best")).unwrap().progress.step, 2);
    mark_best(dir.path(), 1).unwrap();
    assert_eq!(load(&dir.path().join("best")).unwrap().progress.step, 1);
    assert_eq!(steps(dir.path()), [1, 2]);
    assert_eq!(newest_step(dir.path()), Some(2));
}

/// Ways in which a file is spoilt.
const DAMAGES: [&str; 6] = ["truncated", "emptied", "deleted", "flipped", "a folder", "longer"];

fn damage(file: &Path, how: &str) {
    let mut bytes = fs::read(file).unwrap();
    match how {
        "truncated" => fs::write(file, &bytes[..bytes.len() - 1]).unwrap(),
        "emptied" => fs::write(file, b"").unwrap(),
        "deleted" => fs::remove_file(file).unwrap(),
        "flipped" => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(file, bytes).unwrap();
        }
        "a folder" => {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        }
        _ => {
            bytes.push(b' ');
            fs::write(file, bytes).unwrap();
        }
    }
}

#[test]
fn each_file_damaged_in_each_way_leads_to_the_checkpoint_before() {
    for file in [MODEL, OPTIMIZER, PROGRESS, CONFIG, COMPLETE] {
        for how in DAMAGES {
            if (file, how) == (COMPLETE, "longer") {
                // A blank behind it changes nothing.
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            save(dir.path(), &snapshot(1)).unwrap();
            let newer = save(dir.path(), &snapshot(2)).unwrap();
            damage(&newer.join(file), how);
            let found = newest_good(dir.path()).unwrap();
            assert_eq!(found.good.map(|good| good.progress.step), Some(1), "{file} {how}");
            assert!(newer.exists(), "looking changes nothing");
            let [bad] = &found.bad[..] else { panic!("{file} {how}") };
            assert!(bad.reason.contains(file) || file == COMPLETE, "{file} {how}: {}", bad.reason);
            let aside = bad.set_aside().unwrap();
            assert!(aside.exists() && !newer.exists(), "the bad one is kept");
            assert_eq!(newest_good(dir.path()).unwrap().bad.len(), 0);
            assert!(
                load(&aside).is_err() && load_model(&aside).is_err(),
                "{file} {how}: no reader takes it"
            );
        }
    }
}

#[test]
fn whole_files_that_say_nothing_are_damage_too() {
    // Checksums hold, but a program of another version, or of another kind, wrote the content.
    for (file, text) in [(PROGRESS, "{}"), (PROGRESS, "null"), (MODEL, "not tensors at all"), (OPTIMIZER, "")] {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &snapshot(1)).unwrap();
        let newer = save(dir.path(), &snapshot(2)).unwrap();
        fs::write(newer.join(file), text).unwrap();
        let sums: BTreeMap<&str, String> = FILES.map(|f| (f, super::files::digest(&newer.join(f)).unwrap())).into();
        fs::write(newer.join(COMPLETE), serde_json::to_string(&sums).unwrap()).unwrap();
        assert_eq!(newest_step(dir.path()), Some(1), "{file} {text:?}");
    }
}

#[test]
fn a_file_in_place_of_a_folder_and_bad_ones_all_the_way_down() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("step-00000009"), b"x").unwrap();
    let found = newest_good(dir.path()).unwrap();
    assert!(found.good.is_none() && found.bad.len() == 1);
    found.bad[0].set_aside().unwrap();
    assert!(dir.path().join("damaged-00000009-0").exists());
    let first = save(dir.path(), &snapshot(1)).unwrap();
    damage(&first.join(MODEL), "emptied");
    assert_eq!(newest_good(dir.path()).unwrap().bad.len(), 1);
    assert!(newest_good(&dir.path().join("nowhere")).unwrap().good.is_none());
}

#[test]
fn a_folder_that_cannot_be_listed_is_an_error_and_not_a_run_without_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("checkpoints");
    fs::write(&root, b"a file").unwrap();
    assert!(matches!(newest_good(&root), Err(CheckpointError::Io { .. })));
    fs::remove_file(&root).unwrap();
    save(&root, &snapshot(1)).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o0)).unwrap();
    // Root may read it all the same.
    let answer = newest_good(&root);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(answer.map_or(true, |found| found.good.is_some()));
}

#[test]
fn a_search_below_a_step_leaves_newer_ones_out() {
    let dir = tempfile::tempdir().unwrap();
    for step in [10, 20, 30] {
        save(dir.path(), &snapshot(step)).unwrap();
    }
    let below = |end| newest_good_before(dir.path(), end).unwrap().good.map(|good| good.progress.step);
    assert_eq!([below(31), below(30), below(10)], [Some(30), Some(20), None]);
}

#[test]
fn pruning_never_deletes_the_newest_good_one() {
    let policy = |keep| Policy {
        keep,
        keep_every: 0,
        best: None,
    };
    let dir = tempfile::tempdir().unwrap();
    for step in 1..=5 {
        save(dir.path(), &snapshot(step)).unwrap();
    }
    for step in [4, 5] {
        damage(&dir.path().join(format!("step-{step:08}/{MODEL}")), "truncated");
    }
    assert_eq!(prune(dir.path(), &policy(1), None).unwrap(), [1, 2, 4]);
    assert_eq!((newest_step(dir.path()), steps(dir.path())), (Some(3), vec![3, 5]));
    assert_eq!(prune(dir.path(), &policy(1), None).unwrap(), Vec::<u64>::new());
    // The writer knows that its own is good.
    save(dir.path(), &snapshot(6)).unwrap();
    assert_eq!(prune(dir.path(), &policy(1), Some(6)).unwrap(), [3, 5]);
    assert_eq!(newest_step(dir.path()), Some(6));
}

#[test]
fn a_failed_write_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &snapshot(1)).unwrap();
    // A file stands where the temporary folder would go.
    fs::write(dir.path().join(format!(".tmp-{}-{:08}", std::process::id(), 2)), b"x").unwrap();
    assert!(matches!(save(dir.path(), &snapshot(2)), Err(CheckpointError::Io { .. })));
    assert_eq!(steps(dir.path()), [1]);
}

#[test]
fn left_over_temporary_folders_go() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join(".tmp-1-00000009");
    fs::create_dir_all(&stale).unwrap();
    sweep(dir.path());
    assert!(newest_good(dir.path()).unwrap().good.is_none());
    assert!(!stale.exists());
}
