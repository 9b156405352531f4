//! What scrapers and probes ask.

use std::sync::PoisonError;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::refusal::refusal;
use super::shared::{Seen, Shared};
use crate::daemon::daemon_status::lock;
use crate::telemetry::metrics::render;

pub(super) async fn metrics(State(shared): Seen) -> Response {
    lock(&shared.scrapes).note(Instant::now());
    match render(&shared.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(e) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

/// Whether whoever asks is told reasons: they name places and samples.
fn tells(shared: &Shared, headers: &HeaderMap) -> bool {
    shared.policy.read().unwrap_or_else(PoisonError::into_inner).tells(headers)
}

pub(super) async fn healthy(State(shared): Seen, headers: HeaderMap) -> Response {
    match &lock(&shared.shown).stuck {
        None => "healthy\n".into_response(),
        Some(_) if !tells(&shared, &headers) => (StatusCode::SERVICE_UNAVAILABLE, "stuck\n").into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

pub(super) async fn ready(State(shared): Seen, headers: HeaderMap) -> Response {
    let trainer = {
        let status = lock(&shared.status);
        (status.ready, status.paused.clone())
    };
    let shown = lock(&shared.shown);
    // Ready once the supervisor has accepted the start too, so that a reload right after is not refused.
    let why_not = match trainer {
        _ if shown.draining => Some("draining".to_owned()),
        _ if shown.stuck.is_some() => shown.stuck.as_ref().map(|why| format!("stuck: {why}")),
        _ if shown.waiting.is_some() => shown.waiting.as_ref().map(|why| format!("waiting for the bucket: {why}")),
        (_, Some(reason)) => Some(format!("paused: {reason}")),
        (true, None) if shown.generation > 0 => None,
        _ => Some("starting: the first batch is not there yet".to_owned()),
    };
    match why_not {
        None => "ready\n".into_response(),
        Some(why) => {
            let state = why.split(':').next().unwrap_or_default().to_owned();
            let told = if tells(&shared, &headers) { why } else { state };
            (StatusCode::SERVICE_UNAVAILABLE, format!("{told}\n")).into_response()
        }
    }
}
