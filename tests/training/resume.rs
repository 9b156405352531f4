//! A resumed run is the undisturbed run, bit for bit.

use std::time::Duration;

use splitmask::objective::{ClassesOf, Scope};

use crate::ground::{Daemon, Ground};

/// Steps that the disturbed run must have reached before it is killed; the moment inside the step is the scheduler's.
const KILLS: [u64; 5] = [7, 18, 46, 77, 101];

/// Far enough beyond the last kill that no machine is too quick for it.
const STEPS: [&str; 2] = ["--set", "optim.total_steps=240"];

#[test]
fn the_trace_after_five_kills_equals_the_undisturbed_one() {
    let ground = Ground::new();
    let undisturbed = ground.train(&STEPS).output().unwrap();
    assert!(undisturbed.status.success(), "{}", String::from_utf8_lossy(&undisturbed.stderr));
    let want = ground.trace("run");
    assert_eq!(want.last().unwrap()["step"], 240);
    assert!(
        want[0]["inpaint"].as_f64().unwrap() > want.last().unwrap()["inpaint"].as_f64().unwrap(),
        "it learns: {want:?}"
    );

    let run = ground.path("killed");
    let set = format!("run.dir=\"{}\"", run.display());
    for (n, step) in KILLS.into_iter().enumerate() {
        let mut daemon = Daemon::start(ground.train(&[STEPS[0], STEPS[1], "--set", &set]), &ground.path("killed.log"));
        daemon.until("the step of the kill", |d| d.status()["step"].as_u64().is_some_and(|s| s >= step));
        std::thread::sleep(Duration::from_millis(3 * n as u64));
        daemon.signal("KILL");
        assert!(!daemon.end().success());
    }
    let last = ground.train(&[STEPS[0], STEPS[1], "--set", &set]).output().unwrap();
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    let have = ground.trace("killed");
    assert_eq!(have.len(), want.len());
    for (a, b) in want.iter().zip(&have) {
        assert_eq!(a, b, "the resumed run differs at step {}", a["step"]);
    }
}

/// Sizes and waits of published recipes that a short run on a CPU cannot afford, for whoever has a key of that name.
const SMALL: [(&str, u32); 10] = [
    ("channels", 16),
    ("box_width", 32),
    ("mask_width", 16),
    ("candidates", 64),
    ("proposals", 32),
    ("regions", 24),
    ("prototypes", 64),
    ("hidden", 64),
    ("bottleneck", 16),
    ("freeze_last_layer_steps", 10),
];

/// An objective with further keys that make it keep other things, and what else is set; the last one starts from weights that another one made before it.
const VARIANTS: [(&str, &str, &str, &[&str]); 4] = [
    ("iBOT", "dino", "ibot_weight = 1.0\n", &[]),
    (
        "DINOv2",
        "dino",
        "ibot_weight = 1.0\nkoleo_weight = 0.1\ncentring = \"sinkhorn\"\nseparate_heads = true\nibot_prototypes = 32\n",
        &[],
    ),
    (
        "UperNet",
        "segment",
        "head = \"upernet\"\nwidth = 16\nauxiliary_width = 8\n",
        &["--set", "model.depth=4"],
    ),
    ("fine-tuned", "classify", "", &["--set", "run.init_from=mae-undisturbed"]),
];

/// The ground's config with an objective's defaults, averaged weights beside the trained ones, and the evaluation that draws a picture, where there is one.
pub(crate) fn config_of(ground: &Ground, kind: &splitmask::objective::Kind, more: &str) -> String {
    let text = ground.config_text();
    let (before, rest) = text.split_once("[objective]").unwrap();
    let (_, after) = rest.split_once("[optim]").unwrap();
    let small = SMALL.iter().filter(|(key, _)| kind.keys().any(|k| k.name == *key));
    let small: String = small.map(|(key, size)| format!("{key} = {size}\n")).collect();
    let plan = (kind.variants)().remove(0);
    // Objects are packed by themselves.
    let before = match plan.request(&Scope::new(&Default::default(), 8, 64)).objects {
        Some(_) => before.replace(
            &ground.path("data").display().to_string(),
            &ground.path("objects").display().to_string(),
        ),
        None => before.to_owned(),
    };
    let judged = match plan.classes().map(|_| plan.classes_of()) {
        Some(ClassesOf::Images) => "[eval]\nwatch = \"classify\"\nevery_steps = 50\n",
        _ => "",
    };
    format!(
        "{before}[objective]\nkind = \"{}\"\n{small}{more}{judged}[ema]\ndecay = 0.9\n[optim]{after}",
        kind.name
    )
}

/// What an objective keeps besides weights (a teacher, the running statistics of BatchNorm) must come back too; and every picture is drawn that it may draw.
#[test]
fn a_killed_run_of_each_objective_goes_on_bit_for_bit() {
    let ground = Ground::with_maps();
    ground.pack_objects();
    let kinds = splitmask::objective::OBJECTIVES.iter().map(|kind| (kind.name, *kind, "", &[][..]));
    let variants = VARIANTS.map(|(name, kind, more, sets)| (name, splitmask::objective::kind(kind).unwrap(), more, sets));
    for (name, kind, more, sets) in kinds.chain(variants) {
        std::fs::write(ground.config(), config_of(&ground, kind, more)).unwrap();
        let run = |folder: &str| {
            let set = format!("run.dir=\"{}\"", ground.path(folder).display());
            let always = ["--set", "optim.total_steps=150", "--set", "log.every_steps=10", "--set", &set];
            let mut command = ground.train(&[&always[..], sets].concat());
            command.current_dir(ground.dir.path());
            command
        };
        let finished = |folder: &str| {
            let output = run(folder).output().unwrap();
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{name}: {log}");
            assert!(!log.contains("failed; training goes on"), "{name}: {log}");
            for (picture, _) in splitmask::picture::drawn(kind) {
                let file = ground.path(folder).join(format!("{picture}.png"));
                assert!(file.is_file(), "{name}: {picture}.png was not drawn: {log}");
            }
            let last = splitmask::checkpoint::steps(&ground.path(folder).join("checkpoints"))
                .pop()
                .unwrap();
            let weights = ground.path(folder).join(format!("checkpoints/step-{last:08}/model.safetensors"));
            (ground.trace(folder), std::fs::read(weights).unwrap(), log)
        };
        let (undisturbed, killed) = (format!("{name}-undisturbed"), format!("{name}-killed"));
        let (want, weights, log) = finished(&undisturbed);
        let from_weights = sets.iter().any(|set| set.starts_with("run.init_from"));
        assert_eq!(log.contains("initialised from weights"), from_weights, "{name}: {log}");
        let mut daemon = Daemon::start(run(&killed), &ground.path("killed.log"));
        daemon.until("the step of the kill", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 20));
        daemon.signal("KILL");
        assert!(!daemon.end().success());
        let (have, resumed, _) = finished(&killed);
        assert_eq!(have, want, "{name}");
        assert!(
            resumed == weights,
            "{name}: weights, averages and buffers are not those of the undisturbed run"
        );
        crate::exports::are_what_was_learnt(&ground, name, &killed);
    }
}

#[test]
fn workers_and_readers_change_nothing() {
    let ground = Ground::new();
    let trace = |run: &str, more: &[&str]| {
        let set = format!("run.dir=\"{}\"", ground.path(run).display());
        let mut arguments = vec!["--set", "optim.total_steps=24", "--set", &set];
        arguments.extend(more);
        let output = ground.train(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ground.trace(run)
    };
    let one = trace("one", &["--set", "pipeline.workers=1", "--set", "pipeline.readers=1"]);
    let many = trace(
        "many",
        &[
            "--set",
            "pipeline.workers=5",
            "--set",
            "pipeline.readers=3",
            "--set",
            "pipeline.queue_batches=7",
        ],
    );
    assert_eq!(one, many);
    // Nor does who finds the visual words.
    let on_device = trace("device", &["--set", "codebook.where=\"device\""]);
    assert_eq!(one, on_device);
}

#[test]
fn a_stop_signal_leaves_a_checkpoint_and_code_75() {
    let ground = Ground::new();
    let mut daemon = Daemon::start(ground.train(&["--set", "optim.total_steps=100000"]), &ground.path("log"));
    daemon.until("a step", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 5));
    daemon.signal("TERM");
    let status = daemon.end();
    assert_eq!(status.code(), Some(75));
    let checkpoints = splitmask::checkpoint::steps(&ground.path("run/checkpoints"));
    assert!(checkpoints.last().is_some_and(|s| *s >= 5), "{checkpoints:?}");
}
