//! One batch is staged ahead of its step. No reload loses it or trains it twice.

use std::fs;

use crate::ground::{Daemon, Ground};

const STEPS: &str = "optim.total_steps=600";

#[test]
fn a_reload_that_replaces_the_pipeline_loses_and_repeats_no_staged_batch() {
    let ground = Ground::new();
    let run = format!("run.dir=\"{}\"", ground.path("clean").display());
    let clean = ground.train(&["--set", STEPS, "--set", &run]).output().unwrap();
    assert!(clean.status.success(), "{}", String::from_utf8_lossy(&clean.stderr));

    let mut command = ground.train(&["--set", STEPS, "--set", "admin.watch=false", "--enable-lifecycle"]);
    command.env("RUST_LOG", "debug");
    let mut daemon = Daemon::start(command, &ground.path("log"));
    for (n, workers) in [3, 1, 4, 2, 3, 1].into_iter().enumerate() {
        let from = 20 * (n as u64 + 1);
        daemon.until("the step of the reload", |d| d.status()["step"].as_u64().is_some_and(|s| s >= from));
        let text = ground.config_text().replace("workers = 2", &format!("workers = {workers}"));
        fs::write(ground.config(), text).unwrap();
        let (code, report) = daemon.ask("POST", "/-/reload").unwrap();
        assert!(code == 200 && report.contains("rebuild"), "{code} {report}");
    }
    // It may end between two looks, so its end is not awaited by its status.
    let status = daemon.child.wait().unwrap();
    let log = daemon.log();
    assert!(status.success(), "{log}");
    let told = log.matches("the pipeline begins anew behind the last trained batch").count();
    assert_eq!(told, 6, "{log}");
    assert!(log.contains("staged=true"), "no reload met a staged batch, so nothing was shown");
    assert_eq!(ground.trace("run"), ground.trace("clean"), "same stream, same losses");
}
