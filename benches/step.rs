//! Times bare SplitMask training steps: forward, both losses, backward, clip, fused AdamW, on data made once. No input pipeline.
//!
//! `cargo bench --profile dev --bench step -- [--model nano|tiny|small|base] [--image 224] [--patch 16] [--batch 16] [--vocab 8192]
//! [--bf16] [--threads 2] [--seconds 20] [--device cpu|cuda]`; without arguments the four cases of `docs/benchmarks.md`. The dev profile is
//! optimised and already built; `bench` would compile libtorch's bindings a second time.
//!
//! With `--overhead` it measures instead what the daemon's loop costs over such a step; see `overhead`. `--json` then prints JSON.
#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

mod overhead;

use std::time::{Duration, Instant};

use splitmask::model::config::{VitConfig, VitSize};
use splitmask::objective::pretrain::splitmask::SplitMaskConfig;
use splitmask::objective::{Objective, ObjectiveConfig, Scope, StepContext};
use splitmask::optim::AdamW;
use splitmask::optim::config::OptimConfig;
use splitmask::setting::Findings;
use splitmask::tensor::{NamedView, PatchSets, StepInput, choose_device};
use splitmask_pipeline::request::IMAGE;
use tch::{Device, Kind, Tensor, nn};

struct Case {
    size: VitSize,
    image: u32,
    patch: u32,
    batch: i64,
    vocabulary: i64,
    bf16: bool,
    threads: i32,
    seconds: f64,
    device: String,
    overhead: bool,
    json: bool,
}

impl Default for Case {
    fn default() -> Self {
        let (size, device) = (VitSize::Small, "cpu".to_owned());
        Self {
            size,
            image: 224,
            patch: 16,
            batch: 16,
            vocabulary: 8192,
            bf16: false,
            threads: 2,
            seconds: 20.0,
            device,
            overhead: false,
            json: false,
        }
    }
}

fn parse(args: &[String]) -> Result<Case, String> {
    let mut case = Case::default();
    let mut args = args.iter();
    while let Some(key) = args.next() {
        let switch = match key.as_str() {
            "--bf16" => Some(&mut case.bf16),
            "--overhead" => Some(&mut case.overhead),
            "--json" => Some(&mut case.json),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{key} needs a value"))?;
        let bad = |e: &dyn std::fmt::Display| format!("{key} {value}: {e}");
        match key.as_str() {
            "--model" => case.size = toml::Value::String(value.clone()).try_into().map_err(|e| bad(&e))?,
            "--image" => case.image = value.parse().map_err(|e| bad(&e))?,
            "--patch" => case.patch = value.parse().map_err(|e| bad(&e))?,
            "--batch" => case.batch = value.parse().map_err(|e| bad(&e))?,
            "--vocab" => case.vocabulary = value.parse().map_err(|e| bad(&e))?,
            "--threads" => case.threads = value.parse().map_err(|e| bad(&e))?,
            "--seconds" => case.seconds = value.parse().map_err(|e| bad(&e))?,
            "--device" => case.device.clone_from(value),
            _ => return Err(format!("unknown argument {key}")),
        }
    }
    Ok(case)
}

fn random_input(case: &Case, n: i64, device: Device) -> StepInput {
    let order = Tensor::rand([case.batch, n], (Kind::Float, device)).argsort(-1, false);
    let half = |start| order.narrow(1, start, n / 2).sort(-1, false).0;
    let (a, b) = (half(0), half(n / 2));
    let side = i64::from(case.image);
    StepInput {
        len: case.batch,
        views: vec![NamedView {
            name: IMAGE.into(),
            pixels: Tensor::randn([case.batch, 3, side, side], (Kind::Float, device)),
        }],
        words: Some(Tensor::randint(case.vocabulary, [case.batch, n], (Kind::Int64, device))),
        largest_word: 0,
        hidden: None,
        sets: Some(PatchSets {
            patches: n,
            a: a.shallow_clone(),
            b: b.shallow_clone(),
            not_a: b,
            not_b: a,
        }),
        maps: None,
        objects: None,
        labels: Tensor::zeros([case.batch], (Kind::Int64, device)),
    }
}

fn step(objective: &dyn Objective, input: &StepInput, adamw: &mut AdamW, bf16: bool, device: Device) -> Result<(), String> {
    let losses = {
        let _autocast = bf16
            .then(|| torch_ext::Autocast::bf16(device))
            .transpose()
            .map_err(|e| e.to_string())?;
        objective.forward(input, &training(input.len)).map_err(|e| e.to_string())?
    };
    losses.total.backward();
    let _norm = adamw.clipped_step(1e-4, 0.05, 3.0).map_err(|e| e.to_string())?;
    // As the trainer does: gradients make room before the next forward.
    adamw.zero_grad().map_err(|e| e.to_string())?;
    if let Device::Cuda(i) = device {
        tch::Cuda::synchronize(i as i64);
    }
    Ok(())
}

/// Peak resident memory of the process so far, MiB.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

impl Case {
    fn model(&self) -> Result<VitConfig, String> {
        let model = VitConfig {
            size: self.size,
            image: self.image,
            patch: self.patch,
            ..VitConfig::default()
        };
        let mut found = Findings::default();
        model.check(&mut found);
        found.first().map_err(|e| e.to_string())?;
        Ok(model)
    }
}

/// A training step over a whole batch.
fn training(images: i64) -> StepContext {
    StepContext {
        train: true,
        ..StepContext::evaluation(0, 1, images)
    }
}

fn objective_config() -> ObjectiveConfig {
    ObjectiveConfig::from(SplitMaskConfig {
        drop_path: 0.0,
        ..SplitMaskConfig::default()
    })
}

fn run(case: &Case) -> Result<(), String> {
    if case.overhead {
        return overhead::run(case);
    }
    tch::set_num_threads(case.threads);
    tch::manual_seed(0);
    let (device, _) = choose_device(&case.device).map_err(|e| e.to_string())?;
    let model = case.model()?;
    let vs = nn::VarStore::new(device);
    let objective = objective_config().build(&vs.root(), &Scope::new(&model, case.batch as u32, case.vocabulary));
    let mut adamw = AdamW::new(vs.variables(), |n, d| objective.rule(n, d), &OptimConfig::default());
    let input = random_input(case, model.patches(), device);
    let mut one = || step(objective.as_ref(), &input, &mut adamw, case.bf16, device);
    for _ in 0..3 {
        one()?;
    }
    let (start, mut times) = (Instant::now(), Vec::<Duration>::new());
    while start.elapsed().as_secs_f64() < case.seconds || times.len() < 5 {
        let t = Instant::now();
        one()?;
        times.push(t.elapsed());
    }
    times.sort();
    let median = times[times.len() / 2].as_secs_f64();
    let memory = match device {
        Device::Cuda(i) => torch_ext::cuda_memory(i).map_err(|e| e.to_string())?.peak.unsigned_abs() >> 20,
        _ => peak_rss().unwrap_or(0),
    };
    println!(
        "{:?} image={} patch={} batch={} bf16={} threads={} {}: {:.1} ms/step  {:.2} images/s  peak {memory} MiB  n={}",
        case.size,
        case.image,
        case.patch,
        case.batch,
        case.bf16,
        case.threads,
        case.device,
        median * 1e3,
        case.batch as f64 / median,
        times.len()
    );
    Ok(())
}

fn main() -> std::process::ExitCode {
    // As a training does.
    torch_ext::keep_freed_memory();
    // `cargo bench` adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let cases = if args.is_empty() {
        let small = |bf16| Case { bf16, ..Case::default() };
        let tiny = |bf16| Case {
            size: VitSize::Tiny,
            image: 64,
            patch: 8,
            batch: 64,
            bf16,
            ..Case::default()
        };
        Ok(vec![small(false), small(true), tiny(false), tiny(true)])
    } else {
        parse(&args).map(|case| vec![case])
    };
    match cases.and_then(|cases| cases.iter().try_for_each(run)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            std::process::ExitCode::from(64)
        }
    }
}
