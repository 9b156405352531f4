//! Pictures of the encoder: the same from equal weights, also after a kill, without a trace in training, and never its end.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::ground::{Daemon, Ground};

const OF_ENCODER: [&str; 3] = ["features.png", "attention.png", "neighbours.png"];

fn sets(all: &[&str]) -> Vec<String> {
    all.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect()
}

/// Names and content of a folder's files.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let name = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    entries.map(|entry| name(entry.unwrap())).collect()
}

#[test]
fn pictures_of_the_encoder_are_those_of_an_undisturbed_run_after_a_kill_and_leave_the_trace_alone() {
    let ground = Ground::new();
    let command = |run: &str, every: u32| {
        let (run, every) = (
            format!("run.dir=\"{}\"", ground.path(run).display()),
            format!("picture.every_steps={every}"),
        );
        let arguments = sets(&["optim.total_steps=90", "picture.rows=3", &every, &run]);
        ground.train(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for (run, every) in [("often", 5), ("at-the-end", 0)] {
        let output = command(run, every).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut daemon = Daemon::start(command("killed", 5), &ground.path("killed.log"));
    daemon.until("a checkpoint behind a picture", |d| {
        d.status()["step"].as_u64().is_some_and(|s| s >= 20)
    });
    daemon.signal("KILL");
    assert!(!daemon.end().success());
    assert!(command("killed", 5).output().unwrap().status.success());

    assert_eq!(ground.trace("often"), ground.trace("at-the-end"), "pictures changed the training");
    for name in OF_ENCODER {
        let read = |run: &str| fs::read(ground.path(run).join(name)).unwrap_or_else(|e| panic!("{run}/{name}: {e}"));
        let often = read("often");
        assert_eq!(often, read("at-the-end"), "{name} depends on the pictures before it");
        assert_eq!(often, read("killed"), "{name} is another one after a kill");
        // Those of earlier steps are kept beside it, the same ones after a kill.
        let kept = |run: &str| files(&ground.path(run).join("pictures").join(name.trim_end_matches(".png")));
        let steps = kept("often");
        assert_eq!((steps.len(), steps.keys().next_back().unwrap().as_str()), (18, "step-00000090.png"));
        assert_eq!(steps["step-00000090.png"], often, "{name}: the last one is the latest");
        assert!(steps == kept("killed"), "{name}: other pictures are kept after a kill");
        let drawn = image::load_from_memory(&often).unwrap();
        // Squares of 128 pixels with 4 between them and 6 around, below headings of as many lines as the longest takes.
        let (columns, lines) = match name {
            "features.png" => (2, 6),
            "attention.png" => (3, 3),
            _ => (7, 2),
        };
        assert_eq!(
            (drawn.width(), drawn.height()),
            (8 + 132 * columns, 12 + 11 * lines + 3 * 132),
            "{name}"
        );
    }
}

#[test]
fn a_picture_that_cannot_be_written_costs_itself_alone() {
    let ground = Ground::new();
    // A folder in its place: the file cannot be renamed over it.
    fs::create_dir_all(ground.path("run").join("features.png").join("taken")).unwrap();
    let arguments = sets(&["optim.total_steps=12", "picture.every_steps=6"]);
    let output = ground
        .train(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    assert!(
        log.contains("encoder failed; training goes on") && log.contains("features.png"),
        "{log}"
    );
    assert!(ground.path("run").join("neighbours.png").is_file(), "{log}");
}
