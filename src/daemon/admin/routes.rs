//! The endpoints.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Shared;
use super::guard::{guard, refusal};
use crate::config::{classes, problem, tree};
use crate::daemon::board::lock;
use crate::daemon::events::Event;
use crate::telemetry::metrics::{ReloadOutcome, render};

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready))
        .route("/-/reload", post(reload))
        .route("/-/checkpoint", post(checkpoint))
        .route("/-/quit", post(quit))
        .route("/api/v1/status", get(status))
        .route("/api/v1/config", get(config))
        .route("/inpaint.png", get(inpaint))
        .route("/curves.svg", get(curves))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "no such endpoint") })
        .method_not_allowed_fallback(|| async { refusal(StatusCode::METHOD_NOT_ALLOWED, "this endpoint takes another method") })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

type Seen = State<Arc<Shared>>;

async fn page() -> Html<&'static str> {
    Html(include_str!("status_page.html"))
}

async fn metrics(State(shared): Seen) -> Response {
    match render(&shared.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(e) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

async fn healthy(State(shared): Seen) -> Response {
    match &lock(&shared.board).stuck {
        None => "healthy\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn ready(State(shared): Seen) -> Response {
    // Ready once the supervisor has accepted the start too, so that a reload right after is not refused.
    let (draining, accepted) = {
        let board = lock(&shared.board);
        (board.draining, board.generation > 0)
    };
    let (state, paused) = {
        let status = lock(&shared.status);
        (accepted && status.ready, status.paused.clone())
    };
    if let (false, Some(reason)) = (draining, paused) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("paused: {reason}\n")).into_response();
    }
    match (draining, state) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "starting: the first batch is not there yet\n").into_response(),
        (false, true) => "ready\n".into_response(),
    }
}

async fn reload(State(shared): Seen) -> Response {
    let (reply, answer) = oneshot::channel();
    let ended = || refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending");
    if shared.events.send(Event::Reload(reply)).is_err() {
        return ended();
    }
    let Ok(report) = answer.await else { return ended() };
    let status = match report.outcome {
        ReloadOutcome::Applied | ReloadOutcome::Unchanged => StatusCode::OK,
        ReloadOutcome::Frozen => StatusCode::CONFLICT,
        ReloadOutcome::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ReloadOutcome::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        ReloadOutcome::Busy if report.error.as_deref() == Some("not ready") => StatusCode::SERVICE_UNAVAILABLE,
        ReloadOutcome::Busy => StatusCode::TOO_MANY_REQUESTS,
    };
    (status, Json(report)).into_response()
}

async fn checkpoint(State(shared): Seen) -> Response {
    let (reply, answer) = oneshot::channel();
    if shared.events.send(Event::Checkpoint(reply)).is_err() {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending");
    }
    match answer.await {
        Ok(Ok((path, step))) => Json(json!({ "path": path, "step": step })).into_response(),
        Ok(Err(error)) if error == "not ready" => refusal(StatusCode::SERVICE_UNAVAILABLE, &error),
        Ok(Err(error)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending"),
    }
}

async fn quit(State(shared): Seen) -> Response {
    let _ = shared.events.send(Event::Quit);
    (StatusCode::ACCEPTED, Json(json!({ "state": "draining" }))).into_response()
}

async fn status(State(shared): Seen) -> Json<Value> {
    let status = lock(&shared.status).clone();
    let mut history: BTreeMap<&str, Vec<(u64, f64)>> = BTreeMap::new();
    for (step, term, value) in &status.history {
        history.entry(term).or_default().push((*step, *value));
    }
    let board = lock(&shared.board);
    Json(json!({
        "run": board.config.run.name,
        "run_dir": board.config.run_dir(),
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": board.started.elapsed().as_secs_f64(),
        "state": status.state,
        "paused": status.paused,
        "ready": status.ready && status.paused.is_none() && board.generation > 0 && !board.draining,
        "draining": board.draining,
        "stuck": board.stuck,
        "step": status.step,
        "total_steps": status.total_steps,
        "epoch": status.epoch,
        "cursor": status.cursor,
        "images_per_second": status.images_per_second,
        "data_wait_ratio": status.data_wait_ratio,
        "losses": status.losses.iter().cloned().collect::<BTreeMap<_, _>>(),
        "token_entropy": status.token_entropy,
        "learning_rate": status.learning_rate,
        "grad_norm": status.grad_norm,
        "last_checkpoint_step": status.last_checkpoint_step,
        "evaluations": status.evaluations.iter().map(|(task, accuracy, step)| json!({ "task": task, "accuracy": accuracy, "step": step })).collect::<Vec<_>>(),
        "best": status.best.as_ref().map(|(measure, value, step)| json!({ "measure": measure, "value": value, "step": step })),
        "overfitting": status.overfitting,
        "side_failures": status.side_failures,
        "unwritten_lines": status.unwritten_lines,
        "faults": status.sample_errors.iter().cloned().collect::<BTreeMap<_, _>>(),
        "queue": { "batches": status.queue.0, "capacity": status.queue.1 },
        "config": { "generation": board.generation, "sha256": board.config_sha256, "last_reload": board.last_reload },
        "history": history,
    }))
}

async fn config(State(shared): Seen) -> Json<Value> {
    let board = lock(&shared.board);
    let settings: Vec<Value> = tree::flatten(&tree::of(&board.config))
        .into_iter()
        .map(|(path, value)| {
            let value = match value {
                toml::Value::String(text) => Value::String(problem::without_credentials(&text)),
                other => serde_json::to_value(other).unwrap_or(Value::Null),
            };
            let key = classes::of(&path);
            json!({ "path": path, "value": value, "class": key.map(|k| k.class), "doc": key.map(|k| k.doc) })
        })
        .collect();
    Json(json!({ "generation": board.generation, "sha256": board.config_sha256, "settings": settings }))
}

async fn inpaint(State(shared): Seen) -> Response {
    picture(&shared, "inpaint.png", "image/png").await
}

async fn curves(State(shared): Seen) -> Response {
    picture(&shared, "curves.svg", "image/svg+xml").await
}

async fn picture(shared: &Shared, name: &str, kind: &'static str) -> Response {
    let path = lock(&shared.board).config.run_dir().join(Path::new(name));
    match tokio::fs::read(&path).await {
        Ok(bytes) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        Err(_) => refusal(StatusCode::NOT_FOUND, "not drawn yet (picture.every_steps)"),
    }
}
