//! A reload that the trainer refuses changes nothing: the trace of the run is that of a run that nobody disturbed, bit for bit.

use std::fs;

use crate::ground::{Daemon, Ground};

const STEPS: &str = "optim.total_steps=400";

/// Trains on `text`, and tries a reload of each of `refused` on the way: (text, words of the refusal). Answers the log.
fn disturbed(ground: &Ground, run: &str, text: &str, refused: &[(String, &str)]) -> String {
    fs::write(ground.config(), text).unwrap();
    let set = format!("run.dir={:?}", ground.path(run));
    let command = ground.train(&["--set", STEPS, "--set", &set, "--set", "admin.watch=false", "--enable-lifecycle"]);
    let mut daemon = Daemon::start(command, &ground.path("log"));
    for (n, (bad, words)) in refused.iter().enumerate() {
        let from = 30 * (n as u64 + 1);
        daemon.until("the step of the reload", |d| d.status()["step"].as_u64().is_some_and(|s| s >= from));
        fs::write(ground.config(), bad).unwrap();
        let (code, report) = daemon.ask("POST", "/-/reload").unwrap();
        // 500: the config is a good one, and the trainer could not follow it.
        assert!(
            code == 500 && report.contains("\"failed\"") && report.contains(words),
            "{words}: {code} {report}"
        );
    }
    let status = daemon.child.wait().unwrap();
    let log = daemon.log();
    assert!(status.success(), "{log}");
    log
}

fn undisturbed(ground: &Ground, run: &str, text: &str) {
    fs::write(ground.config(), text).unwrap();
    let set = format!("run.dir={:?}", ground.path(run));
    let done = ground.train(&["--set", STEPS, "--set", &set]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn data_that_cannot_be_opened_and_a_schedule_that_cannot_be_fitted_leave_the_run_as_it_was() {
    let ground = Ground::new();
    let good = ground.config_text();
    let train = format!("train = \"{}/train\"", ground.path("data").display());
    // The same shards without the manifest that would tell how many images an epoch has.
    let (bare, empty) = (ground.path("bare"), ground.path("empty"));
    fs::create_dir(&bare).unwrap();
    fs::create_dir(&empty).unwrap();
    for entry in fs::read_dir(ground.path("data/train")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|e| e == "tar") {
            fs::copy(entry.path(), bare.join(entry.file_name())).unwrap();
        }
    }
    // A learning rate and an interval beside each: a part that is taken over would be seen.
    let other = good
        .replace("lr = 1e-3", "lr = 5e-4")
        .replace("workers = 2", "workers = 1")
        .replace("drop_path = 0.1", "drop_path = 0.3");
    assert!(other.contains(&train) && other.contains("drop_path = 0.3"));
    let at = |place: &std::path::Path| other.replace(&train, &format!("train = \"{}\"", place.display()));
    let epochs = |text: &str| text.replace("[optim]\n", "[optim]\nmax_epochs = 2\n");
    let refused = [
        (at(&ground.path("nowhere")), "nowhere"),
        (at(&empty), "empty"),
        (epochs(&at(&bare)), "optim.max_epochs"),
    ];
    disturbed(&ground, "run", &good, &refused);
    undisturbed(&ground, "clean", &good);
    assert_eq!(ground.trace("run"), ground.trace("clean"));

    // A change that needs no new pipeline is refused where the one that runs has no manifest.
    let bare = good.replace(&train, &format!("train = \"{}\"", bare.display()));
    let live = epochs(&bare).replace("lr = 1e-3", "lr = 5e-4");
    let log = disturbed(&ground, "live", &bare, &[(live, "optim.max_epochs")]);
    assert!(!log.contains("the pipeline begins anew"), "{log}");
    undisturbed(&ground, "clean live", &bare);
    assert_eq!(ground.trace("live"), ground.trace("clean live"));
}
