//! Members of a tar to samples, by WebDataset's rules: adjacent members of one key make one sample.

use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;

use super::byte_reader::shard_error;
use super::key::{Balance, in_subset, split_name};
use super::members::{Member, Members, TarError};
pub use crate::decode::EXTENSIONS as IMAGE_EXTENSIONS;
use crate::error::{SampleError, ShardError};
use crate::types::{RawSample, SampleId};

/// A `.cls` member holds one whole number.
const MAX_LABEL_BYTES: u64 = 64;
/// What `splitmask pack` writes about a sample is shorter.
const MAX_ABOUT_BYTES: u64 = 1 << 16;

/// The part of a `.json` member that is looked at.
#[derive(serde::Deserialize)]
struct About {
    class_rank: u64,
}

/// A sample that cannot be used, with its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where it came from.
    pub id: SampleId,
    /// Object path of the shard.
    pub shard: Arc<str>,
    /// Its key.
    pub key: String,
    /// Why.
    pub error: SampleError,
}

/// A sample, or why it is none.
pub type Grouped = Result<RawSample, Rejected>;

/// Which samples of a shard are wanted.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// Epoch and shard of the samples' ids.
    pub epoch: u32,
    /// Index of the shard.
    pub shard: u32,
    /// Path of the shard.
    pub path: Arc<str>,
    /// Samples at the start that are passed over, counting all of them.
    pub skip: u32,
    /// Share of the samples to keep, by hash of the key.
    pub fraction: f64,
    /// Exact shares of each class, for samples that know their rank in it.
    pub balance: Option<Arc<Balance>>,
    /// Bytes above which an image is refused unread.
    pub max_member_bytes: u64,
}

struct Building {
    key: String,
    wanted: bool,
    image: Option<(Bytes, String)>,
    label: Option<u32>,
    /// Its number among those of its class, if a `.json` member tells it.
    rank: Option<u64>,
    error: Option<SampleError>,
    extensions: BTreeSet<String>,
}

/// The samples of one shard in order. After an error it ends.
pub struct Groups<R> {
    members: Members<R>,
    options: GroupOptions,
    seen: HashSet<Box<str>>,
    building: Option<Building>,
    /// Groups completed.
    complete: u32,
    failed: Option<ShardError>,
    ended: bool,
}

impl<R: Read> Groups<R> {
    /// Starts at the first byte of a tar.
    pub fn new(input: R, options: GroupOptions) -> Self {
        Self {
            members: Members::new(input),
            options,
            seen: HashSet::new(),
            building: None,
            complete: 0,
            failed: None,
            ended: false,
        }
    }

    /// Samples that were passed so far, wanted or not.
    pub fn complete(&self) -> u32 {
        self.complete
    }

    /// Takes in one member; gives the group before it if it starts a new one.
    fn take_in(&mut self, member: &Member) -> Option<Grouped> {
        let (key, extension) = split_name(&member.path)?;
        let mut finished = None;
        if self.building.as_ref().is_none_or(|b| b.key != key) {
            finished = self.finish();
            if !self.seen.insert(key.into()) {
                self.failed = Some(ShardError::Scattered {
                    shard: self.options.path.to_string(),
                    key: key.to_owned(),
                });
                return finished;
            }
            self.building = Some(Building {
                key: key.to_owned(),
                // With a balance, rank and label decide at the end of the group.
                wanted: self.complete >= self.options.skip && (self.options.balance.is_some() || in_subset(key, self.options.fraction)),
                image: None,
                label: None,
                rank: None,
                error: None,
                extensions: BTreeSet::new(),
            });
        }
        if let Err(error) = self.read_member(member, &extension.to_ascii_lowercase()) {
            // The group before is whole; the error comes behind it.
            self.failed = Some(self.shard_error(error));
        }
        finished
    }

    fn read_member(&mut self, member: &Member, extension: &str) -> Result<(), TarError> {
        let Some(building) = self.building.as_mut().filter(|b| b.wanted) else {
            return Ok(());
        };
        building.extensions.insert(extension.chars().take(32).collect());
        if IMAGE_EXTENSIONS.contains(&extension) && building.image.is_none() {
            let limit = self.options.max_member_bytes;
            if member.size > limit {
                let bytes = member.size;
                building.error.get_or_insert(SampleError::TooManyBytes { bytes, limit });
                return Ok(());
            }
            building.image = Some((self.members.read()?.into(), extension.to_owned()));
        } else if extension == "cls" {
            let text = match member.size {
                0..=MAX_LABEL_BYTES => String::from_utf8_lossy(&self.members.read()?).into_owned(),
                n => format!("{n} bytes"),
            };
            match text.trim().parse() {
                Ok(label) => building.label = Some(label),
                Err(_) => {
                    building.error.get_or_insert(SampleError::BadLabel { text });
                }
            }
        } else if extension == "json" && self.options.balance.is_some() && member.size <= MAX_ABOUT_BYTES {
            building.rank = serde_json::from_slice(&self.members.read()?)
                .ok()
                .map(|about: About| about.class_rank);
        }
        Ok(())
    }

    fn finish(&mut self) -> Option<Grouped> {
        let built = self.building.take()?;
        let member = self.complete;
        self.complete += 1;
        if !built.wanted {
            return None;
        }
        if let Some(balance) = &self.options.balance {
            let kept = built.rank.and_then(|rank| balance.keeps(built.label, rank));
            if !kept.unwrap_or_else(|| in_subset(&built.key, self.options.fraction)) {
                return None;
            }
        }
        let id = SampleId {
            epoch: self.options.epoch,
            shard: self.options.shard,
            member,
        };
        let shard = Arc::clone(&self.options.path);
        let rejected = |error| Rejected {
            id,
            shard: Arc::clone(&shard),
            key: built.key.clone(),
            error,
        };
        Some(match (built.error, built.image) {
            (Some(error), _) => Err(rejected(error)),
            (None, None) => Err(rejected(SampleError::NoImage {
                members: built.extensions.into_iter().collect::<Vec<_>>().join(" "),
            })),
            (None, Some((image, extension))) => Ok(RawSample {
                id,
                shard,
                key: built.key,
                image,
                extension,
                label: built.label,
            }),
        })
    }

    fn shard_error(&self, error: TarError) -> ShardError {
        let (shard, samples) = (self.options.path.to_string(), self.complete);
        match error {
            TarError::Truncated => ShardError::Truncated { shard, samples },
            TarError::Malformed(detail) => ShardError::Malformed { shard, samples, detail },
            TarError::Io(error) => {
                let detail = error.to_string();
                shard_error(error).unwrap_or(ShardError::Malformed { shard, samples, detail })
            }
        }
    }
}

impl<R: Read> Iterator for Groups<R> {
    type Item = Result<Grouped, ShardError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            if let Some(error) = self.failed.take() {
                self.ended = true;
                return Some(Err(error));
            }
            let finished = match self.members.next() {
                Ok(Some(member)) => self.take_in(&member),
                Ok(None) => {
                    self.ended = true;
                    self.finish()
                }
                // The group under way is dropped: what is missing may have been its label.
                Err(error) => {
                    self.ended = true;
                    return Some(Err(self.shard_error(error)));
                }
            };
            if let Some(item) = finished {
                return Some(Ok(item));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
