//! Shards of a store, asked for with retries: a listing where it can be had, single objects where it cannot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use glob::{MatchOptions, Pattern};
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta, ObjectStore, ObjectStoreExt};

use super::{Found, beside, checked, compare, empty, folders, looked_for, of_manifest, resized};
use crate::bucket::differences::Difference;
use crate::bucket::location::{Location, Shape};
use crate::bucket::manifest::{MANIFEST_NAME, Manifest};
use crate::bucket::retry::Retries;
use crate::bucket::shard::{Place, Shard};
use crate::bucket::verdict::{Verdict, chain, judge};
use crate::bucket::web::{Web, WebError};
use crate::error::PipelineError;
use crate::metrics::{PipelineMetrics, RetryReason, Scheme};

/// Manifests of a web server are checked by asking for this many of its shards, evenly spread: it cannot be listed.
const ASKED: usize = 64;
/// Those of them that are asked for at once.
const ASKED_AT_ONCE: usize = 8;
/// Folders beside the shards of a listing that are looked into.
const FOLDERS_ASKED: usize = 8;
/// Longest time that checking a manifest may take; what was not seen by then is believed.
const CHECKING: Duration = Duration::from_secs(10);

/// Asks a store, trying again for `patience`.
pub(crate) struct Asker<'a> {
    pub(crate) store: &'a Arc<dyn ObjectStore>,
    /// The same place asked directly, if it is a plain web server.
    pub(crate) web: Option<&'a Web>,
    pub(crate) location: &'a Location,
    pub(crate) read_timeout: Duration,
    pub(crate) patience: Duration,
    pub(crate) metrics: &'a PipelineMetrics,
}

impl Asker<'_> {
    /// Shards of a remote place.
    pub(crate) async fn find(&self) -> Result<Found, PipelineError> {
        match &self.location.shape {
            Shape::Folder(folder) => {
                let name = join(folder, MANIFEST_NAME);
                if let Some(text) = self.object(&self.key(&name)?).await? {
                    let manifest = Manifest::parse(&text, &format!("{}/{name}", self.location.root))?;
                    let mut shards = of_manifest(&manifest, |_| Place::Object(Path::default()), |p| join(folder, p));
                    for shard in &mut shards {
                        shard.place = Place::Object(self.key(&shard.path)?);
                    }
                    let differences = match self.web {
                        Some(web) => self.ask_for_some(web, &mut shards).await,
                        None => self.list_beside(folder, &manifest, &mut shards).await,
                    };
                    return checked(self.location, shards, manifest, differences);
                }
                self.no_listing(&format!(
                    "no {MANIFEST_NAME} there, and a plain web server cannot be listed; write a range {{000000..000146}}.tar"
                ))?;
                let prefix = self.key(folder)?;
                let Some(all) = self.list_folder(&prefix).await? else {
                    return self.listed(vec![], vec![]);
                };
                let beside = self.beside(&all).await?;
                self.listed(all.objects.into_iter().filter(|m| is_shard(&m.location)).collect(), beside)
            }
            Shape::Glob(pattern) => {
                self.no_listing("a plain web server cannot be listed; write a range {000000..000146}.tar")?;
                let text = pattern.as_str();
                let fixed = &text[..text.find(['*', '?', '[']).unwrap_or(text.len())];
                let folder = fixed.rsplit_once('/').map_or("", |(folder, _)| folder);
                let all = self.list_below(&self.key(folder)?).await?;
                let meant = all.into_iter().filter(|m| matches(pattern, m.location.as_ref())).collect();
                self.listed(meant, vec![])
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
                        replaced: false,
                        place: Place::Object(self.key(name)?),
                    });
                }
                // One missing shard is a matter of policy while reading; a place with none is a mistake to report now.
                let probes = [0, shards.len() / 2, shards.len() - 1];
                let mut refused = None;
                for probe in probes {
                    if let Place::Object(key) = &shards[probe].place {
                        // A refusal may be a store's way to say that this one is missing.
                        match self.is_there(key).await? {
                            Ok(true) => return Ok(Found::plain(shards, vec![])),
                            Ok(false) => {}
                            Err(detail) => refused = Some(detail),
                        }
                    }
                }
                if let Some(detail) = refused {
                    return Err(PipelineError::Refused {
                        url: self.location.shown.clone(),
                        detail,
                    });
                }
                Err(empty(self.location, &format!("{} is not there", names[0])))
            }
        }
    }

    fn listed(&self, mut found: Vec<ObjectMeta>, beside: Vec<Difference>) -> Result<Found, PipelineError> {
        if found.is_empty() {
            return Err(empty(self.location, &looked_for(&self.location.shape, &beside)));
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
                replaced: false,
                place: Place::Object(meta.location),
            })
            .collect();
        Ok(Found::plain(shards, beside))
    }

    fn no_listing(&self, detail: &str) -> Result<(), PipelineError> {
        match self.location.scheme {
            Scheme::Http => Err(empty(self.location, detail)),
            _ => Ok(()),
        }
    }

    /// What lies directly in a folder, if there is one.
    async fn list_folder(&self, prefix: &Path) -> Result<Option<ListResult>, PipelineError> {
        let prefix = (!prefix.as_ref().is_empty()).then_some(prefix);
        self.ask(async || self.store.list_with_delimiter(prefix).await).await
    }

    /// All that lies below a folder.
    async fn list_below(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, PipelineError> {
        let prefix = (!prefix.as_ref().is_empty()).then_some(prefix);
        let found = self.ask(async || self.store.list(prefix).try_collect().await).await?;
        Ok(found.unwrap_or_default())
    }

    /// What looks like more shards than the shards directly in a folder.
    async fn beside(&self, folder: &ListResult) -> Result<Vec<Difference>, PipelineError> {
        let mut beside = archives(folder);
        for prefix in folder.common_prefixes.iter().take(FOLDERS_ASKED) {
            let Some(inside) = self.list_folder(prefix).await? else {
                continue;
            };
            let mut names = inside.objects.iter().filter_map(|m| m.location.filename());
            if names.any(|name| beside::makes_a_place(name.as_bytes())) {
                beside.push(Difference::Folder {
                    folder: prefix.to_string(),
                });
            }
        }
        beside.sort();
        Ok(beside)
    }

    /// Whether an object is there; or the words with which it is refused.
    async fn is_there(&self, key: &Path) -> Result<Result<bool, String>, PipelineError> {
        let denied = |e: Failed| match e.verdict {
            Verdict::Denied => Ok(Err(e.detail)),
            _ => Err(e),
        };
        let answer = match self.web {
            Some(web) => {
                self.ask(async || web.size(key).await.map(|_| Ok(())).or_else(|e| denied(e.into())))
                    .await?
            }
            None => {
                self.ask(async || self.store.head(key).await.map(|_| Ok(())).or_else(|e| denied(e.into())))
                    .await?
            }
        };
        Ok(answer.map_or(Ok(false), |found| found.map(|()| true)))
    }

    /// A small object, whole.
    async fn object(&self, key: &Path) -> Result<Option<Vec<u8>>, PipelineError> {
        match self.web {
            Some(web) => {
                let all = async || -> Result<Vec<u8>, Failed> {
                    let pieces: Vec<_> = web.whole(key).await?.body.try_collect().await?;
                    Ok(pieces.concat())
                };
                self.ask(all).await
            }
            None => {
                let all = async || -> Result<Vec<u8>, Failed> { Ok(self.store.get(key).await?.bytes().await?.to_vec()) };
                self.ask(all).await
            }
        }
    }

    /// Compares a manifest's shards with a listing. A store that may not be listed is believed.
    async fn list_beside(&self, folder: &str, manifest: &Manifest, shards: &mut [Shard]) -> Vec<Difference> {
        let listing = async {
            let (mut there, mut beside) = (BTreeMap::new(), vec![]);
            for part in folders(manifest) {
                let prefix = Path::parse(join(folder, part).trim_end_matches('/'))?;
                let prefix = (!prefix.as_ref().is_empty()).then_some(&prefix);
                let listed = self.store.list_with_delimiter(prefix).await?;
                beside.extend(archives(&listed));
                let shards = listed.objects.into_iter().filter(|m| is_shard(&m.location));
                there.extend(shards.map(|m| (m.location.to_string(), m.size)));
            }
            Ok::<_, object_store::Error>((there, beside))
        };
        let detail = match tokio::time::timeout(CHECKING, listing).await {
            Ok(Ok((there, beside))) => return compare(shards, there, beside),
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("no answer for {} s", CHECKING.as_secs()),
        };
        tracing::info!(
            "{}: not listed, so {MANIFEST_NAME} is believed unseen: {detail}",
            self.location.shown
        );
        vec![]
    }

    /// Compares some of a manifest's shards with what a web server says of them. What it does not say is believed.
    async fn ask_for_some(&self, web: &Web, shards: &mut [Shard]) -> Vec<Difference> {
        let asked = shards.len().min(ASKED);
        let places: Vec<usize> = (0..asked).map(|n| n * shards.len() / asked).collect();
        let keys = places.iter().filter_map(|at| match &shards[*at].place {
            Place::Object(key) => Some((*at, key.clone())),
            Place::File(_) => None,
        });
        let keys: Vec<(usize, Path)> = keys.collect();
        let answers = futures::stream::iter(keys)
            .map(async |(at, key)| (at, web.size(&key).await))
            .buffer_unordered(ASKED_AT_ONCE)
            .take_until(tokio::time::sleep(CHECKING))
            .collect::<Vec<_>>()
            .await;
        let mut found = vec![];
        for (at, answer) in answers {
            match answer {
                Ok(Some(bytes)) => found.extend(resized(&mut shards[at], bytes)),
                Err(e) if e.verdict == Verdict::NotFound => found.push(Difference::Missing {
                    shard: shards[at].path.to_string(),
                }),
                Ok(None) | Err(_) => {}
            }
        }
        found.sort();
        found
    }

    /// The answer, `None` for "not found".
    async fn ask<T, E: Into<Failed>>(&self, request: impl AsyncFn() -> Result<T, E>) -> Result<Option<T>, PipelineError> {
        let mut retries = Retries::new(self.patience);
        loop {
            let failed = match tokio::time::timeout(self.read_timeout, request()).await {
                Ok(Ok(answer)) => return Ok(Some(answer)),
                Ok(Err(error)) => error.into(),
                Err(_) => Failed {
                    verdict: Verdict::Retry(RetryReason::Timeout),
                    detail: format!("no answer for {:.1} s", self.read_timeout.as_secs_f64()),
                },
            };
            let Failed { verdict, detail } = failed;
            let url = self.location.shown.clone();
            match (verdict, retries.next(None)) {
                (Verdict::NotFound, _) => return Ok(None),
                (Verdict::Retry(reason), Ok(delay)) => {
                    self.metrics.store_retries.of(reason).inc();
                    tokio::time::sleep(delay).await;
                }
                (Verdict::Retry(_), Err(_)) => return Err(PipelineError::Unreachable { url, detail }),
                _ => return Err(PipelineError::Refused { url, detail }),
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

/// Why a request has no answer to use.
struct Failed {
    verdict: Verdict,
    detail: String,
}

impl From<object_store::Error> for Failed {
    fn from(error: object_store::Error) -> Self {
        Self {
            verdict: judge(&error),
            detail: chain(&error),
        }
    }
}

impl From<WebError> for Failed {
    fn from(error: WebError) -> Self {
        Self {
            verdict: error.verdict,
            detail: error.detail,
        }
    }
}

fn is_shard(key: &Path) -> bool {
    beside::is_shard(key.filename().unwrap_or_default().as_bytes())
}

/// The compressed archives directly in a folder.
fn archives(folder: &ListResult) -> Vec<Difference> {
    let keys = folder.objects.iter().map(|m| &m.location);
    keys.filter_map(|key| beside::compressed(key.filename().unwrap_or_default().as_bytes(), || key.to_string()))
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
