//! Who may do what at the admin server.

use std::net::IpAddr;
use std::path::Path;

use axum::http::{HeaderMap, Method, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::config::{AdminConfig, file};

/// What anybody may read by any name: Prometheus and Kubernetes address it as they know it.
pub(super) const OPEN: [&str; 3] = ["/metrics", "/-/healthy", "/-/ready"];
/// What shows the file itself, comments and all: for those who may change it.
const OF_EDITORS: [&str; 1] = ["/api/v1/config/text"];
/// Shortest token.
const TOKEN_BYTES: usize = 32;

/// Who may post. Holds a digest of the token, never the token.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    lifecycle: bool,
    token: Option<[u8; 32]>,
    hosts: Vec<String>,
}

impl Policy {
    /// Reads the token file of a validated config.
    ///
    /// # Errors
    /// Why it cannot be read, or that it is too short.
    pub fn of(config: &AdminConfig) -> Result<Self, String> {
        let token = if config.token_file.is_empty() {
            None
        } else {
            let text = file::read(Path::new(&config.token_file)).map_err(|e| e.to_string())?;
            let token = text.trim_ascii();
            if token.len() < TOKEN_BYTES {
                return Err(format!(
                    "holds {} bytes, expected at least {TOKEN_BYTES} (for example from `openssl rand -hex 32`)",
                    token.len()
                ));
            }
            Some(Sha256::digest(token).into())
        };
        Ok(Self {
            lifecycle: config.lifecycle,
            token,
            hosts: config.hosts.clone(),
        })
    }

    /// Whether anybody may change something.
    #[must_use]
    pub fn lifecycle(&self) -> bool {
        self.lifecycle
    }

    /// Whether that needs the token.
    #[must_use]
    pub fn asks_for_token(&self) -> bool {
        self.token.is_some()
    }

    /// Checks a request by its method, path and headers.
    ///
    /// # Errors
    /// Status and reason of the refusal.
    pub fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let reads = matches!(*method, Method::GET | Method::HEAD) && !OF_EDITORS.contains(&path);
        if reads && OPEN.contains(&path) {
            return Ok(());
        }
        if !reads && !self.lifecycle {
            return Err((
                StatusCode::FORBIDDEN,
                "lifecycle requests are off: start with --enable-lifecycle or set admin.lifecycle = true",
            ));
        }
        let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        // A page of another site in the operator's browser must neither read nor steer.
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
        let elsewhere = headers
            .get("sec-fetch-site")
            .is_some_and(|site| site == "cross-site" || site == "same-site");
        // Reads may come from a link; what a script of another site fetches has an Origin.
        if !reads && elsewhere {
            return Err((StatusCode::FORBIDDEN, "the request comes from another site"));
        }
        match &self.token {
            Some(want) if !reads => authorised(text(header::AUTHORIZATION), want),
            // The name is all that tells DNS rebinding from the operator.
            _ if self.knows(host) => Ok(()),
            _ => Err((
                StatusCode::FORBIDDEN,
                "the Host is not this server: use an IP address, or add the name to admin.hosts",
            )),
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

/// Whether an Authorization header holds the token of this digest.
fn authorised(given: Option<&str>, want: &[u8; 32]) -> Result<(), (StatusCode, &'static str)> {
    // The scheme's name is case-insensitive (RFC 9110, section 11.1).
    let given = given
        .and_then(|a| a.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim());
    let given: [u8; 32] = Sha256::digest(given.as_bytes()).into();
    // Digests are compared as a whole: the time tells nothing about the token.
    let differs = given.iter().zip(want).fold(0, |d, (a, b)| d | (a ^ b));
    if std::hint::black_box(differs) == 0 {
        Ok(())
    } else {
        Err((StatusCode::UNAUTHORIZED, "a bearer token is needed: Authorization: Bearer …"))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn policy(lifecycle: bool, token: Option<&str>) -> Policy {
        Policy {
            lifecycle,
            token: token.map(|t| Sha256::digest(t.as_bytes()).into()),
            hosts: vec!["trainer.local".into()],
        }
    }

    fn answer(policy: &Policy, method: &Method, path: &str, given: &[(&'static str, &str)]) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        policy.check(method, path, &headers).err().map(|(status, _)| status.as_u16())
    }

    const SELF: (&str, &str) = ("host", "127.0.0.1:9464");
    const EVIL: (&str, &str) = ("host", "evil.example:9464");

    #[test]
    fn posts_without_a_token_need_lifecycle_this_host_and_no_other_site() {
        let table: &[(bool, &[(&'static str, &str)], Option<u16>)] = &[
            (false, &[SELF], Some(403)),
            (true, &[SELF], None),
            (true, &[("host", "[::1]:9464")], None),
            (true, &[("host", "localhost:9464")], None),
            (true, &[("host", "LOCALHOST")], None),
            (true, &[("host", "trainer.local:9464")], None),
            (true, &[EVIL], Some(403)),
            (true, &[("host", "localhost.evil.example")], Some(403)),
            (true, &[], Some(403)),
            (true, &[SELF, ("origin", "http://127.0.0.1:9464")], None),
            (true, &[SELF, ("origin", "http://evil.example")], Some(403)),
            (true, &[SELF, ("origin", "http://127.0.0.1:8080")], Some(403)),
            (true, &[SELF, ("origin", "null")], Some(403)),
            (true, &[SELF, ("sec-fetch-site", "cross-site")], Some(403)),
            (true, &[SELF, ("sec-fetch-site", "same-origin")], None),
        ];
        for (lifecycle, given, want) in table {
            for method in [Method::POST, Method::DELETE, Method::PUT] {
                for path in ["/-/reload", "/metrics", "/"] {
                    let got = answer(&policy(*lifecycle, None), &method, path, given);
                    assert_eq!(got, *want, "lifecycle {lifecycle}, {method} {path}, {given:?}");
                }
            }
            // The file's own text is read by those who may change it.
            for path in OF_EDITORS {
                let got = answer(&policy(*lifecycle, None), &Method::GET, path, given);
                assert_eq!(got, *want, "lifecycle {lifecycle}, GET {path}, {given:?}");
            }
        }
    }

    #[test]
    fn posts_with_a_token_need_it_by_whatever_name() {
        let token = "0123456789abcdef0123456789abcdef";
        let name = ("host", "any.name");
        let bearer = format!("Bearer {token}");
        let (lower, upper, wide) = (format!("bearer {token}"), format!("BEARER {token}"), format!("Bearer   {token} "));
        let table: &[(bool, &[(&'static str, &str)], Option<u16>)] = &[
            (true, &[name], Some(401)),
            (true, &[name, ("authorization", &bearer)], None),
            (true, &[name, ("authorization", &lower)], None),
            (true, &[name, ("authorization", &upper)], None),
            (true, &[name, ("authorization", &wide)], None),
            (true, &[name, ("authorization", "Bearer wrong")], Some(401)),
            (true, &[name, ("authorization", token)], Some(401)),
            (true, &[name, ("authorization", "Bearer ")], Some(401)),
            (true, &[name, ("authorization", "Basic YTpi")], Some(401)),
            (
                true,
                &[name, ("authorization", &bearer), ("origin", "http://evil.example")],
                Some(403),
            ),
            (false, &[name, ("authorization", &bearer)], Some(403)),
        ];
        for (lifecycle, given, want) in table {
            let policy = policy(*lifecycle, Some(token));
            for got in [
                answer(&policy, &Method::POST, "/-/reload", given),
                answer(&policy, &Method::GET, OF_EDITORS[0], given),
            ] {
                assert_eq!(got, *want, "lifecycle {lifecycle}, {given:?}");
            }
        }
    }

    #[test]
    fn reads_need_this_host_but_for_what_scrapers_and_probes_read() {
        for token in [None, Some("0123456789abcdef0123456789abcdef")] {
            for lifecycle in [false, true] {
                let policy = policy(lifecycle, token);
                for method in [Method::GET, Method::HEAD] {
                    for path in OPEN {
                        for given in [&[EVIL][..], &[], &[EVIL, ("origin", "http://evil.example")]] {
                            assert_eq!(answer(&policy, &method, path, given), None, "{method} {path} {given:?}");
                        }
                    }
                    for path in ["/", "/api/v1/status", "/api/v1/config", "/curves.svg", "/metrics/", "/nowhere"] {
                        let table: &[(&[(&'static str, &str)], Option<u16>)] = &[
                            (&[SELF], None),
                            (&[("host", "trainer.local")], None),
                            (&[SELF, ("sec-fetch-site", "cross-site")], None),
                            (&[EVIL], Some(403)),
                            (&[], Some(403)),
                            (&[SELF, ("origin", "http://evil.example")], Some(403)),
                        ];
                        for (given, want) in table {
                            assert_eq!(answer(&policy, &method, path, given), *want, "{method} {path} {given:?}");
                        }
                    }
                }
            }
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
        assert!(Policy::of(&config).err().unwrap().contains("No such file"));
        std::fs::write(&file, "short-canary\n").unwrap();
        let error = Policy::of(&config).err().unwrap();
        assert!(error.contains("holds 12 bytes") && !error.contains("canary"), "{error}");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert!(Policy::of(&config).is_ok());
    }
}
