//! Who may do what at the admin server.

use std::net::IpAddr;
use std::path::Path;

use axum::http::{HeaderMap, Method, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::config::{AdminConfig, file};

/// What anybody may read by any name: Prometheus and Kubernetes address it as they know it.
pub(super) const OPEN: [&str; 3] = [METRICS, "/-/healthy", "/-/ready"];
/// Of those, what a read token closes: numbers tell what is trained.
const METRICS: &str = "/metrics";
/// What shows the file itself, comments and all: for those who may change it.
const OF_EDITORS: [&str; 1] = ["/api/v1/config/text"];
/// Shortest token.
const TOKEN_BYTES: usize = 32;

/// Who may read and post. Holds digests of the tokens, never the tokens.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    lifecycle: bool,
    token: Option<[u8; 32]>,
    read_token: Option<[u8; 32]>,
    hosts: Vec<String>,
}

impl Policy {
    /// Reads the token files of a validated config.
    ///
    /// # Errors
    /// The key of the one that is wrong, and why: it cannot be read, is too short, or both hold the same.
    pub fn of(config: &AdminConfig) -> Result<Self, (&'static str, String)> {
        const READ: &str = "admin.read_token_file";
        let read = |key, path: &str| token_of(path).map_err(|why| (key, why));
        let (token, read_token) = (read("admin.token_file", &config.token_file)?, read(READ, &config.read_token_file)?);
        if token.is_some() && token == read_token {
            return Err((READ, "holds the token of admin.token_file: whoever may look could act".into()));
        }
        Ok(Self {
            lifecycle: config.lifecycle,
            token,
            read_token,
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

    /// Whether a request only looks.
    #[must_use]
    pub fn is_read(method: &Method, path: &str) -> bool {
        matches!(*method, Method::GET | Method::HEAD) && !OF_EDITORS.contains(&path)
    }

    /// Whether reasons are told to whoever sent these headers, where everybody is told the state.
    #[must_use]
    pub fn tells(&self, headers: &HeaderMap) -> bool {
        self.read_token.is_none() || self.may_read(headers)
    }

    /// Whether a request holds a token that suffices to read.
    fn may_read(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let tokens = [&self.token, &self.read_token];
        // All are compared: the time tells nothing.
        let right = tokens.into_iter().flatten().map(|want| {
            let by_bearer = bearer(given).is_some_and(|given| is_token(given.as_bytes(), want));
            let by_password = password(given).is_some_and(|given| is_token(&given, want));
            by_bearer | by_password
        });
        right.fold(false, |any, right| any | right)
    }

    /// Checks a request by its method, path and headers.
    ///
    /// # Errors
    /// Status and reason of the refusal.
    pub fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let reads = Self::is_read(method, path);
        if reads && OPEN.contains(&path) && (path != METRICS || self.read_token.is_none()) {
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
            // A password that the browser remembers is sent with whatever another site makes it ask for: it never acts.
            Some(want) if !reads => match bearer(text(header::AUTHORIZATION)) {
                Some(given) if is_token(given.as_bytes(), want) => Ok(()),
                _ => Err((StatusCode::UNAUTHORIZED, "a bearer token is needed: Authorization: Bearer …")),
            },
            _ if self.read_token.is_some() && reads && self.may_read(headers) => Ok(()),
            _ if self.read_token.is_some() && reads => Err((
                StatusCode::UNAUTHORIZED,
                "a token is needed to read: Authorization: Bearer …, or as a password with any name",
            )),
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

/// The digest of the token in a file; none for no file.
fn token_of(path: &str) -> Result<Option<[u8; 32]>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let text = file::read(Path::new(path)).map_err(|e| e.to_string())?;
    let token = text.trim_ascii();
    if token.len() < TOKEN_BYTES {
        return Err(format!(
            "holds {} bytes, expected at least {TOKEN_BYTES} (for example from `openssl rand -hex 32`)",
            token.len()
        ));
    }
    Ok(Some(Sha256::digest(token).into()))
}

/// What an Authorization header gives by this scheme, whose name is case-insensitive (RFC 9110, section 11.1).
fn by_scheme<'a>(given: Option<&'a str>, scheme: &str) -> Option<&'a str> {
    let (named, what) = given?.split_once(' ')?;
    named.eq_ignore_ascii_case(scheme).then(|| what.trim())
}

fn bearer(given: Option<&str>) -> Option<&str> {
    by_scheme(given, "bearer")
}

/// The password of basic authentication (RFC 7617), which browsers ask their users for.
fn password(given: Option<&str>) -> Option<Vec<u8>> {
    let pair = STANDARD.decode(by_scheme(given, "basic")?).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Whether this is the token of the digest.
fn is_token(given: &[u8], want: &[u8; 32]) -> bool {
    let given: [u8; 32] = Sha256::digest(given).into();
    // Digests are compared as a whole: the time tells nothing about the token.
    let differs = given.iter().zip(want).fold(0, |d, (a, b)| d | (a ^ b));
    std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn policy(lifecycle: bool, token: Option<&str>) -> Policy {
        Policy {
            lifecycle,
            token: token.map(|t| Sha256::digest(t.as_bytes()).into()),
            read_token: None,
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
        assert!(Policy::of(&config).err().unwrap().1.contains("No such file"));
        std::fs::write(&file, "short-canary\n").unwrap();
        let (key, error) = Policy::of(&config).err().unwrap();
        assert_eq!(key, "admin.token_file");
        assert!(error.contains("holds 12 bytes") && !error.contains("canary"), "{error}");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert!(Policy::of(&config).is_ok());
        let both = AdminConfig {
            read_token_file: config.token_file.clone(),
            ..config
        };
        let (key, error) = Policy::of(&both).err().unwrap();
        assert!(key == "admin.read_token_file" && error.contains("could act"), "{error}");
    }

    #[test]
    fn a_read_token_reads_and_never_acts() {
        let (look, act) = ("look-0123456789abcdef0123456789abcdef", "act-0123456789abcdef0123456789abcdef");
        let digest = |token: &str| Some(Sha256::digest(token.as_bytes()).into());
        let policy = Policy {
            lifecycle: true,
            token: digest(act),
            read_token: digest(look),
            hosts: vec![],
        };
        let bearer = |token: &str| format!("Bearer {token}");
        let basic = |token: &str| format!("Basic {}", STANDARD.encode(format!("any name:{token}")));
        let paths = ["/", "/metrics", "/api/v1/status", "/curves.svg", "/nowhere"];
        // (header, reads, acts)
        let table: &[(Option<String>, Option<u16>, Option<u16>)] = &[
            (None, Some(401), Some(401)),
            (Some(bearer(look)), None, Some(401)),
            (Some(basic(look)), None, Some(401)),
            (Some(bearer(act)), None, None),
            (Some(basic(act)), None, Some(401)),
            (Some(bearer("wrong")), Some(401), Some(401)),
            (Some(basic("wrong")), Some(401), Some(401)),
            (Some("Basic !".into()), Some(401), Some(401)),
            (Some(look.into()), Some(401), Some(401)),
        ];
        for (header, reads, acts) in table {
            // With a token any name will do, and without one none does.
            for host in [EVIL, SELF] {
                let mut given = vec![host];
                given.extend(header.as_deref().map(|h| ("authorization", h)));
                for path in paths {
                    assert_eq!(answer(&policy, &Method::GET, path, &given), *reads, "GET {path} {given:?}");
                }
                for (method, path) in [(Method::POST, "/-/pause"), (Method::POST, "/metrics"), (Method::GET, OF_EDITORS[0])] {
                    assert_eq!(answer(&policy, &method, path, &given), *acts, "{method} {path} {given:?}");
                }
                for path in ["/-/healthy", "/-/ready"] {
                    assert_eq!(answer(&policy, &Method::GET, path, &given), None, "{path} {given:?}");
                }
                let mut headers = HeaderMap::new();
                header
                    .iter()
                    .for_each(|h| drop(headers.insert("authorization", h.parse().unwrap())));
                assert_eq!(policy.tells(&headers), reads.is_none());
                // Whoever has one, a script of another site has not.
                given.push(("origin", "http://another.example"));
                assert_eq!(answer(&policy, &Method::GET, "/", &given), Some(403), "{given:?}");
            }
        }
    }
}
