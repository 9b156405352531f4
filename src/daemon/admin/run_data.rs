//! What is read from the run folder: history, events, pictures. Every file is named by us: what a request says only chooses among names that there can be.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::history::{self, History};
use super::refusal::refusal;
use super::shared::{Seen, Shared};
use crate::daemon::daemon_status::lock;
use crate::picture::{drawn, kept};

/// `?of=before-2` of the history.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    #[serde(default)]
    of: String,
}

/// What a piece of file work answers: the body, or why there is none.
type Found<T> = Result<T, (StatusCode, String)>;

fn failed(why: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, why.to_string())
}

/// The answer as JSON, made by the thread that reads files: a long one keeps no scrape waiting.
fn body<T: Serialize>(answer: &T) -> Found<Vec<u8>> {
    serde_json::to_vec(answer).map_err(failed)
}

fn respond(found: Result<Found<Vec<u8>>, Response>, kind: &'static str) -> Response {
    match found {
        Ok(Ok(bytes)) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        Ok(Err((status, why))) => refusal(status, &why),
        Err(refused) => refused,
    }
}

pub(super) async fn history(State(shared): Seen, Query(query): Query<HistoryQuery>) -> Response {
    let (files, objective) = (Arc::clone(&shared.files), shared.config().objective.kind());
    let read = move || {
        let mut files = lock(&files);
        let earlier = history::earlier(&files.run_dir).map_err(|e| failed(format!("{}: {e}", files.run_dir.display())))?;
        let of = query.of;
        let history = if of.is_empty() {
            &mut files.history
        } else {
            if !earlier.contains(&of) {
                return Err((StatusCode::NOT_FOUND, "no such history: `earlier` lists what there is".into()));
            }
            let path = history::file(&files.run_dir, &of).ok_or_else(|| failed("no such history"))?;
            if files.earlier.as_ref().is_none_or(|(name, _)| *name != of) {
                files.earlier = Some((of.clone(), History::of(path)));
            }
            let Some((_, history)) = &mut files.earlier else {
                return Err(failed("no such history"));
            };
            history
        };
        let mut answer = history.answer(objective).map_err(failed)?;
        (answer.of, answer.earlier) = (of, earlier);
        body(&answer)
    };
    respond(shared.reads.run(read).await, "application/json")
}

pub(super) async fn events(State(shared): Seen) -> Response {
    let files = Arc::clone(&shared.files);
    let read = move || body(&lock(&files).events.answer().map_err(failed)?);
    respond(shared.reads.run(read).await, "application/json")
}

pub(super) async fn pictures(State(shared): Seen) -> Response {
    let config = shared.config();
    let read = move || {
        let run_dir = config.run_dir();
        let pictures: Result<Vec<_>, _> = drawn(config.objective.kind())
            .map(|(name, columns)| {
                let steps = kept::steps(&run_dir, name).map_err(|e| failed(format!("pictures of {name}: {e}")))?;
                Ok(json!({ "name": name, "columns": columns, "drawn": run_dir.join(format!("{name}.png")).is_file(), "steps": steps }))
            })
            .collect();
        body(&json!({ "pictures": pictures? }))
    };
    respond(shared.reads.run(read).await, "application/json")
}

/// A picture of the run folder by its exact path, which is made of a name of [`drawn`] and a number.
async fn file(shared: &Shared, path: PathBuf, kind: &'static str, none: &'static str) -> Response {
    let read = move || std::fs::read(&path).map_err(|_| (StatusCode::NOT_FOUND, none.to_owned()));
    respond(shared.reads.run(read).await, kind)
}

const NOT_DRAWN: &str = "not drawn yet (picture.every_steps)";

pub(super) async fn curves(State(shared): Seen) -> Response {
    let path = shared.config().run_dir().join("curves.svg");
    file(&shared, path, "image/svg+xml", NOT_DRAWN).await
}

/// The latest picture of a name that the routes know.
pub(super) async fn latest(shared: &Shared, name: &'static str) -> Response {
    let path = shared.config().run_dir().join(format!("{name}.png"));
    file(shared, path, "image/png", NOT_DRAWN).await
}

pub(super) async fn picture(State(shared): Seen, Path((name, step)): Path<(String, u64)>) -> Response {
    let config = shared.config();
    let Some((name, _)) = drawn(config.objective.kind()).find(|(known, _)| *known == name) else {
        return refusal(StatusCode::NOT_FOUND, "no such picture: /api/v1/pictures lists what there is");
    };
    let path = kept::file(&config.run_dir(), name, step);
    file(&shared, path, "image/png", "not kept of this step (picture.keep)").await
}
