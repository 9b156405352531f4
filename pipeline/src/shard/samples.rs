//! Entries of a tar to samples, by WebDataset's rules: adjacent members of one key make one sample.

mod group;
mod options;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::sync::Arc;

use self::group::{Group, Outcome};
pub use self::options::{LabelMember, SampleOptions};
use super::byte_reader::shard_error;
use super::key::{MemberName, Role};
use super::subset::in_subset;
use super::tally::Tally;
use super::tar::{End, Entries, Entry, EntryKind, TarError};
use crate::error::{PipelineError, SampleError, ShardError};
use crate::metrics::PassedOver;
use crate::name::{Name, shown};
use crate::types::{RawSample, SampleId};

/// A sample that cannot be used, with its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where it came from.
    pub id: SampleId,
    /// Object path of the shard.
    pub shard: Arc<str>,
    /// Its key.
    pub key: Name,
    /// Why.
    pub error: SampleError,
}

impl Rejected {
    /// Where a person has to say first which picture is the image; `entries` is what was read so far.
    ///
    /// # Errors
    /// [`PipelineError::TwoImages`] for a sample with several.
    pub fn refuse_two_images(&self, entries: &Tally) -> Result<(), PipelineError> {
        let SampleError::TwoImages { images } = &self.error else {
            return Ok(());
        };
        Err(PipelineError::TwoImages {
            shard: self.shard.to_string(),
            key: self.key.to_string(),
            images: images.join(", "),
            seen: entries.seen(),
            example: images.first().cloned().unwrap_or_default(),
        })
    }
}

/// A sample, or why it is none.
pub type Grouped = Result<RawSample, Rejected>;

/// The samples of one shard in order. After an error it ends.
///
/// Every entry of the tar is accounted for, in a sample or in [`Samples::take_tally`].
pub struct Samples<R> {
    entries: Entries<R>,
    options: SampleOptions,
    /// Keys that came, and whether one of their members was an image.
    keys: HashMap<Box<[u8]>, bool>,
    /// Hashes of the names that came: all of them would be much to keep, and a collision costs a wrong reason for one entry.
    names: HashSet<u64>,
    group: Option<Group>,
    /// Groups completed.
    complete: u32,
    tally: Tally,
    /// The label of the last sample, if the manifest knows no such class.
    unknown_class: Option<u32>,
    /// Why it goes no further than the group under way.
    failed: Option<TarError>,
    ended: bool,
}

impl<R: Read> Samples<R> {
    /// Starts at the first byte of a tar.
    pub fn new(input: R, options: SampleOptions) -> Self {
        Self {
            entries: Entries::new(input),
            options,
            keys: HashMap::new(),
            names: HashSet::new(),
            group: None,
            complete: 0,
            tally: Tally::default(),
            unknown_class: None,
            failed: None,
            ended: false,
        }
    }

    /// Samples that were passed so far, wanted or not.
    pub fn complete(&self) -> u32 {
        self.complete
    }

    /// The label of the last sample, if the manifest knows no such class; asked for once.
    pub fn take_unknown_class(&mut self) -> Option<u32> {
        self.unknown_class.take()
    }

    /// What was counted since the last call, up to the sample that came last.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    fn pass(&mut self, reason: PassedOver, name: &[u8]) {
        // What lies before the place to go on from was counted when it was read.
        if self.complete + u32::from(self.group.is_some()) < self.options.skip {
            self.tally.unwanted += 1;
            return;
        }
        let shard = &self.options.path;
        self.tally.pass(reason, || format!("{shard}: {}", shown(name)));
    }

    /// Takes in one entry; gives the sample before it if it starts a new one.
    fn take_in(&mut self, entry: Entry) -> Option<Grouped> {
        let reason = match entry.kind {
            EntryKind::Regular => None,
            EntryKind::Directory => Some(PassedOver::Directory),
            EntryKind::HardLink => Some(PassedOver::HardLink),
            EntryKind::SymbolicLink => Some(PassedOver::SymbolicLink),
            EntryKind::Special => Some(PassedOver::Special),
            EntryKind::Other => Some(PassedOver::OtherKind),
        };
        let (key, extension) = match (reason, MemberName::parse(&entry.name)) {
            (None, MemberName::Of { key, extension }) => (key, extension),
            (reason, name) => {
                let by_name = if name == MemberName::Hidden {
                    PassedOver::Hidden
                } else {
                    PassedOver::NoExtension
                };
                self.pass(reason.unwrap_or(by_name), &entry.name);
                return None;
            }
        };
        let (role, length) = (
            Role::of(
                extension,
                &self.options.images,
                &self.options.map.extension,
                &self.options.objects.extension,
            ),
            extension.len(),
        );
        let mut finished = None;
        if self.group.as_ref().is_none_or(|g| g.key() != key) {
            finished = self.finish();
            self.begin(key);
        }
        if let Some(has_image) = self.keys.get_mut(key) {
            *has_image |= matches!(role, Role::Image(_));
        }
        let mut hasher = DefaultHasher::new();
        entry.name.hash(&mut hasher);
        let first = self.names.insert(hasher.finish());
        if let Some(group) = &mut self.group {
            self.failed = group.take_in(entry, length, role, first, &self.options, &mut self.entries).err();
        }
        finished
    }

    fn begin(&mut self, key: &[u8]) {
        let options = &self.options;
        // With a balance, rank and label decide at the end of the group.
        let wanted = self.complete >= options.skip && (options.balance.is_some() || in_subset(key, options.fraction));
        let apart = *self.keys.entry(key.into()).or_insert(false);
        self.group = Some(Group::new(key, wanted, apart));
    }

    fn finish(&mut self) -> Option<Grouped> {
        let group = self.group.take()?;
        let member = self.complete;
        self.complete += 1;
        let options = &self.options;
        self.unknown_class = group.unknown_class();
        let outcome = group.finish(options, &mut self.tally)?;
        let id = SampleId {
            epoch: options.epoch,
            shard: options.shard,
            member,
        };
        let shard = Arc::clone(&options.path);
        Some(match outcome {
            Outcome::Sample {
                key,
                image,
                extension,
                label,
                map,
                objects,
            } => Ok(RawSample {
                id,
                shard,
                key,
                image,
                extension,
                label,
                map,
                objects,
            }),
            Outcome::Rejected { key, error } => Err(Rejected { id, shard, key, error }),
        })
    }

    /// What lies behind the last sample.
    fn end(&mut self) -> Result<(), TarError> {
        if self.entries.end() == Some(End::Unmarked) {
            self.tally.pass(PassedOver::NoEndMarker, || self.options.path.to_string());
        }
        loop {
            match self.entries.next_behind_end() {
                Ok(Some(entry)) => self.pass(PassedOver::BehindEnd, &entry.name),
                Ok(None) => return Ok(()),
                Err(TarError::Io(error)) => return Err(TarError::Io(error)),
                // Whatever it is, it is nothing of this tar, which was read to its end.
                Err(_) => {
                    self.pass(PassedOver::BehindEnd, b"(bytes that are no tar)");
                    return Ok(());
                }
            }
        }
    }

    fn shard_error(&self, error: TarError) -> ShardError {
        let (shard, samples) = (self.options.path.to_string(), self.complete);
        match error {
            TarError::Truncated => ShardError::Truncated { shard, samples },
            TarError::Malformed(detail) => ShardError::Malformed { shard, samples, detail },
            TarError::Compressed(format) => ShardError::Compressed { shard, format },
            TarError::Io(error) => {
                let detail = error.to_string();
                shard_error(error).unwrap_or(ShardError::Malformed { shard, samples, detail })
            }
        }
    }
}

impl<R: Read> Iterator for Samples<R> {
    type Item = Result<Grouped, ShardError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let finished = match self.failed.take().map_or_else(|| self.entries.next(), Err) {
                Ok(Some(entry)) => self.take_in(entry),
                Ok(None) => {
                    let last = self.finish();
                    self.failed = self.end().err();
                    self.ended = self.failed.is_none();
                    last
                }
                // What a store did not give may come when it is asked again; what is cut off will not, and a whole image needs none of it.
                Err(error) => match self.group.is_some() && !matches!(error, TarError::Io(_)) {
                    true => {
                        self.failed = Some(error);
                        let last = self.finish();
                        // The error tells how many were whole.
                        self.complete -= u32::from(last.is_none());
                        last
                    }
                    false => {
                        self.ended = true;
                        return Some(Err(self.shard_error(error)));
                    }
                },
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
