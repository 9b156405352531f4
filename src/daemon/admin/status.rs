//! What is known without a look at any file: status, config, pipeline.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use splitmask_pipeline::bucket::secret::hidden;

use super::pipeline;
use super::shared::Seen;
use crate::config::{keys, tree};
use crate::daemon::daemon_status::lock;

pub(super) async fn status(State(shared): Seen) -> Json<Value> {
    let status = lock(&shared.status).clone();
    let policy = shared.policy.read().unwrap_or_else(PoisonError::into_inner).clone();
    let shown = lock(&shared.shown);
    Json(json!({
        "run": shown.config.run.name,
        "run_dir": shown.config.run_dir(),
        "objective": shown.config.objective.kind().name,
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": shown.started.elapsed().as_secs_f64(),
        "lifecycle": policy.lifecycle(),
        "asks_for_token": policy.asks_for_token(),
        "state": status.state,
        "paused": status.paused,
        "pause_asked": status.pause_asked,
        "waiting": shown.waiting,
        "ready": status.ready && status.paused.is_none() && shown.stuck.is_none() && shown.waiting.is_none() && shown.generation > 0 && !shown.draining,
        "draining": shown.draining,
        "stuck": shown.stuck,
        "step": status.step,
        "total_steps": status.total_steps,
        "epoch": status.epoch,
        "cursor": status.cursor,
        "images_per_second": status.images_per_second,
        "data_wait_ratio": status.data_wait_ratio,
        "losses": status.losses.iter().cloned().collect::<BTreeMap<_, _>>(),
        "chance": status.chance.iter().cloned().collect::<BTreeMap<_, _>>(),
        "token_entropy": status.token_entropy,
        "learning_rate": status.learning_rate,
        "grad_norm": status.grad_norm,
        "last_checkpoint_step": status.last_checkpoint_step,
        "evaluations": status.evaluations.iter().map(|(task, accuracy, step)| json!({ "task": task, "accuracy": accuracy, "step": step })).collect::<Vec<_>>(),
        "best": status.best.as_ref().map(|(measure, value, step)| json!({ "measure": measure, "value": value, "step": step })),
        "overfitting": status.overfitting,
        "mirror": *lock(&shown.mirror),
        "collapsed": status.collapsed,
        "side_failures": status.side_failures,
        "unwritten_lines": status.unwritten_lines,
        "faults": status.sample_errors.iter().cloned().collect::<BTreeMap<_, _>>(),
        "queue": { "batches": status.queue.0, "capacity": status.queue.1 },
        "config": { "generation": shown.generation, "sha256": shown.config_sha256, "last_reload": shown.last_reload },
    }))
}

pub(super) async fn config(State(shared): Seen) -> Json<Value> {
    let shown = lock(&shared.shown);
    let settings: Vec<Value> = tree::flatten(&tree::of(&shown.config))
        .into_iter()
        .map(|(path, value)| {
            let value = redacted(serde_json::to_value(value).unwrap_or(Value::Null));
            let key = keys::of(&path, shown.config.objective.kind().name);
            json!({ "path": path, "value": value, "class": key.map(|k| k.class()), "doc": key.map(|k| k.doc.as_str()) })
        })
        .collect();
    Json(json!({ "generation": shown.generation, "sha256": shown.config_sha256, "settings": settings }))
}

/// Cuts credentials from every string in a value; a valid config has none.
fn redacted(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(hidden(&text)),
        Value::Array(items) => items.into_iter().map(redacted).collect(),
        Value::Object(table) => table.into_iter().map(|(key, item)| (key, redacted(item))).collect(),
        other => other,
    }
}

pub(super) async fn pipeline_rates(State(shared): Seen) -> Json<pipeline::Answer> {
    let workers = shared.config().pipeline.worker_threads();
    Json(lock(&shared.pipeline).answer(&shared.registry, workers, Instant::now()))
}
