use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prometheus::Registry;
use splitmask_pipeline::cursor::Cursor;

use super::{MirrorSettings, MirrorState, Opened, Opening, open};
use crate::checkpoint::{self, Snapshot, folder_of};
use crate::exit::{CliError, ExitCode};
use crate::held_lock::HeldLock;
use crate::telemetry::metrics::TrainMetrics;

struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Opens the mirror `mirror` for the run folder `name`.
    fn open(&self, name: &str) -> Result<Opened, CliError> {
        let run_dir = self.path(name);
        fs::create_dir_all(&run_dir).unwrap();
        let lock = run_dir.join("daemon.lock");
        let opening = Opening {
            lock: HeldLock::new(&lock, &File::create(&lock).unwrap()).unwrap(),
            run_dir,
            run: "x".into(),
            metrics: TrainMetrics::new(&Registry::new()).unwrap().mirror,
            patience: Duration::from_secs(1),
        };
        open(&opening, Some(self.settings(2)))
    }

    fn settings(&self, keep: u32) -> MirrorSettings {
        MirrorSettings {
            key: "checkpoint.mirror",
            address: self.path("mirror").display().to_string(),
            endpoint: String::new(),
            mb_s: 0.0,
            lease: Duration::from_secs(1),
            keep,
            keep_every: 0,
        }
    }

    /// Steps that the mirror holds whole.
    fn mirrored(&self) -> Vec<u64> {
        let root = self.path("mirror/checkpoints");
        let all = checkpoint::steps(&root);
        all.into_iter()
            .filter(|step| root.join(checkpoint::name_of(*step)).join(checkpoint::COMPLETE).exists())
            .collect()
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "waited too long until {what}: {:?}", self.mirrored());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A checkpoint without tensors; `words` tells two of one step apart.
fn save(run_dir: &Path, step: u64, words: u64) -> PathBuf {
    fs::create_dir_all(run_dir).unwrap();
    let progress = serde_json::json!({
        "step": step, "cursor": Cursor::default(), "counters": {}, "meter": {}, "word_counts": [words],
        "token_entropy": 0.0, "codebook_perplexity": 0.0, "codebook": "",
    });
    let snapshot = Snapshot {
        model: Vec::new(),
        optimizer: Vec::new(),
        progress: serde_json::from_value(progress).unwrap(),
        config_toml: String::new(),
    };
    checkpoint::save(&folder_of(run_dir), &snapshot).unwrap()
}

fn finish(opened: &Opened) {
    opened.mirror.finish();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !opened.mirror.is_done() {
        assert!(Instant::now() < deadline, "{:?}", opened.mirror.status().lock().unwrap());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(opened.mirror.status().lock().unwrap().state, MirrorState::Current);
}

fn words(folder: &Path) -> Vec<u64> {
    checkpoint::read(folder).unwrap().progress.word_counts
}

#[test]
fn the_mirror_follows_the_run_folder_its_retention_its_rollbacks_and_steps_that_are_taken_anew() {
    let ground = Ground::new();
    let run = ground.path("a");
    let mut opened = ground.open("a").unwrap();
    assert!(opened.told.as_ref().unwrap().contains("neither"), "{:?}", opened.told);
    save(&run, 1, 0);
    ground.until("the first is there", || ground.mirrored() == [1]);
    fs::write(run.join("metrics.jsonl"), "{\"step\":3}\n").unwrap();
    let pictures = |root: &str, step: u64| ground.path(root).join(format!("pictures/inpaint/step-{step:08}.png"));
    fs::create_dir_all(pictures("a", 1).parent().unwrap()).unwrap();
    for step in [1, 2] {
        fs::write(pictures("a", step), format!("at {step}")).unwrap();
    }
    save(&run, 2, 0);
    save(&run, 3, 0);
    ground.until("two are kept", || ground.mirrored() == [2, 3]);
    assert_eq!(
        fs::read_to_string(ground.path("mirror/metrics.jsonl")).unwrap(),
        "{\"step\":3}\n",
        "before the checkpoint's end"
    );

    // A rollback: the checkpoint of the failed steps goes, and comes anew with other content.
    checkpoint::delete(&folder_of(&run).join(checkpoint::name_of(3))).unwrap();
    ground.until("it went there too", || ground.mirrored() == [2]);
    let again = save(&run, 3, 7);
    ground.until("it is there again", || ground.mirrored() == [2, 3]);
    let there = ground.path("mirror/checkpoints").join(checkpoint::name_of(3));
    ground.until("with the new content", || {
        there.join(checkpoint::COMPLETE).exists() && words(&there) == words(&again)
    });

    // A reload that keeps fewer; then none at all.
    opened.mirror.configure(Some(ground.settings(1)));
    ground.until("one is kept", || ground.mirrored() == [3]);
    fs::write(run.join("journal.jsonl"), "{}\n").unwrap();
    // Of earlier pictures the mirror has those that the run folder keeps.
    assert!(pictures("mirror", 1).exists());
    fs::remove_file(pictures("a", 1)).unwrap();
    finish(&opened);
    assert!(!pictures("mirror", 1).exists());
    assert_eq!(fs::read_to_string(pictures("mirror", 2)).unwrap(), "at 2");
    assert!(ground.path("mirror/journal.jsonl").exists(), "the end comes too");
    assert!(!ground.path("mirror/lease.json").exists(), "the lease is given back");
    opened.mirror.configure(None);
    assert!(!opened.mirror.is_on());
    // They come to the next machine, and what it lets go of goes from the mirror too.
    let next = ground.open("b").unwrap();
    assert_eq!(fs::read_to_string(pictures("b", 2)).unwrap(), "at 2");
    fs::remove_file(pictures("b", 2)).unwrap();
    finish(&next);
    assert!(!pictures("mirror", 2).exists());
}

#[test]
fn a_mirror_that_somebody_emptied_is_filled_anew_and_can_be_gone_on_from() {
    let ground = Ground::new();
    let run = ground.path("a");
    let opened = ground.open("a").unwrap();
    save(&run, 1, 0);
    fs::write(run.join("metrics.jsonl"), "{\"step\":1}\n").unwrap();
    ground.until("the first is there", || ground.mirrored() == [1]);
    for entry in fs::read_dir(ground.path("mirror")).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().unwrap().to_str().unwrap() {
            // The lease is renewed by its holder; without it the mirror would be given up.
            "lease.json" => {}
            _ if path.is_dir() => fs::remove_dir_all(&path).unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
    }
    save(&run, 2, 0);
    ground.until("both are there again", || ground.mirrored() == [1, 2]);
    finish(&opened);
    assert!(ground.path("mirror/metrics.jsonl").exists());
    // Another machine goes on from it.
    let second = ground.open("b").unwrap();
    assert!(second.told.as_ref().unwrap().contains("step 2 of the mirror"), "{:?}", second.told);
    finish(&second);
}

#[test]
fn the_newer_good_checkpoint_counts_and_lines_that_give_way_are_kept() {
    let ground = Ground::new();
    let first = ground.open("a").unwrap();
    save(&ground.path("a"), 1, 0);
    fs::write(ground.path("a/metrics.jsonl"), "{\"step\":1}\n").unwrap();
    ground.until("the first is there", || ground.mirrored() == [1]);
    finish(&first);
    // Another machine goes on, and is two steps further.
    let second = ground.open("b").unwrap();
    assert!(second.told.as_ref().unwrap().contains("step 1 of the mirror"), "{:?}", second.told);
    for step in [2, 3] {
        fs::write(ground.path("b/metrics.jsonl"), format!("{{\"step\":1}}\n{{\"step\":{step}}}\n")).unwrap();
        save(&ground.path("b"), step, 0);
        ground.until("it is there", || ground.mirrored().contains(&step));
    }
    finish(&second);
    // Its newest is torn, so that the one before counts.
    let torn = ground.path("mirror/checkpoints").join(checkpoint::name_of(3));
    fs::write(torn.join("progress.json"), "{").unwrap();
    fs::write(ground.path("a/metrics.jsonl"), "{\"step\":1}\nother words\n").unwrap();
    let third = ground.open("a").unwrap();
    let told = third.told.as_ref().unwrap();
    assert!(
        told.contains("step 2 of the mirror") && told.contains("the newest of the run folder is of step 1"),
        "{told}"
    );
    assert_eq!(checkpoint::steps(&folder_of(&ground.path("a"))), [1, 2]);
    assert!(torn.join("damaged.json").exists());
    let lines = |name: &str| fs::read_to_string(ground.path("a").join(name)).unwrap();
    assert_eq!(
        lines("metrics.jsonl"),
        "{\"step\":1}\n{\"step\":3}\n",
        "as long as the mirror's newest, and cut by the trainer"
    );
    assert_eq!(lines("metrics.before-1.jsonl"), "{\"step\":1}\nother words\n");
    // What is newer here stays, and goes up.
    save(&ground.path("a"), 5, 0);
    finish(&third);
    assert_eq!(ground.mirrored(), [2, 5]);
    let told = ground.open("a").unwrap().told.unwrap();
    assert!(told.contains("step 5 of the run folder: the mirror has the same step"), "{told}");
}

#[test]
fn a_damaged_checkpoint_here_is_not_uploaded_and_a_run_of_another_name_is_refused() {
    let ground = Ground::new();
    let run = ground.path("a");
    save(&run, 1, 0);
    let damaged = save(&run, 2, 0);
    let text = fs::read_to_string(damaged.join("progress.json")).unwrap();
    let opened = ground.open("a").unwrap();
    ground.until("both are there", || ground.mirrored() == [1, 2]);
    let third = save(&run, 3, 0);
    // Damaged before or after it went up: never anything else than what was written.
    fs::write(third.join("progress.json"), text).unwrap();
    save(&run, 4, 0);
    ground.until("the good one is there", || ground.mirrored().contains(&4));
    for step in ground.mirrored() {
        let folder = ground.path("mirror/checkpoints").join(checkpoint::name_of(step));
        assert_eq!(checkpoint::read(&folder).unwrap().progress.step, step);
    }
    finish(&opened);
    save(&ground.path("b"), 1, 0);
    let refused = ground.open("b").unwrap_err();
    assert_eq!(refused.code, ExitCode::Usage);
    assert!(refused.message.contains("another run"), "{}", refused.message);
    assert!(!ground.path("mirror/lease.json").exists(), "a refused start holds nothing");
}
