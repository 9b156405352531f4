//! Which shards a place holds: its manifest, a listing, or the names that the user wrote.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::location::{Location, Shape};
use super::manifest::{MANIFEST_NAME, Manifest};
use super::retry::{Backoff, Verdict, chain, judge};
use super::{Place, Shard};
use crate::error::PipelineError;
use crate::metrics::{PipelineMetrics, Scheme};
use crate::name::shown;

/// Shards in their unshuffled order, and the manifest if there is one.
pub(super) type Found = (Vec<Shard>, Option<Manifest>);

/// Shards of a local place.
pub(super) fn local(location: &Location) -> Result<Found, PipelineError> {
    let (paths, manifest) = match &location.shape {
        Shape::Folder(folder) => {
            let folder = FilePath::new(folder);
            if !folder.is_dir() {
                return Err(empty(location, "no such file or folder"));
            }
            match std::fs::read(folder.join(MANIFEST_NAME)) {
                Ok(text) => {
                    let manifest = Manifest::parse(&text, &format!("{}/{MANIFEST_NAME}", location.shown))?;
                    return Ok((
                        of_manifest(&manifest, |p| Place::File(folder.join(p)), |p| folder.join(p).display().to_string()),
                        Some(manifest),
                    ));
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(PipelineError::Io {
                        path: folder.join(MANIFEST_NAME).display().to_string(),
                        source,
                    });
                }
            }
            let mut paths = vec![];
            let io = |source| PipelineError::Io {
                path: folder.display().to_string(),
                source,
            };
            for entry in std::fs::read_dir(folder).map_err(io)? {
                let path = entry.map_err(io)?.path();
                if path.extension().is_some_and(|e| e == "tar") && path.is_file() {
                    paths.push(path);
                }
            }
            paths.sort();
            (paths, None)
        }
        Shape::Glob(pattern) => {
            let found = glob::glob(pattern.as_str()).map_err(|e| PipelineError::BadUrl {
                url: location.shown.clone(),
                detail: e.to_string(),
            })?;
            let mut paths: Vec<PathBuf> = found.filter_map(Result::ok).filter(|p| p.is_file()).collect();
            paths.sort();
            (paths, None)
        }
        Shape::Named(names) => {
            let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
            if !paths.iter().any(|p| p.is_file()) {
                return Err(empty(location, &format!("none of the {} named files exists", paths.len())));
            }
            (paths, None)
        }
    };
    if paths.is_empty() {
        return Err(empty(location, &looked_for(&location.shape)));
    }
    let shards = paths
        .into_iter()
        .enumerate()
        .map(|(n, path)| Shard {
            index: n as u32,
            path: shown(path.as_os_str().as_encoded_bytes()).into(),
            bytes: path.metadata().ok().map(|m| m.len()),
            samples: None,
            sha256: None,
            place: Place::File(path),
        })
        .collect();
    Ok((shards, manifest))
}

/// Asks a store, trying again for `patience`.
pub(super) struct Asker<'a> {
    pub(super) store: &'a Arc<dyn ObjectStore>,
    pub(super) location: &'a Location,
    pub(super) read_timeout: Duration,
    pub(super) patience: Duration,
    pub(super) metrics: &'a PipelineMetrics,
}

impl Asker<'_> {
    /// Shards of a remote place.
    pub(super) async fn find(&self) -> Result<Found, PipelineError> {
        match &self.location.shape {
            Shape::Folder(folder) => {
                let name = join(folder, MANIFEST_NAME);
                if let Some(text) = self.object(&self.key(&name)?).await? {
                    let manifest = Manifest::parse(&text, &format!("{}/{name}", self.location.root))?;
                    let mut shards = of_manifest(&manifest, |_| Place::Object(Path::default()), |p| join(folder, p));
                    for shard in &mut shards {
                        shard.place = Place::Object(self.key(&shard.path)?);
                    }
                    return Ok((shards, Some(manifest)));
                }
                self.no_listing(&format!(
                    "no {MANIFEST_NAME} there, and a plain web server cannot be listed; write a range {{000000..000146}}.tar"
                ))?;
                let prefix = self.key(folder)?;
                let all = self.list(&prefix, false).await?;
                self.listed(all.into_iter().filter(|m| m.location.as_ref().ends_with(".tar")).collect())
            }
            Shape::Glob(pattern) => {
                self.no_listing("a plain web server cannot be listed; write a range {000000..000146}.tar")?;
                let text = pattern.as_str();
                let fixed = &text[..text.find(['*', '?', '[']).unwrap_or(text.len())];
                let folder = fixed.rsplit_once('/').map_or("", |(folder, _)| folder);
                let all = self.list(&self.key(folder)?, true).await?;
                self.listed(all.into_iter().filter(|m| matches(pattern, m.location.as_ref())).collect())
            }
            Shape::Named(names) => {
                let mut shards = vec![];
                for (n, name) in names.iter().enumerate() {
                    shards.push(Shard {
                        index: n as u32,
                        path: name.as_str().into(),
                        bytes: None,
                        samples: None,
                        sha256: None,
                        place: Place::Object(self.key(name)?),
                    });
                }
                // One missing shard is a matter of policy while reading; a place with none is a mistake to report now.
                let probes = [0, shards.len() / 2, shards.len() - 1];
                let mut refused = None;
                for probe in probes {
                    if let Place::Object(key) = &shards[probe].place {
                        // A refusal may be a store's way to say that this one is missing.
                        let head = async || match self.store.head(key).await {
                            Err(error) if judge(&error) == Verdict::Denied => Ok(Err(error)),
                            other => other.map(Ok),
                        };
                        match self.ask(head).await? {
                            Some(Ok(_)) => return Ok((shards, None)),
                            Some(Err(error)) => refused = Some(chain(&error)),
                            None => {}
                        }
                    }
                }
                if let Some(detail) = refused {
                    return Err(PipelineError::Unreachable {
                        url: self.location.shown.clone(),
                        detail,
                    });
                }
                Err(empty(self.location, &format!("{} is not there", names[0])))
            }
        }
    }

    fn listed(&self, mut found: Vec<object_store::ObjectMeta>) -> Result<Found, PipelineError> {
        if found.is_empty() {
            return Err(empty(self.location, &looked_for(&self.location.shape)));
        }
        found.sort_by(|a, b| a.location.as_ref().cmp(b.location.as_ref()));
        let shards = found
            .into_iter()
            .enumerate()
            .map(|(n, meta)| Shard {
                index: n as u32,
                path: meta.location.as_ref().into(),
                bytes: Some(meta.size),
                samples: None,
                sha256: None,
                place: Place::Object(meta.location),
            })
            .collect();
        Ok((shards, None))
    }

    fn no_listing(&self, detail: &str) -> Result<(), PipelineError> {
        match self.location.scheme {
            Scheme::Http => Err(empty(self.location, detail)),
            _ => Ok(()),
        }
    }

    /// Names in `prefix`: those directly in it, or with `deep` all below it.
    async fn list(&self, prefix: &Path, deep: bool) -> Result<Vec<object_store::ObjectMeta>, PipelineError> {
        let prefix = (!prefix.as_ref().is_empty()).then_some(prefix);
        let found = self
            .ask(async || match deep {
                true => self.store.list(prefix).try_collect().await,
                false => self.store.list_with_delimiter(prefix).await.map(|l| l.objects),
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// A small object, whole.
    async fn object(&self, key: &Path) -> Result<Option<Vec<u8>>, PipelineError> {
        self.ask(async || Ok(self.store.get(key).await?.bytes().await?.to_vec())).await
    }

    /// The answer, `None` for "not found".
    async fn ask<T>(&self, request: impl AsyncFn() -> object_store::Result<T>) -> Result<Option<T>, PipelineError> {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let (detail, retry) = match tokio::time::timeout(self.read_timeout, request()).await {
                Ok(Ok(answer)) => return Ok(Some(answer)),
                Ok(Err(error)) => match judge(&error) {
                    Verdict::NotFound => return Ok(None),
                    Verdict::Retry(reason) => (chain(&error), Some(reason)),
                    _ => (chain(&error), None),
                },
                Err(_) => {
                    let detail = format!("no answer for {:.1} s", self.read_timeout.as_secs_f64());
                    (detail, Some(crate::metrics::RetryReason::Timeout))
                }
            };
            let delay = backoff.delay();
            match retry {
                Some(reason) if start.elapsed() + delay <= self.patience => {
                    self.metrics.store_retries.of(reason).inc();
                    tokio::time::sleep(delay).await;
                }
                _ => {
                    return Err(PipelineError::Unreachable {
                        url: self.location.shown.clone(),
                        detail,
                    });
                }
            }
        }
    }

    fn key(&self, name: &str) -> Result<Path, PipelineError> {
        // Web addresses are percent-encoded as written; object keys are literal.
        let parsed = match self.location.scheme {
            Scheme::Http => Path::from_url_path(name),
            _ => Path::parse(name),
        };
        parsed.map_err(|e| PipelineError::BadUrl {
            url: self.location.shown.clone(),
            detail: e.to_string(),
        })
    }
}

fn of_manifest(manifest: &Manifest, place: impl Fn(&str) -> Place, named: impl Fn(&str) -> String) -> Vec<Shard> {
    let entries = manifest.shards.iter().enumerate();
    entries
        .map(|(n, entry)| Shard {
            index: n as u32,
            path: named(&entry.path).into(),
            bytes: Some(entry.bytes),
            samples: Some(entry.samples),
            sha256: Some(entry.sha256.to_ascii_lowercase().into()),
            place: place(&entry.path),
        })
        .collect()
}

fn matches(pattern: &Pattern, key: &str) -> bool {
    let options = MatchOptions {
        require_literal_separator: true,
        ..MatchOptions::new()
    };
    pattern.matches_with(key, options)
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

fn empty(location: &Location, detail: &str) -> PipelineError {
    PipelineError::Empty {
        url: location.shown.clone(),
        detail: detail.to_owned(),
    }
}

fn looked_for(shape: &Shape) -> String {
    match shape {
        Shape::Folder(_) => format!("neither {MANIFEST_NAME} nor *.tar directly in it"),
        Shape::Glob(pattern) => format!("nothing matches {pattern}"),
        Shape::Named(names) => format!("looked for {}", names.join(", ")),
    }
}
