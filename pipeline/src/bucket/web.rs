//! A plain web server, asked directly: whether a file is there, how long it is, and all of it in one answer.
//!
//! `object_store` reads ranges of it. It refuses servers that answer without ranges (Python's own `http.server`) or without a length (pages that
//! are made while they are sent), and takes "405, no HEAD here" for "not there".

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, RANGE};
use http::{Method, StatusCode};
use object_store::client::{HttpClient, HttpRequestBody, HttpResponse};
use object_store::path::Path;

use super::verdict::{Verdict, chain, judge_status};
use crate::metrics::RetryReason;

/// The server of a place.
#[derive(Debug)]
pub struct Web {
    client: HttpClient,
    /// `https://host:port`.
    root: String,
    /// Longest time without an answer or a byte.
    limit: Duration,
    /// Whether it answered a request for a range with something else.
    no_ranges: AtomicBool,
}

/// Why there is no answer to use.
#[derive(Debug)]
pub struct WebError {
    /// What to do about it.
    pub verdict: Verdict,
    /// In words.
    pub detail: String,
}

/// A file as it comes.
pub struct Whole {
    /// Its length, if the server says.
    pub size: Option<u64>,
    /// Its version, if the server says.
    pub etag: Option<String>,
    /// Its bytes from the first one on.
    pub body: BoxStream<'static, Result<Bytes, WebError>>,
}

impl Web {
    /// The server at `root` (scheme, host and port).
    #[must_use]
    pub fn new(client: HttpClient, root: &str, limit: Duration) -> Self {
        Self {
            client,
            root: root.trim_end_matches('/').to_owned(),
            limit,
            no_ranges: AtomicBool::new(false),
        }
    }

    /// Whether it is known to serve no ranges.
    #[must_use]
    pub fn knows_no_ranges(&self) -> bool {
        self.no_ranges.load(Ordering::Relaxed)
    }

    /// Remembers that it serves no ranges, seen at `shard`, and tells it the first time.
    pub fn learnt_no_ranges(&self, shard: &str) {
        if !self.no_ranges.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                shard = %shard.escape_debug(),
                "{} serves no ranges: shards are read whole, one request each, and a connection that breaks reads its shard again from the beginning",
                self.root
            );
        }
    }

    /// Whether the file is there, and how long it is, if the server says. HEAD, or where that is not allowed, a GET of the first byte.
    ///
    /// # Errors
    /// [`WebError`], with [`Verdict::NotFound`] for what is not there.
    pub async fn size(&self, key: &Path) -> Result<Option<u64>, WebError> {
        let head = self.ask(Method::HEAD, key, None).await?;
        if head.status().is_success() {
            return Ok(number(head.headers(), CONTENT_LENGTH));
        }
        if !matches!(head.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            return Err(refused(&head));
        }
        let first = self.ask(Method::GET, key, Some("bytes=0-0")).await?;
        // The body of a server without ranges is not read: dropping it ends the connection.
        match first.status() {
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => Ok(total(first.headers())),
            status if status.is_success() => Ok(number(first.headers(), CONTENT_LENGTH)),
            _ => Err(refused(&first)),
        }
    }

    /// The whole file.
    ///
    /// # Errors
    /// [`WebError`], also of the body: [`Verdict::Retry`] where it breaks or stalls.
    pub async fn whole(&self, key: &Path) -> Result<Whole, WebError> {
        let answer = self.ask(Method::GET, key, None).await?;
        if !answer.status().is_success() {
            return Err(refused(&answer));
        }
        let text = |name| {
            answer
                .headers()
                .get(name)
                .and_then(|v: &http::HeaderValue| v.to_str().ok())
                .map(str::to_owned)
        };
        let (size, etag) = (number(answer.headers(), CONTENT_LENGTH), text(ETAG));
        let limit = self.limit;
        let chunks = answer.into_body().bytes_stream();
        let body = futures::stream::unfold(chunks, move |mut chunks| async move {
            let next = match tokio::time::timeout(limit, chunks.next()).await {
                Err(_) => Err(timed_out(limit)),
                Ok(next) => next?.map_err(|e| WebError {
                    verdict: Verdict::Retry(RetryReason::Connection),
                    detail: chain(&e),
                }),
            };
            Some((next, chunks))
        });
        Ok(Whole {
            size,
            etag,
            body: body.boxed(),
        })
    }

    async fn ask(&self, method: Method, key: &Path, range: Option<&str>) -> Result<HttpResponse, WebError> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}/{}", self.root, escaped(key)));
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        let request = request.body(HttpRequestBody::empty()).map_err(|e| WebError {
            verdict: Verdict::Final,
            detail: e.to_string(),
        })?;
        match tokio::time::timeout(self.limit, self.client.execute(request)).await {
            Err(_) => Err(timed_out(self.limit)),
            Ok(answer) => answer.map_err(|e| WebError {
                verdict: Verdict::Retry(RetryReason::Connection),
                detail: chain(&e),
            }),
        }
    }
}

/// The key as the path of an address. A [`Path`] holds it percent-decoded.
fn escaped(key: &Path) -> String {
    let mut url = url::Url::parse("http://host").expect("a constant");
    url.path_segments_mut()
        .expect("http has segments")
        .clear()
        .extend(key.parts().map(|p| p.as_ref().to_owned()));
    url.path().trim_start_matches('/').to_owned()
}

fn timed_out(limit: Duration) -> WebError {
    WebError {
        verdict: Verdict::Retry(RetryReason::Timeout),
        detail: format!("no byte for {:.1} s", limit.as_secs_f64()),
    }
}

fn refused(answer: &HttpResponse) -> WebError {
    WebError {
        verdict: judge_status(answer.status().as_u16()).unwrap_or(Verdict::Final),
        detail: format!("the server answers {}", answer.status()),
    }
}

fn number(headers: &HeaderMap, name: http::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The length of the whole in `bytes 0-0/LENGTH` or `bytes */LENGTH`.
fn total(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.trim().parse().ok()
}
