//! What a config means: values that differ from the defaults, what follows from them, what looks odd.

use std::fmt::Write;

use super::problem::shown;
use super::{Loaded, keys, tree};
use crate::eval::pool::Pool;
use crate::objective::Start;

/// Bytes of one sample in a batch: what the objective asks for.
#[must_use]
pub fn sample_bytes(config: &super::Config) -> u64 {
    config.request().sample_bytes() as u64
}

/// Weights and biases of the backbone: patch embedding, class token, positions, blocks, final norm.
#[must_use]
pub fn backbone_parameters(config: &super::Config) -> u64 {
    let m = &config.model;
    let (d, n) = (m.dim().unsigned_abs(), m.patches().unsigned_abs());
    let hidden = (d as f64 * m.mlp_ratio) as u64;
    let block = 4 * d * d + 4 * d + 2 * d * hidden + hidden + d + 4 * d;
    3 * u64::from(m.patch).pow(2) * d + d + d + (n + 1) * d + m.layers().unsigned_abs() * block + 2 * d
}

/// Things that are allowed and probably not meant.
#[must_use]
pub fn warnings(c: &super::Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let batch_mib = (u64::from(c.train.batch) * sample_bytes(c)).div_ceil(1 << 20);
    let queue = c.pipeline.queue_mib as u64;
    if batch_mib > queue {
        warnings.push(format!(
            "one batch takes {batch_mib} MiB, more than pipeline.queue_mib = {queue}: the queue holds one batch at a time"
        ));
    } else if batch_mib * c.pipeline.queue_batches as u64 > queue {
        warnings.push(format!(
            "pipeline.queue_mib = {queue} holds {} batches, fewer than pipeline.queue_batches = {}",
            queue / batch_mib.max(1),
            c.pipeline.queue_batches
        ));
    }
    if c.checkpoint.every_steps > c.optim.total_steps {
        warnings.push(format!(
            "checkpoint.every_steps = {} is beyond optim.total_steps = {}: only the end is saved",
            c.checkpoint.every_steps, c.optim.total_steps
        ));
    }
    if c.optim.warmup_steps * 2 > c.optim.total_steps {
        warnings.push(format!(
            "more than half of the {} steps is warm-up ({})",
            c.optim.total_steps, c.optim.warmup_steps
        ));
    }
    if !c.codebook.path.is_empty() && !std::path::Path::new(&c.codebook.path).exists() {
        warnings.push(format!("codebook.path = \"{}\" does not exist yet", c.codebook.path));
    }
    if !c.run.init_from.is_empty() && !std::path::Path::new(&c.run.init_from).exists() {
        warnings.push(format!("run.init_from = \"{}\" does not exist", c.run.init_from));
    }
    if c.run.init_from.is_empty() && c.objective.start() == Start::BetterPretrained {
        warnings.push(format!(
            "run.init_from is empty: objective.kind = \"{}\" then learns from drawn weights, which is a baseline; name a run folder to start from its encoder",
            c.objective.kind().name
        ));
    }
    if c.admin.tells_tokens() {
        warnings.push(format!(
            "admin.bind = {:?} without admin.tls_cert: tokens cross the network in the clear; set admin.tls_cert and admin.tls_key, or reach it by a tunnel or a proxy",
            c.admin.bind
        ));
    }
    let learns_by: Vec<Pool> = c.objective.learns_by().iter().map(|by| Pool::that_learns(*by)).collect();
    if c.eval.pool != Pool::Both && !learns_by.contains(&c.eval.pool) {
        warnings.push(format!(
            "eval.pool = {} is not what objective.kind = \"{}\" learns by, which is the {}: k-NN, spread and neighbours look at tokens that no loss sees",
            c.eval.pool,
            c.objective.kind().name,
            learns_by[0].words()
        ));
    }
    warnings.extend(c.objective.oddities(&c.scope()));
    warnings
}

/// Images in the training data, where it is a local folder with a manifest; about, with `data.fraction` < 1.
fn samples(config: &super::Config) -> Option<u64> {
    let text = std::fs::read(std::path::Path::new(&config.data.train).join("manifest.json")).ok()?;
    let manifest = splitmask_pipeline::bucket::manifest::Manifest::parse(&text, &config.data.train).ok()?;
    Some((manifest.samples() as f64 * config.data.fraction).round() as u64)
}

/// The schedule in steps, images and, where the size of the data is known, epochs.
fn length(config: &super::Config) -> String {
    let samples = samples(config);
    let fitted = config.optim.fitted(config.train.batch, samples);
    let (steps, batch) = (fitted.optim.total_steps, u64::from(config.train.batch));
    let mut text = format!("{steps} steps × {batch} images = {} images", steps.saturating_mul(batch));
    match (samples, fitted.epochs) {
        (Some(samples), Some(epochs)) => {
            let _ = write!(text, " = {epochs:.1} epochs of {samples}");
        }
        _ if config.optim.max_epochs > 0 => {
            let _ = write!(
                text,
                ", or fewer: at most {} epochs (the shards tell their number of images at the start)",
                config.optim.max_epochs
            );
        }
        _ => {}
    }
    if steps < config.optim.total_steps {
        let _ = write!(
            text,
            "; cut from {} steps by optim.max_epochs = {}, warm-up from {} to {}",
            config.optim.total_steps, config.optim.max_epochs, config.optim.warmup_steps, fitted.optim.warmup_steps
        );
    }
    text
}

/// The explanation that `splitmask check-config` prints.
#[must_use]
pub fn explain(loaded: &Loaded) -> String {
    let c = &loaded.config;
    let mut text = String::new();
    let default = tree::flatten(&tree::of(&super::Config::default()));
    let _ = writeln!(text, "settings that differ from the defaults:");
    for (key, value) in tree::flatten(&tree::of(c)) {
        if default.get(&key) == Some(&value) {
            continue;
        }
        let class = keys::of(&key, c.objective.kind().name).map_or_else(String::new, |k| k.class().to_string());
        let place = loaded
            .places
            .get(&key)
            .map_or_else(|| "default of the kind".to_owned(), ToString::to_string);
        let _ = writeln!(text, "  {key} = {}  [{class}]  {place}", shown(&value));
    }
    let batch = u64::from(c.train.batch);
    let batch_mib = (batch * sample_bytes(c)) as f64 / f64::from(1 << 20);
    let held = batch_mib * c.pipeline.queue_batches as f64;
    let _ = writeln!(text, "what follows:");
    let _ = writeln!(text, "  run folder   {}", c.run_dir().display());
    let _ = writeln!(text, "  objective    {}: {}", c.objective.kind().name, c.objective.kind().doc);
    let _ = writeln!(
        text,
        "  backbone     {} wide, {} blocks, {} heads, {} patches of {}×{}: {:.2} M parameters without heads",
        c.model.dim(),
        c.model.layers(),
        c.model.head_count(),
        c.model.patches(),
        c.model.patch,
        c.model.patch,
        backbone_parameters(c) as f64 / 1e6
    );
    let _ = writeln!(text, "  length       {}", length(c));
    let _ = match u64::from(c.train.accumulate) {
        0 => writeln!(text, "  micro-batch  as many images as fit into memory"),
        parts => writeln!(text, "  micro-batch  {} images, {parts} per step", batch / parts),
    };
    let _ = writeln!(
        text,
        "  queue        {} batches × {batch_mib:.1} MiB ({batch} × {} bytes) = {held:.0} MiB, bound {} MiB",
        c.pipeline.queue_batches,
        sample_bytes(c),
        c.pipeline.queue_mib
    );
    let _ = writeln!(
        text,
        "  checkpoints  every {} steps, the newest {} kept",
        c.checkpoint.every_steps, c.checkpoint.keep
    );
    let _ = writeln!(
        text,
        "  admin        {}",
        if c.admin.bind.is_empty() {
            "none".into()
        } else {
            c.admin.url(&c.admin.bind)
        }
    );
    let _ = writeln!(text, "  sha256       {}", c.sha256());
    // Of several sources no single number of images counts.
    let of_set = samples(c)
        .filter(|_| c.data.sources.is_empty())
        .map(|samples| c.objective.odd_with(samples));
    for warning in warnings(c).into_iter().chain(of_set.into_iter().flatten()) {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}
