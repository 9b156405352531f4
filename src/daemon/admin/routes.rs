//! The endpoints: one table, which docs/openapi.json describes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::routing::{MethodRouter, get, post};
use axum::{BoxError, Router};
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::validate_request::ValidateRequestHeaderLayer;

use super::guard::guard;
use super::refusal::refusal;
use super::shared::{Seen, Shared};
use super::{acts, page, probes, run_data, status};
use crate::objective::Kind;
use crate::picture::drawn;

/// Requests that are answered at once, besides those that scrapers and probes send: reloads and checkpoints take their time.
const AT_ONCE: usize = 24;
/// Time for the answer to a read.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// What the page may do: ask this server, and nobody else, and run nothing that is not one of its files.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

type Route = (String, MethodRouter<Arc<Shared>>);

/// What is read, within [`READ_LIMIT`].
fn reads(kind: &Kind) -> Vec<Route> {
    let latest = drawn(kind).map(|(name, _)| {
        let draw = move |State(shared): Seen| async move { run_data::latest(&shared, name).await };
        (format!("/{name}.png"), get(draw))
    });
    let others = [
        ("/", get(page::index)),
        ("/page/{file}", get(page::file)),
        ("/api/v1/status", get(status::status)),
        ("/api/v1/config", get(status::config)),
        ("/api/v1/config/text", get(acts::config_text)),
        ("/api/v1/pipeline", get(status::pipeline_rates)),
        ("/api/v1/history", get(run_data::history)),
        ("/api/v1/events", get(run_data::events)),
        ("/api/v1/pictures", get(run_data::pictures)),
        ("/api/v1/pictures/{name}/{step}", get(run_data::picture)),
        ("/curves.svg", get(run_data::curves)),
    ];
    let others = others.into_iter().map(|(path, handler)| (path.to_owned(), handler));
    latest.chain(others).collect()
}

/// What acts, and takes its time.
fn acts() -> Vec<Route> {
    let all = [
        ("/-/reload", post(acts::reload)),
        ("/-/checkpoint", post(acts::checkpoint)),
        ("/-/pause", post(acts::pause)),
        ("/-/resume", post(acts::resume)),
        ("/-/quit", post(acts::quit)),
    ];
    all.map(|(path, handler)| (path.to_owned(), handler)).into()
}

/// What is answered however many others ask.
fn probes() -> Vec<Route> {
    let all = [
        ("/metrics", get(probes::metrics)),
        ("/-/healthy", get(probes::healthy)),
        ("/-/ready", get(probes::ready)),
    ];
    all.map(|(path, handler)| (path.to_owned(), handler)).into()
}

fn routed(router: Router<Arc<Shared>>, routes: Vec<Route>) -> Router<Arc<Shared>> {
    routes
        .into_iter()
        .fold(router, |router, (path, handler)| router.route(&path, handler))
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let overwhelmed = |_: BoxError| async { refusal(StatusCode::SERVICE_UNAVAILABLE, "too many requests are under way") };
    // The kind of objective is the same for the life of a run.
    let kind = shared.config().objective.kind();
    let reads = routed(Router::new(), reads(kind)).layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, READ_LIMIT));
    let limited = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(overwhelmed))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE));
    let header = |name, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));
    let guarded = Arc::clone(&shared);
    routed(routed(reads, acts()).layer(limited), probes())
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "no such endpoint") })
        .method_not_allowed_fallback(|| async { refusal(StatusCode::METHOD_NOT_ALLOWED, "this endpoint takes another method") })
        .layer(
            ServiceBuilder::new()
                .layer(header(header::CACHE_CONTROL, "no-store"))
                .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
                .layer(header(header::X_FRAME_OPTIONS, "DENY"))
                .layer(header(header::REFERRER_POLICY, "no-referrer"))
                // No other site shows a picture of the run, not even to whom the browser has the password of.
                .layer(header(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"))
                .layer(header(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY))
                .layer(ValidateRequestHeaderLayer::custom(move |request: &mut Request<Body>| {
                    guard(&guarded, request)
                })),
        )
        .with_state(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::OBJECTIVES;
    use std::collections::BTreeSet;

    #[test]
    fn the_description_has_every_route_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
        for kind in OBJECTIVES {
            let pictures: BTreeSet<String> = drawn(kind).map(|(name, _)| format!("/{name}.png")).collect();
            let table = [reads(kind), acts(), probes()].into_iter().flatten().map(|(path, _)| path);
            let routes: BTreeSet<String> = table
                .map(|path| if pictures.contains(&path) { "/{name}.png".into() } else { path })
                .collect();
            let paths: BTreeSet<String> = described["paths"].as_object().unwrap().keys().cloned().collect();
            assert_eq!(paths, routes);
        }
    }
}
