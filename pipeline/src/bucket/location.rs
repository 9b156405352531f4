//! What a user writes as the place of shards, taken apart: scheme, root, and folder, single tar, glob or range.

use std::path::{Component, Path as FilePath};

use glob::Pattern;

use super::secret;
use crate::error::PipelineError;
use crate::metrics::Scheme;

/// Shards that one range may name at most; more is surely a typing error.
const MAX_RANGE: usize = 1_000_000;

/// How the shards of a place are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A folder or prefix with a manifest or `*.tar`.
    Folder(String),
    /// Named one by one: a single tar, or a range that was written out.
    Named(Vec<String>),
    /// All objects under a prefix that match.
    Glob(Pattern),
}

/// A place, parsed but not looked at.
#[derive(Debug, Clone)]
pub struct Location {
    /// Kind of store.
    pub scheme: Scheme,
    /// `s3://bucket`, `https://host:port`; empty for files.
    pub root: String,
    /// What lies under the root; object keys have no leading slash.
    pub shape: Shape,
    /// As written, without password and query string; for messages.
    pub shown: String,
}

/// A URL as it may be shown: without user:password and query string. Paths stay as they are.
#[must_use]
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Whether two places are one: the same folder or pattern of shards, however it is written.
#[must_use]
pub fn is_same_place(one: &str, other: &str) -> bool {
    let plain = |url: &str| url.trim_end_matches('/').to_owned();
    let real = |url: &str| std::fs::canonicalize(url).map_or_else(|_| plain(url), |path| path.display().to_string());
    real(one) == real(other)
}

/// Whether `inner` is `outer` or lies in it: folders with their links followed as far as they exist, addresses by their text. Of a pattern of shards
/// the folder before its first wildcard counts.
#[must_use]
pub fn is_within(inner: &str, outer: &str) -> bool {
    let folder = |place: &str| match place.find(['*', '?', '[', '{']) {
        Some(wildcard) if !FilePath::new(place).exists() => place[..place[..wildcard].rfind('/').map_or(0, |slash| slash + 1)].to_owned(),
        _ => place.to_owned(),
    };
    let real = |place: &str| -> std::path::PathBuf {
        let place = folder(place.strip_prefix("file://").unwrap_or(place));
        if place.contains("://") {
            return place.trim_end_matches('/').into();
        }
        let path = std::path::absolute(if place.is_empty() { "." } else { &place }).unwrap_or_else(|_| place.into());
        // What is not there yet hangs on the last folder that is, and has no links of its own.
        path.ancestors()
            .find_map(|there| {
                let mut real = std::fs::canonicalize(there).ok()?;
                for part in path.strip_prefix(there).ok()?.components() {
                    if part == Component::ParentDir {
                        real.pop();
                    } else {
                        real.push(part);
                    }
                }
                Some(real)
            })
            .unwrap_or(path)
    };
    real(inner).starts_with(real(outer))
}

impl Location {
    /// Parses `text`. Only for plain paths the file system is asked whether they exist, so that a folder may be called `a[1]`.
    ///
    /// # Errors
    /// [`PipelineError::BadUrl`].
    pub fn parse(text: &str) -> Result<Self, PipelineError> {
        let bad = |detail: &str| PipelineError::BadUrl {
            url: secret::hidden(text),
            detail: detail.to_owned(),
        };
        let text = text.trim();
        if secret::has_user(text) {
            return Err(bad("credentials belong into the environment, not into the address"));
        }
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.starts_with("pipe:") {
            return Err(bad("pipe: is not supported; nothing here runs a shell"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Self::of_path(text, text);
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "file" if rest.starts_with('/') => return Self::of_path(rest, text),
            "file" => return Err(bad("file:// needs an absolute path, as in file:///data/shards")),
            "s3" | "s3a" => Scheme::S3,
            "gs" | "gcs" => Scheme::Gs,
            "az" | "azure" | "abfs" | "abfss" => Scheme::Az,
            "http" | "https" => Scheme::Http,
            other => return Err(bad(&format!("unknown scheme {other:?}"))),
        };
        if rest.contains(['?', '#']) {
            return Err(bad(
                "query strings (signed addresses) and '?' are not supported here; put credentials into the environment",
            ));
        }
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if host.is_empty() {
            return Err(bad("no bucket or host"));
        }
        if host.contains(['{', '*', '[']) {
            return Err(bad("patterns may stand in the path only"));
        }
        let written = &text[..text.len() - rest.len() + host.len()];
        url::Url::parse(written).map_err(|e| bad(&e.to_string()))?;
        let path = path.trim_start_matches('/');
        let shape = match shape_of(path).map_err(|d| bad(&d))? {
            Some(shape) => shape,
            None if path.ends_with(".tar") => Shape::Named(vec![path.to_owned()]),
            None => Shape::Folder(path.trim_end_matches('/').to_owned()),
        };
        Ok(Self {
            scheme,
            root: written.to_owned(),
            shape,
            shown: redact(text),
        })
    }

    fn of_path(path: &str, shown: &str) -> Result<Self, PipelineError> {
        let file = FilePath::new(path);
        let shape = if file.is_dir() {
            Shape::Folder(path.to_owned())
        } else if file.exists() {
            Shape::Named(vec![path.to_owned()])
        } else {
            shape_of(path)
                .map_err(|detail| PipelineError::BadUrl {
                    url: shown.to_owned(),
                    detail,
                })?
                .unwrap_or_else(|| Shape::Folder(path.to_owned()))
        };
        Ok(Self {
            scheme: Scheme::File,
            root: String::new(),
            shape,
            shown: shown.to_owned(),
        })
    }
}

/// Range or glob in `path`; `None` if it is neither.
fn shape_of(path: &str) -> Result<Option<Shape>, String> {
    if path.contains('{') {
        if path.contains(['*', '[']) {
            return Err("a range {…} and a glob do not go together".into());
        }
        return expand(path).map(|names| Some(Shape::Named(names)));
    }
    if path.contains(['*', '?', '[']) {
        return Pattern::new(path)
            .map(|p| Some(Shape::Glob(p)))
            .map_err(|e| format!("bad glob: {e}"));
    }
    Ok(None)
}

/// Writes out `{000..012}` (padded as its first number) and `{a,b}`, the leftmost varying slowest.
fn expand(text: &str) -> Result<Vec<String>, String> {
    let mut done = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let close = rest[open..].find('}').ok_or("'{' without '}'")? + open;
        let choices = choices(&rest[open + 1..close])?;
        if done.len().saturating_mul(choices.len()) > MAX_RANGE {
            return Err(format!("the range names more than {MAX_RANGE} shards"));
        }
        let before = &rest[..open];
        done = done
            .iter()
            .flat_map(|d| choices.iter().map(move |c| format!("{d}{before}{c}")))
            .collect();
        rest = &rest[close + 1..];
    }
    if rest.contains('}') {
        return Err("'}' without '{'".into());
    }
    for name in &mut done {
        name.push_str(rest);
    }
    Ok(done)
}

fn choices(inside: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = inside.split_once("..") else {
        return match inside.split(',').map(str::to_owned).collect::<Vec<_>>() {
            names if names.len() > 1 && names.iter().all(|n| !n.is_empty() && !n.contains('{')) => Ok(names),
            _ => Err(format!("{{{inside}}} is neither a range {{000..146}} nor a list {{a,b}}")),
        };
    };
    let digits = |s: &str| {
        (!s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()))
            .then(|| s.parse::<u64>().ok())
            .flatten()
    };
    match (digits(first), digits(last)) {
        (Some(from), Some(to)) if from <= to && to - from < MAX_RANGE as u64 => {
            Ok((from..=to).map(|n| format!("{n:0width$}", width = first.len())).collect())
        }
        (Some(from), Some(to)) if from <= to => Err(format!("{{{inside}}} names more than {MAX_RANGE} shards")),
        _ => Err(format!("{{{inside}}} is not a rising range of whole numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_apart() {
        let named = |names: &[&str]| Shape::Named(names.iter().map(|n| (*n).to_owned()).collect());
        let glob = |p: &str| Shape::Glob(Pattern::new(p).unwrap());
        for (text, scheme, root, shape) in [
            ("s3://b", Scheme::S3, "s3://b", Shape::Folder(String::new())),
            ("s3://b/p/q/", Scheme::S3, "s3://b", Shape::Folder("p/q".into())),
            ("gs://b/x.tar", Scheme::Gs, "gs://b", named(&["x.tar"])),
            ("az://c/p/*.tar", Scheme::Az, "az://c", glob("p/*.tar")),
            (
                "https://h:81/d/x-{08..10}.tar",
                Scheme::Http,
                "https://h:81",
                named(&["d/x-08.tar", "d/x-09.tar", "d/x-10.tar"]),
            ),
            (
                "http://h/{a,b}/{0..1}.tar",
                Scheme::Http,
                "http://h",
                named(&["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
            ),
            ("/none/such", Scheme::File, "", Shape::Folder("/none/such".into())),
            ("file:///none/*.tar", Scheme::File, "", glob("/none/*.tar")),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(
                (location.scheme, location.root.as_str(), &location.shape),
                (scheme, root, &shape),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("pipe:cat x.tar", "shell"),
            ("ftp://h/x", "unknown scheme"),
            ("file://x/y", "absolute"),
            ("s3:///x", "no bucket"),
            ("s3://key:secret@b/x", "environment"),
            ("https://secret@h/x", "environment"),
            ("az://secret@c/x", "environment"),
            ("https:secret@h/x", "environment"),
            ("https://h/x.tar?X-Amz-Signature=abc", "query"),
            ("s3://b/{5..3}.tar", "rising"),
            ("s3://b/{0..99999999}.tar", "more than"),
            ("s3://b/{000..999}{000..999}{0..9}.tar", "more than"),
            ("s3://b/{0..9.tar", "without"),
            ("s3://b/{}.tar", "neither"),
            ("s3://b/{0..9}*.tar", "do not go together"),
        ] {
            match Location::parse(text) {
                Err(error) => assert!(error.to_string().contains(reason), "{text}: {error}"),
                Ok(location) => panic!("{text} was taken as {location:?}"),
            }
        }
    }

    #[test]
    fn a_place_is_one_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let train = folder.path().join("train");
        std::fs::create_dir(&train).unwrap();
        std::os::unix::fs::symlink(&train, folder.path().join("link")).unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        for same in ["train/", "./train", "link"] {
            assert!(is_same_place(&place("train"), &place(same)), "{same}");
        }
        assert!(is_same_place("s3://b/train", "s3://b/train/"));
        assert!(!is_same_place(&place("train"), &place("val")) && !is_same_place("s3://b/train", "s3://b/val"));
    }

    #[test]
    fn secrets_are_never_shown() {
        for text in [
            "s3://key:secret@b/x",
            "https://h/x.tar?sig=secret",
            "https://u:secret@h",
            "https://secret@h/x",
            "https:secret@h/x",
            "az://secret@c",
        ] {
            let shown = Location::parse(text).unwrap_err().to_string();
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
