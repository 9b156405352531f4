//! Secrets of a real run (keys of the store, of the mirror, tokens, signed addresses) are in nothing that it writes: log, run folder, checkpoints, mirror,
//! replay folder, stack dump, exports, reports.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::bucket_trouble::objects;
use crate::fault_server::{Fault, FaultServer};
use crate::ground::{Daemon, Ground, splitmask};
use crate::servers::Server;

const CANARY: &str = "CANARY0123456789abcdef0123456789abcdef";

/// Environment of every process: the names under which secrets come.
fn with_secrets(command: &mut Command) -> &mut Command {
    command
        .env("AWS_ACCESS_KEY_ID", "AKEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", CANARY)
        .env("AWS_REGION", "us-east-1")
        .env("AZURE_STORAGE_SAS_TOKEN", format!("sig={CANARY}"))
        .env("AZURE_STORAGE_ACCOUNT_KEY", CANARY)
        .env("GOOGLE_SERVICE_ACCOUNT_KEY", format!("{{\"private_key\":\"{CANARY}\"}}"))
        .env("HTTPS_PROXY_PASSWORD", CANARY)
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn silent(what: &str, bytes: &[u8]) {
    for needle in [CANARY, "CANARY"] {
        if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle.as_bytes()) {
            let around = &bytes[at.saturating_sub(200)..(at + 60).min(bytes.len())];
            panic!("{what} tells a secret: …{}…", String::from_utf8_lossy(around));
        }
    }
}

/// Nothing below a folder holds the secret; answers how many files there are.
fn silent_folder(folder: &Path) -> usize {
    let mut count = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap().flatten() {
            silent("a file's name", entry.path().as_os_str().as_encoded_bytes());
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.path().is_file() {
                silent(&entry.path().display().to_string(), &fs::read(entry.path()).unwrap());
                count += 1;
            }
        }
    }
    count
}

#[test]
fn no_secret_is_in_anything_that_a_run_leaves() {
    let ground = Ground::new();
    let buckets = ground.path("buckets");
    fs::create_dir_all(buckets.join("runs")).unwrap();
    fs::rename(ground.path("data"), buckets.join("data")).unwrap();
    let server = Server::s3(&buckets, "AKEXAMPLE", CANARY);
    let token = ground.path("token");
    fs::write(&token, format!("{CANARY}\n")).unwrap();
    let sets = |run: &str| {
        vec![
            format!("run.dir=\"{}\"", ground.path(run).display()),
            "data.train=\"s3://data/train\"".to_owned(),
            "data.val=\"s3://data/val\"".to_owned(),
            format!("data.endpoint=\"{}\"", server.endpoint),
            format!("admin.token_file=\"{}\"", token.display()),
            "log.tensorboard=true".to_owned(),
            "picture.every_steps=10".to_owned(),
            "eval.every_steps=10".to_owned(),
        ]
    };
    let train = |run: &str, more: &[String]| {
        let mut command = ground.train(&["--set", "optim.total_steps=30"]);
        for set in sets(run).iter().chain(more) {
            command.args(["--set", set]);
        }
        with_secrets(&mut command);
        command
    };
    // A whole run with a mirror.
    let mirror = [
        "checkpoint.mirror=\"s3://runs/x\"".to_owned(),
        format!("checkpoint.mirror_endpoint=\"{}\"", server.endpoint),
    ];
    let output = train("run", &mirror).output().unwrap();
    silent("the log of a run", said(&output).as_bytes());
    assert!(output.status.success() && said(&output).contains("TRACE"), "{}", said(&output));
    // One that ends with a replay folder, one that hangs and writes its stacks.
    let output = train("bad", &["debug.inject=\"nan@3-\"".to_owned()]).output().unwrap();
    silent("the log of a bad run", said(&output).as_bytes());
    assert_eq!(output.status.code(), Some(76), "{}", said(&output));
    let hang = [
        "debug.inject=\"hang@5\"".to_owned(),
        "admin.watchdog_s=1".to_owned(),
        "admin.watchdog_exit=true".to_owned(),
    ];
    let output = train("hung", &hang).output().unwrap();
    silent("the log of a hung run", said(&output).as_bytes());
    assert_eq!(output.status.code(), Some(77), "{}", said(&output));
    // Keys that the store refuses.
    let output = train("refused", &[])
        .env("AWS_SECRET_ACCESS_KEY", format!("{CANARY}x"))
        .output()
        .unwrap();
    silent("the log of a refused run", said(&output).as_bytes());
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    // What others make of the run.
    let (run, exports) = (
        ground.path("run").display().to_string(),
        ground.path("exports").display().to_string(),
    );
    let config = ground.config().display().to_string();
    let verbs: [&[&str]; 6] = [
        &["report", &run],
        &["eval", "spread", &run, "--json"],
        &["export", &run, "--format", "timm", "--out", &exports],
        &["check-config", &config],
        &["inspect", "s3://data/train"],
        &["doctor"],
    ];
    for verb in verbs {
        let mut command = splitmask();
        let output = with_secrets(command.args(verb))
            .env("AWS_ENDPOINT_URL", &server.endpoint)
            .output()
            .unwrap();
        silent(verb[0], said(&output).as_bytes());
    }
    assert!(ground.path("exports").exists(), "an export was made");
    let files = silent_folder(&ground.path("run")) + silent_folder(&ground.path("bad")) + silent_folder(&ground.path("hung"));
    assert!(files > 25, "{files}");
    assert!(silent_folder(&buckets.join("runs")) > 5, "the mirror holds something");
    silent_folder(&ground.path("exports"));
}

#[test]
fn a_signed_address_is_told_nowhere() {
    let ground = Ground::new();
    let (all, _) = objects(&ground);
    let first = all[0].0.clone();
    let server = FaultServer::start(all, |_| Fault::None);
    for address in [
        format!("{}/{first}?X-Amz-Signature={CANARY}&X-Amz-Expires=60", server.url()),
        format!("{}/{first}", server.url()).replace("http://", &format!("http://{CANARY}@")),
        format!("{}/b/missing.tar?sig={CANARY}", server.url()),
    ] {
        let mut command = ground.train(&["--set", "optim.total_steps=20", "--set", "pipeline.retry_budget_s=1"]);
        command.arg("--set").arg(format!("data.train=\"{address}\""));
        with_secrets(&mut command);
        let daemon = Daemon::start(command, &ground.path("log"));
        let status = daemon.end();
        // The log and the run folder, if there is one.
        assert!(silent_folder(ground.dir.path()) > 5);
        assert!(matches!(status.code(), Some(0 | 64 | 74)), "{status}");
    }
}
