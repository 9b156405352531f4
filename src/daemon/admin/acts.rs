//! What changes something: POSTs, which only those with the rights of [`crate::daemon::policy`] reach; and reading the config file's text, which is theirs too.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::refusal::refusal;
use super::shared::{BODY_BYTES, Seen, Shared};
use crate::daemon::edit::{Rehearsal, Unedited};
use crate::daemon::events::{Event, NotPaused};
use crate::telemetry::metrics::ReloadOutcome;
use crate::trainer::control::ResumedAt;

/// Time for a client to send the text of a config.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// `?…` of a reload. Another name is refused: a slip must not turn a dry run into a reload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadQuery {
    dry_run: Option<String>,
}

impl ReloadQuery {
    fn is_dry_run(&self) -> Result<bool, Response> {
        match self.dry_run.as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(refusal(StatusCode::BAD_REQUEST, "dry_run is 1 or 0")),
        }
    }
}

/// The text in a body; `None` for an empty one.
async fn text_of(body: Body) -> Result<Option<String>, Response> {
    let late = |_| refusal(StatusCode::REQUEST_TIMEOUT, "the text did not come in time");
    let large = || {
        let error = format!("the text is larger than {} KiB; edit the file on the machine", BODY_BYTES >> 10);
        refusal(StatusCode::PAYLOAD_TOO_LARGE, &error)
    };
    // Where the length is declared, nothing is waited for.
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(large());
    }
    let bytes = tokio::time::timeout(BODY_LIMIT, to_bytes(body, BODY_BYTES))
        .await
        .map_err(late)?
        .map_err(|_| large())?;
    let text = String::from_utf8(bytes.into()).map_err(|_| refusal(StatusCode::UNPROCESSABLE_ENTITY, "the body is not UTF-8 text"))?;
    Ok((!text.is_empty()).then_some(text))
}

fn status_of(outcome: ReloadOutcome, error: Option<&str>) -> StatusCode {
    match outcome {
        ReloadOutcome::Applied | ReloadOutcome::Unchanged => StatusCode::OK,
        ReloadOutcome::Frozen => StatusCode::CONFLICT,
        ReloadOutcome::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ReloadOutcome::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        ReloadOutcome::Busy if error == Some("not ready") => StatusCode::SERVICE_UNAVAILABLE,
        ReloadOutcome::Busy => StatusCode::TOO_MANY_REQUESTS,
    }
}

fn told(rehearsal: Rehearsal) -> Response {
    (status_of(rehearsal.outcome, rehearsal.error.as_deref()), Json(rehearsal)).into_response()
}

fn unedited(why: Unedited) -> Response {
    match why {
        Unedited::Overtaken(why) => refusal(StatusCode::PRECONDITION_FAILED, &why),
        Unedited::Failed(why) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &why),
        Unedited::Refused(rehearsal) => told(*rehearsal),
    }
}

/// The digest in `If-Match`, with or without quotes.
fn edited(headers: &HeaderMap) -> Option<String> {
    let digest = headers.get(header::IF_MATCH)?.to_str().ok()?.trim().trim_matches('"');
    Some(digest.to_ascii_lowercase())
}

pub(super) async fn reload(State(shared): Seen, Query(query): Query<ReloadQuery>, headers: HeaderMap, body: Body) -> Response {
    let (dry_run, text) = match (query.is_dry_run(), text_of(body).await) {
        (Ok(dry_run), Ok(text)) => (dry_run, text),
        (Err(refused), _) | (_, Err(refused)) => return refused,
    };
    let (editor, config) = (shared.editor.clone(), shared.config());
    if dry_run {
        let found = shared.reads.run(move || editor.rehearse(text.as_deref(), &config)).await;
        return found.map_or_else(|refused| refused, |found| found.map_or_else(unedited, told));
    }
    if let Some(text) = text {
        let Some(edited) = edited(&headers) else {
            return refusal(
                StatusCode::PRECONDITION_REQUIRED,
                "a text for the config file needs If-Match with the sha256 of the file that was edited (GET /api/v1/config/text)",
            );
        };
        match shared.reads.run(move || editor.put(&text, &edited, &config)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return unedited(why),
            Err(refused) => return refused,
        }
    }
    reload_now(&shared).await
}

async fn reload_now(shared: &Shared) -> Response {
    let (reply, answer) = oneshot::channel();
    let ended = || refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending");
    if shared.events.send(Event::Reload(reply)).is_err() {
        return ended();
    }
    let Ok(report) = answer.await else { return ended() };
    (status_of(report.outcome, report.error.as_deref()), Json(report)).into_response()
}

pub(super) async fn config_text(State(shared): Seen) -> Response {
    let editor = shared.editor.clone();
    match shared.reads.run(move || editor.text()).await {
        Ok(Ok(text)) => Json(text).into_response(),
        Ok(Err(why)) => unedited(why),
        Err(refused) => refused,
    }
}

pub(super) async fn checkpoint(State(shared): Seen) -> Response {
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

fn not_paused(why: NotPaused) -> Response {
    match why {
        NotPaused::NotReady => refusal(StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        NotPaused::Refused(why) => refusal(StatusCode::CONFLICT, &why),
    }
}

pub(super) async fn pause(State(shared): Seen) -> Response {
    let (reply, answer) = oneshot::channel();
    if shared.events.send(Event::Pause(reply)).is_err() {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending");
    }
    match answer.await {
        Ok(Ok(at)) => Json(at).into_response(),
        Ok(Err(why)) => not_paused(why),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending"),
    }
}

pub(super) async fn resume(State(shared): Seen) -> Response {
    let (reply, answer) = oneshot::channel();
    if shared.events.send(Event::Resume(reply)).is_err() {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending");
    }
    match answer.await {
        Ok(Ok(ResumedAt { paused: Some(why), .. })) => refusal(
            StatusCode::CONFLICT,
            &format!("nobody asked for this pause, and the run goes on by itself: {why}"),
        ),
        Ok(Ok(at)) => Json(at).into_response(),
        Ok(Err(why)) => not_paused(why),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending"),
    }
}

pub(super) async fn quit(State(shared): Seen) -> Response {
    let _ = shared.events.send(Event::Quit);
    (StatusCode::ACCEPTED, Json(json!({ "state": "draining" }))).into_response()
}
