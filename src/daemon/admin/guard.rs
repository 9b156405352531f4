//! Who may do what: every request that is not a plain read passes here first.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Shared;
use crate::config::AdminConfig;

/// Bytes of a request's body; no endpoint reads one.
const BODY_BYTES: u64 = 64 << 10;
/// Shortest token.
const TOKEN_BYTES: usize = 32;

/// Who may post. Holds a digest of the token, never the token.
#[derive(Clone, Default)]
pub struct Policy {
    lifecycle: bool,
    token: Option<[u8; 32]>,
    hosts: Vec<String>,
}

impl Policy {
    /// Reads the token file of a validated config.
    ///
    /// # Errors
    /// Names key and file if it cannot be read or is too short.
    pub fn of(config: &AdminConfig) -> Result<Self, String> {
        let token = if config.token_file.is_empty() {
            None
        } else {
            let named = |what: String| format!("admin.token_file = \"{}\": {what}", config.token_file);
            let text = std::fs::read(&config.token_file).map_err(|e| named(e.to_string()))?;
            let token = text.trim_ascii();
            if token.len() < TOKEN_BYTES {
                return Err(named(format!(
                    "holds {} bytes, expected at least {TOKEN_BYTES} (for example from `openssl rand -hex 32`)",
                    token.len()
                )));
            }
            Some(Sha256::digest(token).into())
        };
        Ok(Self {
            lifecycle: config.lifecycle,
            token,
            hosts: config.hosts.clone(),
        })
    }

    /// Checks a request that is no plain read.
    ///
    /// # Errors
    /// Status and reason of the refusal.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
        let length = text(header::CONTENT_LENGTH).map_or(Some(0), |l| l.parse::<u64>().ok());
        if length.is_none_or(|l| l > BODY_BYTES) {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"));
        }
        if !self.lifecycle {
            return Err((
                StatusCode::FORBIDDEN,
                "lifecycle requests are off: start with --enable-lifecycle or set admin.lifecycle = true",
            ));
        }
        let host = text(header::HOST).unwrap_or_default();
        // A page of another site in the operator's browser must not steer the daemon.
        if let Some(origin) = headers.get(header::ORIGIN) {
            let same = origin
                .to_str()
                .ok()
                .and_then(|o| o.split_once("://"))
                .is_some_and(|(_, at)| at == host && !host.is_empty());
            if !same {
                return Err((StatusCode::FORBIDDEN, "the Origin is another site"));
            }
        }
        if headers
            .get("sec-fetch-site")
            .is_some_and(|site| site == "cross-site" || site == "same-site")
        {
            return Err((StatusCode::FORBIDDEN, "the request comes from another site"));
        }
        let Some(want) = &self.token else {
            // Without a token the name is all that tells DNS rebinding from the operator.
            return if self.knows(host) {
                Ok(())
            } else {
                Err((
                    StatusCode::FORBIDDEN,
                    "the Host is not this server: use an IP address, or add the name to admin.hosts",
                ))
            };
        };
        let given = text(header::AUTHORIZATION)
            .and_then(|a| a.strip_prefix("Bearer "))
            .unwrap_or_default();
        let given: [u8; 32] = Sha256::digest(given.trim().as_bytes()).into();
        // Digests are compared as a whole: the time tells nothing about the token.
        let differs = given.iter().zip(want).fold(0, |d, (a, b)| d | (a ^ b));
        if std::hint::black_box(differs) == 0 {
            Ok(())
        } else {
            Err((StatusCode::UNAUTHORIZED, "a bearer token is needed: Authorization: Bearer …"))
        }
    }

    fn knows(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inside, _)) => inside,
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost") || self.hosts.iter().any(|h| h.eq_ignore_ascii_case(name))
    }
}

/// An error as JSON.
pub(super) fn refusal(status: StatusCode, error: &str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}

/// The middleware: guards all verbs but GET and HEAD, and marks every answer as not for caches, frames or guessing.
pub(super) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let verdict = if reads {
        Ok(())
    } else {
        shared
            .policy
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .check(request.headers())
    };
    let mut response = match verdict {
        Ok(()) => next.run(request).await,
        Err((status, error)) => {
            let mut response = refusal(status, error);
            if status == StatusCode::UNAUTHORIZED {
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    let policy = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(lifecycle: bool, token: Option<&str>) -> Policy {
        Policy {
            lifecycle,
            token: token.map(|t| Sha256::digest(t.as_bytes()).into()),
            hosts: vec!["trainer.local".into()],
        }
    }

    #[test]
    fn table_of_requests() {
        let token = "0123456789abcdef0123456789abcdef";
        let bearer = format!("Bearer {token}");
        // (lifecycle, token wanted, headers, status of the refusal)
        type Row<'a> = (bool, Option<&'a str>, &'a [(&'static str, &'a str)], Option<u16>);
        let table: &[Row<'_>] = &[
            (false, None, &[("host", "127.0.0.1:9464")], Some(403)),
            (true, None, &[("host", "127.0.0.1:9464")], None),
            (true, None, &[("host", "[::1]:9464")], None),
            (true, None, &[("host", "localhost:9464")], None),
            (true, None, &[("host", "LOCALHOST")], None),
            (true, None, &[("host", "trainer.local:9464")], None),
            (true, None, &[("host", "evil.example:9464")], Some(403)),
            (true, None, &[("host", "localhost.evil.example")], Some(403)),
            (true, None, &[], Some(403)),
            (true, None, &[("host", "127.0.0.1:9464"), ("origin", "http://127.0.0.1:9464")], None),
            (
                true,
                None,
                &[("host", "127.0.0.1:9464"), ("origin", "http://evil.example")],
                Some(403),
            ),
            (
                true,
                None,
                &[("host", "127.0.0.1:9464"), ("origin", "http://127.0.0.1:8080")],
                Some(403),
            ),
            (true, None, &[("host", "127.0.0.1:9464"), ("origin", "null")], Some(403)),
            (
                true,
                None,
                &[("host", "127.0.0.1:9464"), ("sec-fetch-site", "cross-site")],
                Some(403),
            ),
            (true, None, &[("host", "127.0.0.1:9464"), ("sec-fetch-site", "same-origin")], None),
            (true, None, &[("host", "127.0.0.1:9464"), ("content-length", "65537")], Some(413)),
            (true, None, &[("host", "127.0.0.1:9464"), ("content-length", "x")], Some(413)),
            (true, None, &[("host", "127.0.0.1:9464"), ("content-length", "10")], None),
            (true, Some(token), &[("host", "any.name")], Some(401)),
            (true, Some(token), &[("host", "any.name"), ("authorization", &bearer)], None),
            (
                true,
                Some(token),
                &[("host", "any.name"), ("authorization", "Bearer wrong")],
                Some(401),
            ),
            (true, Some(token), &[("host", "any.name"), ("authorization", token)], Some(401)),
            (true, Some(token), &[("host", "any.name"), ("authorization", "Bearer ")], Some(401)),
            (
                true,
                Some(token),
                &[("host", "any.name"), ("authorization", &bearer), ("origin", "http://evil.example")],
                Some(403),
            ),
            (false, Some(token), &[("host", "any.name"), ("authorization", &bearer)], Some(403)),
        ];
        for (lifecycle, token, given, want) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in *given {
                headers.insert(*name, HeaderValue::from_str(value).unwrap());
            }
            let got = policy(*lifecycle, *token).check(&headers).err().map(|(status, _)| status.as_u16());
            assert_eq!(got, *want, "lifecycle {lifecycle}, token {}, {given:?}", token.is_some());
        }
    }

    #[test]
    fn short_and_missing_token_files_are_refused_without_showing_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let config = AdminConfig {
            token_file: file.display().to_string(),
            ..AdminConfig::default()
        };
        assert!(Policy::of(&config).err().unwrap().contains("admin.token_file"));
        std::fs::write(&file, "short-canary\n").unwrap();
        let error = Policy::of(&config).err().unwrap();
        assert!(error.contains("holds 12 bytes") && !error.contains("canary"), "{error}");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert!(Policy::of(&config).is_ok());
    }
}
