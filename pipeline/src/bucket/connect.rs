//! Clients of object stores, set up so that those that read neither retry nor time out behind our back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::location::Location;
use super::pace::Pace;
use super::verdict::chain;
use super::web::Web;
use crate::error::PipelineError;
use crate::metrics::{CodeClass, PipelineMetrics, Scheme, StoreOp};

/// Longest wait that a server's `Retry-After` can impose.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(20);

/// For reading: retries are ours, since the library's share one clock and ten tries from the first byte of a stream on.
#[must_use]
pub fn no_retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: Duration::ZERO,
    }
}

/// Makes the client of a remote place, which tries requests again as `retry` says. Credentials come from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
///
/// # Errors
/// [`PipelineError::BadUrl`] for an endpoint or bucket name that the client refuses.
pub fn connect(
    location: &Location,
    endpoint: &str,
    read_timeout: Duration,
    retry: RetryConfig,
    pace: &Arc<Pace>,
    metrics: &PipelineMetrics,
) -> Result<Arc<dyn ObjectStore>, PipelineError> {
    let mut options = client_options(location, endpoint, read_timeout);
    let connector = Counted::new(pace, metrics);
    let endpoint = endpoint.trim_end_matches('/');
    let store: object_store::Result<Arc<dyn ObjectStore>> = match location.scheme {
        Scheme::S3 => {
            let mut builder = AmazonS3Builder::from_env()
                .with_url(&location.root)
                .with_retry(retry)
                .with_http_connector(connector);
            if endpoint.is_empty() {
                if std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| v == "true") {
                    options = options.with_allow_http(true);
                }
            } else {
                builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
            }
            builder.with_client_options(options).build().map(|s| Arc::new(s) as _)
        }
        Scheme::Gs => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_url(location.root.replacen("gcs://", "gs://", 1));
            if !endpoint.is_empty() {
                builder = builder.with_base_url(endpoint);
            }
            builder
                .with_retry(retry)
                .with_http_connector(connector)
                .with_client_options(options)
                .build()
                .map(|s| Arc::new(s) as _)
        }
        Scheme::Az => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_url(&location.root);
            if !endpoint.is_empty() {
                builder = builder.with_endpoint(endpoint.to_owned());
            }
            builder
                .with_retry(retry)
                .with_http_connector(connector)
                .with_client_options(options)
                .build()
                .map(|s| Arc::new(s) as _)
        }
        Scheme::Http | Scheme::File => HttpBuilder::new()
            .with_url(&location.root)
            .with_retry(retry)
            .with_http_connector(connector)
            .with_client_options(options)
            .build()
            .map(|s| Arc::new(s) as _),
    };
    store.map_err(|e| PipelineError::BadUrl {
        url: location.shown.clone(),
        detail: chain(&e),
    })
}

/// A plain web server to be asked directly, through the same counting client.
///
/// # Errors
/// [`PipelineError::BadUrl`] if the client cannot be made.
pub fn web(location: &Location, read_timeout: Duration, pace: &Arc<Pace>, metrics: &PipelineMetrics) -> Result<Web, PipelineError> {
    let options = client_options(location, "", read_timeout);
    let client = Counted::new(pace, metrics).connect(&options).map_err(|e| PipelineError::BadUrl {
        url: location.shown.clone(),
        detail: chain(&e),
    })?;
    Ok(Web::new(client, &location.root, read_timeout))
}

fn client_options(location: &Location, endpoint: &str, read_timeout: Duration) -> ClientOptions {
    let plain_http = endpoint.starts_with("http://") || (endpoint.is_empty() && location.root.starts_with("http://"));
    let options = ClientOptions::new()
        // The library's 30 s limit on a whole request kills slow readers; ours runs from byte to byte (`fetch`).
        .with_timeout_disabled()
        .with_connect_timeout(read_timeout.min(Duration::from_secs(10)));
    if plain_http { options.with_allow_http(true) } else { options }
}

/// Counts every request at the wire, tells the pace of refusals, and honours `Retry-After`.
#[derive(Debug)]
struct Counted {
    metrics: PipelineMetrics,
    pace: Arc<Pace>,
}

impl Counted {
    fn new(pace: &Arc<Pace>, metrics: &PipelineMetrics) -> Self {
        Self {
            metrics: metrics.clone(),
            pace: Arc::clone(pace),
        }
    }
}

#[derive(Debug)]
struct CountedService {
    inner: HttpClient,
    metrics: PipelineMetrics,
    pace: Arc<Pace>,
}

impl HttpConnector for Counted {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(CountedService {
            inner: ReqwestConnector::default().connect(options)?,
            metrics: self.metrics.clone(),
            pace: Arc::clone(&self.pace),
        }))
    }
}

impl HttpService for CountedService {
    // Written out as `async_trait` would: the trait is declared with it.
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.counted(request))
    }
}

impl CountedService {
    async fn counted(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let query = request.uri().query().unwrap_or_default();
        let op = match request.method().as_str() {
            "GET" if query.contains("list-type") || query.contains("comp=list") || query.contains("prefix=") => StoreOp::List,
            "GET" => StoreOp::Get,
            "HEAD" => StoreOp::Head,
            "PROPFIND" => StoreOp::List,
            _ => StoreOp::Other,
        };
        let start = Instant::now();
        let answer = self.inner.execute(request).await;
        let code = match &answer {
            Err(_) => CodeClass::Error,
            Ok(a) if a.status().is_success() => CodeClass::Success,
            Ok(a) if a.status().is_client_error() => CodeClass::Client,
            Ok(a) if a.status().is_server_error() => CodeClass::Server,
            Ok(_) => CodeClass::Redirect,
        };
        self.metrics.store_request(op, code, start.elapsed());
        if let Ok(answer) = &answer {
            let wanted = answer
                .headers()
                .get("retry-after")
                .and_then(|v| v.to_str().ok())
                .and_then(|v| v.parse::<u64>().ok());
            if matches!(answer.status().as_u16(), 429 | 503) {
                self.pace.throttled();
                if let Some(seconds) = wanted {
                    self.pace.rest(Duration::from_secs(seconds).min(MAX_RETRY_AFTER)).await;
                }
            }
        }
        answer
    }
}
