//! What the daemon's loop costs over a bare step of the same model, batches and threads.
//!
//! Rounds of two kinds take turns, so that a machine that gets slower or faster meets both: a bare loop of steps on one fixed batch (forward, losses,
//! backward, clip, fused AdamW), and the trainer as the daemon runs it: queue, staging, normalising, skip of bad steps, phases, metrics, log lines
//! every 10 steps, status. Checkpoints, pictures and evaluations are off. Its queue is fed with batches made before, by a thread that only copies, so
//! no step waits for data; the share that did is printed beside the ratio.
//!
//! Both are timed over groups of as many steps as a log interval has; the first group of a round warms up and does not count.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Instant;

use splitmask::model::config::VitConfig;
use splitmask::objective::Scope;
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use splitmask::telemetry::metrics::TrainMetrics;
use splitmask::tensor::{choose_device, step_input};
use splitmask::trainer::control::StatusBoard;
use splitmask::trainer::spec::{CheckpointConfig, LogConfig, PictureConfig, Precision, TrainConfig, TrainerSpec};
use splitmask::trainer::{Telemetry, run_prepared};
use splitmask::words::CodebookConfig;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::IMAGE;
use splitmask_pipeline::tokenize::{BookSpec, PixelSpace, build_random_projection};
use splitmask_pipeline::types::{Batch, PatchSet, SampleId, View};
use tch::nn;

use super::{Case, objective_config, step};

/// Steps of a log interval, and of a group.
const GROUP: u64 = 10;
/// Groups of a round that count.
const COUNTED: u64 = 2;
/// Rounds of each kind at least.
const LEAST_ROUNDS: usize = 3;
/// Different batches.
const BATCHES: u64 = 4;

/// A sequence of numbers without a pattern that matters (SplitMix64).
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Noise as pictures, random words, and for each image a random half of the patches.
fn batch(case: &Case, model: &VitConfig, seed: u64) -> Batch {
    let (len, patches) = (case.batch as usize, model.patches() as usize);
    let mut next = numbers(seed);
    let pixels = 3 * (case.image as usize).pow(2) * len;
    let sets = (0..len).flat_map(|_| {
        let mut order: Vec<(u64, usize)> = (0..patches).map(|p| (next(), p)).collect();
        order.sort_unstable();
        let mut sets = vec![PatchSet::B; patches];
        order.iter().take(patches / 2).for_each(|(_, p)| sets[*p] = PatchSet::A);
        sets
    });
    let sets = sets.collect();
    Batch {
        len,
        views: vec![View {
            name: IMAGE.into(),
            size: case.image,
            pixels: (0..pixels).map(|_| next() as u8).collect(),
        }],
        target: None,
        words: (0..len * patches).map(|_| (next() % case.vocabulary as u64) as u32).collect(),
        sets,
        hidden: vec![],
        maps: vec![],
        objects: vec![],
        object_offsets: vec![],
        labels: vec![-1; len],
        ids: vec![
            SampleId {
                epoch: 0,
                shard: 0,
                member: 0
            };
            len
        ],
        cursor: Cursor::default(),
    }
}

fn spec(case: &Case, model: &VitConfig, codebook: &Path, run_dir: &Path) -> TrainerSpec {
    let never = u64::MAX;
    TrainerSpec {
        seed: 0,
        run_dir: run_dir.to_owned(),
        lock: None,
        codebook: CodebookConfig {
            path: codebook.display().to_string(),
            ..CodebookConfig::default()
        },
        init_from: None,
        init_partial: false,
        data: Default::default(),
        pipeline: Default::default(),
        augment: Default::default(),
        model: model.clone(),
        objective: objective_config(),
        optim: OptimConfig {
            total_steps: GROUP * (1 + COUNTED),
            warmup_steps: 1,
            ..OptimConfig::default()
        },
        ema: Default::default(),
        train: TrainConfig {
            batch: case.batch as u32,
            precision: if case.bf16 { Precision::Bf16 } else { Precision::F32 },
            device: case.device.clone(),
            threads: case.threads as u32,
            ..TrainConfig::default()
        },
        ranks: Default::default(),
        stability: Default::default(),
        debug: Default::default(),
        checkpoint: CheckpointConfig {
            every_steps: never,
            ..CheckpointConfig::default()
        },
        eval: Default::default(),
        picture: PictureConfig {
            keep: 0,
            every_steps: never,
            rows: 0,
        },
        log: LogConfig {
            every_steps: GROUP,
            ..LogConfig::default()
        },
        grace: Default::default(),
        labels: Default::default(),
        config_toml: String::new(),
    }
}

/// Seconds a step of each group that counts.
fn bare(case: &Case, model: &VitConfig, batch: &Batch) -> Result<Vec<f64>, String> {
    tch::set_num_threads(case.threads);
    tch::manual_seed(0);
    let (device, _) = choose_device(&case.device).map_err(|e| e.to_string())?;
    let vs = nn::VarStore::new(device);
    let objective = objective_config().build(&vs.root(), &Scope::new(model, case.batch as u32, case.vocabulary));
    let mut adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &OptimConfig::default());
    let normalise = TrainConfig::default().normalise();
    let input = step_input(batch, 0..batch.len, device, &normalise).map_err(|e| e.to_string())?;
    let mut groups = Vec::new();
    for _ in 0..1 + COUNTED {
        let began = Instant::now();
        for _ in 0..GROUP {
            step(objective.as_ref(), &input, &mut adamw, case.bf16, device)?;
        }
        groups.push(began.elapsed().as_secs_f64() / GROUP as f64);
    }
    groups.remove(0);
    Ok(groups)
}

/// As [`bare`], of the trainer's loop; with each the share of the time that was spent waiting for data.
fn daemon(case: &Case, model: &VitConfig, batches: &[Batch], codebook: &Path) -> Result<Vec<(f64, f64)>, String> {
    let run_dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let registry = prometheus::Registry::new();
    let telemetry = Telemetry {
        train: TrainMetrics::new(&registry).map_err(|e| e.to_string())?,
        pipeline: PipelineMetrics::register(&registry).map_err(|e| e.to_string())?,
    };
    // A hung-up commander would stop the run.
    let (_commander, commands) = channel();
    let spec = spec(case, model, codebook, run_dir.path());
    run_prepared(spec, batches.to_vec(), &commands, StatusBoard::default(), telemetry).map_err(|e| e.to_string())?;
    let journal = std::fs::read_to_string(run_dir.path().join("metrics.jsonl")).map_err(|e| e.to_string())?;
    let mut groups = Vec::new();
    for line in journal.lines() {
        let line: serde_json::Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        if let (Some(speed), Some(waited)) = (line["images_per_second"].as_f64(), line["data_wait_ratio"].as_f64()) {
            groups.push((case.batch as f64 / speed, waited));
        }
    }
    if groups.len() as u64 != 1 + COUNTED {
        return Err(format!("{} log lines where {} were expected", groups.len(), 1 + COUNTED));
    }
    groups.remove(0);
    Ok(groups)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

pub(super) fn run(case: &Case) -> Result<(), String> {
    let model = case.model()?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let codebook = folder.path().join("words.safetensors");
    let book = BookSpec {
        words: case.vocabulary as usize,
        patch: case.patch / 2,
        pixels: PixelSpace::Raw,
        seed: 0,
    };
    let book = build_random_projection(&book, [-1.0, 1.0]).map_err(|e| e.to_string())?;
    book.save(&codebook).map_err(|e| e.to_string())?;
    let batches: Vec<Batch> = (1..=BATCHES).map(|seed| batch(case, &model, seed)).collect();

    let (began, mut bares, mut daemons) = (Instant::now(), Vec::new(), Vec::new());
    let mut rounds = 0;
    while rounds < LEAST_ROUNDS || began.elapsed().as_secs_f64() < case.seconds {
        // Who comes first changes, so that neither always meets the machine the other left.
        if rounds % 2 == 0 {
            bares.extend(bare(case, &model, &batches[0])?);
            daemons.extend(daemon(case, &model, &batches, &codebook)?);
        } else {
            daemons.extend(daemon(case, &model, &batches, &codebook)?);
            bares.extend(bare(case, &model, &batches[0])?);
        }
        rounds += 1;
    }
    let (step_s, loop_s) = (median(bares.iter().copied()), median(daemons.iter().map(|d| d.0)));
    let (ratio, waited) = (loop_s / step_s, median(daemons.iter().map(|d| d.1)));
    if case.json {
        let found = serde_json::json!({
            "model": format!("{:?}", case.size).to_lowercase(), "image": case.image, "patch": case.patch, "batch": case.batch,
            "vocabulary": case.vocabulary, "bf16": case.bf16, "threads": case.threads, "device": case.device, "rounds": rounds,
            "groups": bares.len(), "steps_a_group": GROUP, "step_s": step_s, "loop_s": loop_s, "ratio": ratio, "data_wait_ratio": waited,
            "step_s_of_groups": bares, "loop_s_of_groups": daemons.iter().map(|d| d.0).collect::<Vec<_>>(),
        });
        println!("{found:#}");
    } else {
        println!(
            "{:?} image={} patch={} batch={} vocabulary={} bf16={} threads={} {}: step {:.2} ms, daemon's loop {:.2} ms: {:.4} × ({:+.2} %), waiting \
             for data {:.2} %; medians of {} groups of {GROUP} steps each, {rounds} rounds",
            case.size,
            case.image,
            case.patch,
            case.batch,
            case.vocabulary,
            case.bf16,
            case.threads,
            case.device,
            step_s * 1e3,
            loop_s * 1e3,
            ratio,
            100.0 * (ratio - 1.0),
            100.0 * waited,
            bares.len()
        );
    }
    Ok(())
}
