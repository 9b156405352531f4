//! Every request passes here first.

use std::sync::PoisonError;

use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::Response;

use super::refusal::refusal;
use super::shared::Shared;
use crate::daemon::policy::{OPEN, Policy};

/// The check of every request, for a layer.
pub(super) fn guard<B>(shared: &Shared, request: &Request<B>) -> Result<(), Response> {
    // What concerns the run as a whole is told and steered at one place.
    if shared.rank > 0 && !OPEN.contains(&request.uri().path()) {
        let rank = shared.rank;
        let error = format!("rank {rank} answers {}; ask rank 0 for the rest", OPEN.join(", "));
        return Err(refusal(StatusCode::NOT_FOUND, &error));
    }
    let policy = shared.policy.read().unwrap_or_else(PoisonError::into_inner);
    let checked = policy.check(request.method(), request.uri().path(), request.headers());
    checked.map_err(|(status, error)| {
        let mut response = refusal(status, error);
        if status == StatusCode::UNAUTHORIZED {
            // A browser asks its user for the token of a read; what acts is sent by the page, with the token from its field.
            let how = if Policy::is_read(request.method(), request.uri().path()) {
                "Basic realm=\"splitmask\", charset=\"UTF-8\""
            } else {
                "Bearer"
            };
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(how));
        }
        response
    })
}
