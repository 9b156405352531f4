//! A run writes into the folder that it locked, and nowhere else: neither where that folder was, nor into one that another process made there.

use std::fs;
use std::path::Path;

use crate::ground::{Daemon, Ground};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn no_checkpoint_line_or_picture_comes_into_a_folder_that_is_not_the_runs() {
    let ground = Ground::new();
    // Something to write at every step, so that the moment before the daemon ends the run is full of writes.
    let busy = [
        "optim.total_steps=1000000",
        "checkpoint.every_steps=1",
        "log.every_steps=1",
        "picture.every_steps=3",
    ];
    let arguments: Vec<&str> = busy.iter().flat_map(|set| ["--set", *set]).collect();
    let (run, moved) = (ground.path("run"), ground.path("moved"));
    for replaced in [false, true] {
        let mut daemon = Daemon::start(ground.train(&arguments), &ground.path("log"));
        daemon.until("a checkpoint", |d| {
            d.status()["last_checkpoint_step"].as_u64().is_some_and(|s| s >= 3)
        });
        let made = ground.path("made");
        fs::create_dir(&made).unwrap();
        fs::rename(&run, &moved).unwrap();
        if replaced {
            fs::rename(&made, &run).unwrap();
        }
        let status = daemon.child.wait().unwrap();
        let log = daemon.log();
        assert_eq!(status.code(), Some(74), "{log}");
        assert!(log.contains("the run folder was renamed, deleted or replaced"), "{log}");
        assert_eq!(run.exists(), replaced, "a folder was made in its place: {:?}", names(&run));
        assert_eq!(names(&run), [""; 0], "something was written into a folder of somebody else");
        assert!(!splitmask::checkpoint::steps(&moved.join("checkpoints")).is_empty());
        let _ = (fs::remove_dir_all(&run), fs::remove_dir_all(&made));
        fs::remove_dir_all(&moved).unwrap();
    }
}
