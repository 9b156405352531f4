//! A run outlives its machine: its folder is deleted, and it goes on from the mirror as if nothing had happened.

mod stop;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bucket_trouble::objects;
use crate::fault_server::{Fault, FaultServer};
use crate::ground::{Daemon, Ground};
use crate::preload::{Faults, met};
use crate::servers::Server;
use crate::store_proxy::{StoreProxy, Weather};

const KEY: &str = "AKMIRROR";
const SECRET: &str = "canary-mirror-secret";

/// Long enough that no machine is too quick for what happens on the way.
const STEPS: &str = "optim.total_steps=600";
const EVERY: &str = "checkpoint.every_steps=30";

/// A bucket `runs` of a real S3 server over a folder.
struct Store {
    server: Server,
    /// The bucket's folder.
    bucket: PathBuf,
}

impl Store {
    fn start(ground: &Ground) -> Self {
        let root = ground.path("buckets");
        let bucket = root.join("runs");
        fs::create_dir_all(&bucket).unwrap();
        Self {
            server: Server::s3(&root, KEY, SECRET),
            bucket,
        }
    }

    /// Steps of which the mirror `x` holds a whole checkpoint.
    fn steps(&self) -> Vec<u64> {
        steps(&self.bucket.join("x"))
    }
}

/// Steps of the checkpoints with their list of checksums in a folder.
fn steps(mirror: &Path) -> Vec<u64> {
    let root = mirror.join("checkpoints");
    let all = splitmask::checkpoint::steps(&root);
    all.into_iter()
        .filter(|step| root.join(format!("step-{step:08}/complete.json")).exists())
        .collect()
}

/// Steps of which a folder holds anything.
fn begun(mirror: &Path) -> Vec<u64> {
    let root = mirror.join("checkpoints");
    let all = splitmask::checkpoint::steps(&root);
    all.into_iter()
        .filter(|step| fs::read_dir(root.join(format!("step-{step:08}"))).unwrap().flatten().count() > 0)
        .collect()
}

pub(crate) fn train(ground: &Ground, run: &str, sets: &[&str]) -> Command {
    let run = format!("run.dir=\"{}\"", ground.path(run).display());
    let mut command = ground.train(&["--set", STEPS, "--set", EVERY, "--set", &run, "--enable-lifecycle"]);
    for set in sets {
        command.args(["--set", set]);
    }
    command
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_REGION", "us-east-1");
    command
}

fn on(endpoint: &str) -> [String; 2] {
    [
        "checkpoint.mirror=\"s3://runs/x\"".to_owned(),
        format!("checkpoint.mirror_endpoint=\"{endpoint}\""),
    ]
}

fn mirrored(ground: &Ground, run: &str, endpoint: &str, more: &[&str]) -> Command {
    let [mirror, endpoint] = on(endpoint);
    let sets: Vec<&str> = [mirror.as_str(), &endpoint].into_iter().chain(more.iter().copied()).collect();
    train(ground, run, &sets)
}

pub(crate) fn success(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

/// Trace and last weights of an undisturbed run.
fn undisturbed(ground: &Ground) -> (Vec<Value>, Vec<u8>) {
    success(train(ground, "clean", &[]));
    (ground.trace("clean"), last_weights(&ground.path("clean")))
}

fn last_weights(run: &Path) -> Vec<u8> {
    let last = *steps(run).last().unwrap();
    fs::read(run.join(format!("checkpoints/step-{last:08}/model.safetensors"))).unwrap()
}

pub(crate) fn mirror_of(daemon: &Daemon) -> Value {
    daemon.status()["mirror"].clone()
}

/// The machine dies, and its disk with it.
pub(crate) fn lose(daemon: Daemon, run: &Path) {
    daemon.signal("KILL");
    assert!(!daemon.end().success());
    fs::remove_dir_all(run).unwrap();
}

fn journal(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("journal.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn metric(daemon: &Daemon, name: &str) -> f64 {
    let text = daemon.ask("GET", "/metrics").unwrap().1;
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

#[test]
fn a_run_whose_folder_is_deleted_goes_on_from_s3_bit_for_bit() {
    let ground = Ground::new();
    let (clean, weights) = undisturbed(&ground);
    let store = Store::start(&ground);
    let run = ground.path("lost");
    let start = || mirrored(&ground, "lost", &store.server.endpoint, &[]);
    for enough in [60, 200] {
        let mut daemon = Daemon::start(start(), &ground.path("log"));
        daemon.until("the mirror has enough", |d| {
            mirror_of(d)["step"].as_u64().is_some_and(|step| step >= enough) && store.steps().len() > 1
        });
        assert_eq!(metric(&daemon, "splitmask_checkpoint_mirror_lease_held"), 1.0);
        assert!(metric(&daemon, "splitmask_checkpoint_mirror_uploads_total") >= 1.0);
        lose(daemon, &run);
    }
    // The newest there is damaged, too.
    let whole = store.steps();
    let (newest, older) = (whole[whole.len() - 1], whole[whole.len() - 2]);
    let file = store.bucket.join(format!("x/checkpoints/step-{newest:08}/optimizer.safetensors"));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let text = success(start());
    for told in [
        "fetching a checkpoint from the mirror",
        "optimizer.safetensors",
        "with another checksum",
        "it is set aside, and the next older one is taken",
        &format!("going on from step {older} of the mirror s3://runs/x: the run folder has no good checkpoint"),
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
    assert!(!text.contains(SECRET));
    assert_eq!(ground.trace("lost"), clean, "history and losses of the undisturbed run");
    assert!(last_weights(&run) == weights, "weights of the undisturbed run");
    let events: Vec<String> = journal(&run).iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        events.iter().filter(|e| *e == "start").count(),
        3,
        "the journal came back too: {events:?}"
    );

    // An orderly end leaves everything in the mirror, as many checkpoints as here, and no lease.
    let mirror = store.bucket.join("x");
    assert_eq!(store.steps(), steps(&run));
    assert_eq!(last_weights(&mirror), weights);
    for file in ["metrics.jsonl", "journal.jsonl", "last-good.toml", "curves.svg", "run.json"] {
        assert!(fs::read(mirror.join(file)).unwrap() == fs::read(run.join(file)).unwrap(), "{file}");
    }
    assert!(!mirror.join("lease.json").exists());
}

#[test]
fn a_store_in_bad_weather_never_slows_the_run_and_what_it_lacks_comes_later() {
    let ground = Ground::new();
    let (clean, weights) = undisturbed(&ground);
    let store = Store::start(&ground);
    let proxy = StoreProxy::before(&store.server.endpoint);
    let run = ground.path("stormy");
    // The data comes slowly as long as the weather changes, so that no machine is through before.
    let (all, range) = objects(&ground);
    let slow = Arc::new(AtomicBool::new(true));
    let script = Arc::clone(&slow);
    let data = FaultServer::start(all, move |_| match script.load(Ordering::SeqCst) {
        true => Fault::Far {
            latency_ms: 250,
            kilobytes_per_s: 1000,
        },
        false => Fault::None,
    });
    let data = format!("data.train=\"{}/b/{range}\"", data.url());
    let start = || mirrored(&ground, "stormy", &proxy.endpoint, &["pipeline.readers=1", &data]);
    let mut daemon = Daemon::start(start(), &ground.path("log"));
    let step = |d: &Daemon| d.status()["step"].as_u64().unwrap_or(0);
    daemon.until("the first checkpoint is mirrored", |d| mirror_of(d)["step"].as_u64().is_some());
    for weather in [Weather::Away, Weather::Throttling, Weather::Tearing(20_000)] {
        proxy.turn(weather);
        let failures = mirror_of(&daemon)["failures"].as_u64().unwrap();
        daemon.until("a failure is counted", |d| {
            let now = mirror_of(d);
            now["failures"].as_u64().is_some_and(|n| n > failures) && now["last_error"].is_string()
        });
        assert_eq!(daemon.ask("GET", "/-/ready").unwrap().0, 200, "the run is well");
        let at = step(&daemon);
        daemon.until("it trains on", |d| step(d) > at);
        proxy.turn(Weather::Fair);
        daemon.until("the mirror has caught up", |d| {
            let now = mirror_of(d);
            now["last_error"].is_null() && now["state"] == "current"
        });
    }
    assert!(metric(&daemon, "splitmask_checkpoint_mirror_failures_total{reason=\"away\"}") >= 1.0);
    assert!(metric(&daemon, "splitmask_checkpoint_mirror_failures_total{reason=\"throttled\"}") >= 1.0);

    // Killed in the middle of an upload: what is torn never counts.
    proxy.turn(Weather::Slow(200));
    let before = proxy.passed();
    daemon.until("an upload is under way", |d| {
        mirror_of(d)["state"] == "uploading" && proxy.passed() > before + 2000
    });
    lose(daemon, &run);
    proxy.turn(Weather::Fair);
    slow.store(false, Ordering::SeqCst);
    success(start());
    assert_eq!(ground.trace("stormy"), clean);
    assert!(last_weights(&run) == weights);
    assert_eq!(store.steps(), steps(&run));
    assert_eq!(begun(&store.bucket.join("x")), store.steps(), "what was torn is cleared away");
}

/// A mirror whose disk has room for as many checkpoints as it keeps, and for no more.
#[test]
fn in_a_full_mirror_the_oldest_checkpoint_makes_way() {
    let ground = Ground::new();
    let mirror = ground.path("mirror");
    let set = format!("checkpoint.mirror=\"{}\"", mirror.display());
    success(train(&ground, "run", &[&set, "checkpoint.keep=2"]));
    assert_eq!(steps(&mirror), [570, 600]);
    let log = ground.path("calls");
    let full = Faults::below(&mirror)
        .meet("write", "checkpoints/step-00000630/*", 1, "ENOSPC")
        .logged(&log);
    let mut command = train(&ground, "run", &[&set, "checkpoint.keep=2", "optim.total_steps=630"]);
    full.preload(&mut command);
    let told = success(command);
    assert!(
        met(&log).len() == 1 && told.contains("no room for a checkpoint in the mirror: the oldest made way"),
        "{told}"
    );
    assert_eq!(steps(&mirror), [600, 630]);
}

#[test]
fn two_machines_never_share_a_mirror_and_a_dead_one_frees_it() {
    let ground = Ground::new();
    let store = Store::start(&ground);
    // A lease much longer than anything that keeps the first machine from renewing it in time where the tests have few cores.
    let lease = "checkpoint.mirror_lease_s=10";
    let endless = |run: &str| mirrored(&ground, run, &store.server.endpoint, &["optim.total_steps=1000000", lease]);
    let mut first = Daemon::start(endless("one"), &ground.path("one.log"));
    first.until("the mirror has something", |d| mirror_of(d)["step"].as_u64().is_some());
    let refused = mirrored(&ground, "two", &store.server.endpoint, &[lease]).output().unwrap();
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(64), "{text}");
    let holder = format!(
        "(pid {}, run \"test\" in {}",
        first.child.id(),
        fs::canonicalize(ground.path("one")).unwrap().display()
    );
    assert!(
        text.contains("held by host") && text.contains(&holder) && text.contains("until 20"),
        "{text}"
    );
    assert!(!ground.path("two").join("checkpoints").exists(), "nothing was fetched");

    // The first one dies: the second waits for the time-out, and goes on where the first was.
    first.signal("KILL");
    assert!(!first.end().success());
    let began = Instant::now();
    let mut second = Daemon::start(endless("two"), &ground.path("two.log"));
    second.until("it goes on", |d| d.status()["step"].as_u64().is_some_and(|step| step > 30));
    assert!(began.elapsed() >= Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(second.log().contains("watching for up to 10 s"), "{}", second.log());

    // Somebody takes it by force: the second stops uploading, says so, and trains on.
    let lease = store.bucket.join("x/lease.json");
    let mut other: Value = serde_json::from_slice(&fs::read(&lease).unwrap()).unwrap();
    other["nonce"] = "f".repeat(32).into();
    other["host"] = "elsewhere".into();
    fs::write(&lease, other.to_string()).unwrap();
    second.until("it notices", |d| mirror_of(d)["state"] == "barred");
    let uploads = metric(&second, "splitmask_checkpoint_mirror_uploads_total");
    let at = second.status()["last_checkpoint_step"].as_u64().unwrap();
    second.until("it trains on", |d| {
        d.status()["last_checkpoint_step"].as_u64().is_some_and(|step| step > at + 30)
    });
    assert_eq!(metric(&second, "splitmask_checkpoint_mirror_uploads_total"), uploads);
    assert_eq!(metric(&second, "splitmask_checkpoint_mirror_lease_held"), 0.0);
    assert!(second.log().contains("taken by host \"elsewhere\""), "{}", second.log());
    second.signal("TERM");
    let log = ground.path("two.log");
    assert_eq!(second.end().code(), Some(75));
    assert!(
        fs::read_to_string(log)
            .unwrap()
            .contains("the mirror does not have the end of this run")
    );
    assert!(lease.exists(), "another's lease stands");
}

#[test]
fn a_run_folder_that_is_an_address_has_a_folder_here_and_a_mirror_there() {
    let ground = Ground::new();
    let store = Store::start(&ground);
    let dir = "run.dir=\"s3://runs/x\"";
    let endpoint = format!("checkpoint.mirror_endpoint=\"{}\"", store.server.endpoint);
    let start = |folder: &str| {
        let here = ground.path(folder);
        fs::create_dir_all(&here).unwrap();
        let mut command = train(&ground, "unused", &[dir, &endpoint, "optim.total_steps=60"]);
        command.current_dir(&here);
        command
    };
    let text = success(start("first"));
    assert!(text.contains("the run folder on this machine is runs/runs-x"), "{text}");
    assert_eq!(steps(&ground.path("first/runs/runs-x")), [30, 60]);
    assert_eq!(store.steps(), [30, 60]);
    let text = success(start("second"));
    assert!(text.contains("going on from step 60 of the mirror s3://runs/x"), "{text}");
    assert_eq!(ground.trace("second/runs/runs-x"), ground.trace("first/runs/runs-x"));
}
