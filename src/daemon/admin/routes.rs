//! The endpoints.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::extract::State;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{BoxError, Json, Router};
use serde_json::{Value, json};
use splitmask_pipeline::bucket::secret::hidden;
use tokio::sync::oneshot;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::body::Limited;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::validate_request::ValidateRequestHeaderLayer;

use super::guard::{guard, refusal};
use super::shared::Shared;
use crate::config::{keys, tree};
use crate::daemon::daemon_status::lock;
use crate::daemon::events::Event;
use crate::eval::EVALUATIONS;
use crate::objective::Panel;
use crate::picture::drawn;
use crate::telemetry::metrics::{ReloadOutcome, render};

/// Requests that are answered at once, besides those that scrapers and probes send: reloads and checkpoints take their time.
const AT_ONCE: usize = 24;
/// Time for the answer to a read.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a request's body; no endpoint reads one.
const BODY_BYTES: usize = 64 << 10;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let overwhelmed = |_: BoxError| async { refusal(StatusCode::SERVICE_UNAVAILABLE, "too many requests are under way") };
    // The kind of objective is the same for the life of a run.
    let kind = lock(&shared.shown).config.objective.kind();
    let drawn = drawn(kind).fold(Router::new(), |router, (name, _)| {
        let draw = move |State(shared): Seen| async move { picture(&shared, &format!("{name}.png"), "image/png").await };
        router.route(&format!("/{name}.png"), get(draw))
    });
    let reads = drawn
        .route("/", get(page))
        .route("/api/v1/status", get(status))
        .route("/api/v1/config", get(config))
        .route("/curves.svg", get(curves))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, READ_LIMIT));
    let acts = Router::new()
        .route("/-/reload", post(reload))
        .route("/-/checkpoint", post(checkpoint))
        .route("/-/quit", post(quit));
    let limited = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(overwhelmed))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE));
    let header = |name, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));
    let content = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'";
    let guarded = Arc::clone(&shared);
    reads
        .merge(acts)
        .layer(limited)
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "no such endpoint") })
        .method_not_allowed_fallback(|| async { refusal(StatusCode::METHOD_NOT_ALLOWED, "this endpoint takes another method") })
        .layer(
            ServiceBuilder::new()
                .layer(header(header::CACHE_CONTROL, "no-store"))
                .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
                .layer(header(header::X_FRAME_OPTIONS, "DENY"))
                .layer(header(header::CONTENT_SECURITY_POLICY, content))
                .layer(RequestBodyLimitLayer::new(BODY_BYTES))
                .layer(ValidateRequestHeaderLayer::custom(move |request: &mut Request<Limited<Body>>| {
                    guard(&guarded, request)
                })),
        )
        .with_state(shared)
}

type Seen = State<Arc<Shared>>;

async fn page() -> Html<&'static str> {
    Html(include_str!("status_page.html"))
}

async fn metrics(State(shared): Seen) -> Response {
    lock(&shared.scrapes).note(Instant::now());
    match render(&shared.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(e) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

async fn healthy(State(shared): Seen) -> Response {
    match &lock(&shared.shown).stuck {
        None => "healthy\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn ready(State(shared): Seen) -> Response {
    let trainer = {
        let status = lock(&shared.status);
        (status.ready, status.paused.clone())
    };
    let shown = lock(&shared.shown);
    // Ready once the supervisor has accepted the start too, so that a reload right after is not refused.
    let why_not = match trainer {
        _ if shown.draining => Some("draining".to_owned()),
        _ if shown.stuck.is_some() => shown.stuck.clone(),
        _ if shown.waiting.is_some() => shown.waiting.as_ref().map(|why| format!("waiting for the bucket: {why}")),
        (_, Some(reason)) => Some(format!("paused: {reason}")),
        (true, None) if shown.generation > 0 => None,
        _ => Some("starting: the first batch is not there yet".to_owned()),
    };
    match why_not {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
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
    let shown = lock(&shared.shown);
    let kind = shown.config.objective.kind();
    // Curves between 0 and 1; the others are losses.
    let shares = kind.numbers.iter().filter(|n| n.panel() == Some(Panel::Shares)).map(|n| n.name);
    let measured = EVALUATIONS.iter().flat_map(|e| {
        let beside = e.beside().iter().map(|number| (number.name, number.panel));
        std::iter::once((e.number(), e.panel())).chain(beside)
    });
    let shares = shares.chain(measured.filter(|(_, panel)| *panel == Some(Panel::Shares)).map(|(name, _)| name));
    Json(json!({
        "run": shown.config.run.name,
        "run_dir": shown.config.run_dir(),
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": shown.started.elapsed().as_secs_f64(),
        "state": status.state,
        "paused": status.paused,
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
        "token_entropy": status.token_entropy,
        "learning_rate": status.learning_rate,
        "grad_norm": status.grad_norm,
        "last_checkpoint_step": status.last_checkpoint_step,
        "evaluations": status.evaluations.iter().map(|(task, accuracy, step)| json!({ "task": task, "accuracy": accuracy, "step": step })).collect::<Vec<_>>(),
        "best": status.best.as_ref().map(|(measure, value, step)| json!({ "measure": measure, "value": value, "step": step })),
        "overfitting": status.overfitting,
        "mirror": *lock(&shown.mirror),
        "side_failures": status.side_failures,
        "unwritten_lines": status.unwritten_lines,
        "faults": status.sample_errors.iter().cloned().collect::<BTreeMap<_, _>>(),
        "queue": { "batches": status.queue.0, "capacity": status.queue.1 },
        "config": { "generation": shown.generation, "sha256": shown.config_sha256, "last_reload": shown.last_reload },
        "history": history,
        "shares": shares.collect::<Vec<_>>(),
        "sheets": drawn(kind).map(|(name, columns)| json!({ "name": name, "columns": columns })).collect::<Vec<_>>(),
    }))
}

async fn config(State(shared): Seen) -> Json<Value> {
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

async fn curves(State(shared): Seen) -> Response {
    picture(&shared, "curves.svg", "image/svg+xml").await
}

async fn picture(shared: &Shared, name: &str, kind: &'static str) -> Response {
    let path = lock(&shared.shown).config.run_dir().join(Path::new(name));
    match tokio::fs::read(&path).await {
        Ok(bytes) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        Err(_) => refusal(StatusCode::NOT_FOUND, "not drawn yet (picture.every_steps)"),
    }
}
