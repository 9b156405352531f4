//! The members of one key, while they come: which is the image, what is the label, and what is nothing of the sample.

use std::io::Read;

use bytes::Bytes;

use super::options::{LabelMember, SampleOptions};
use crate::error::SampleError;
use crate::metrics::PassedOver;
use crate::name::{Name, shown};
use crate::shard::key::Role;
use crate::shard::subset::in_subset;
use crate::shard::tally::Tally;
use crate::shard::tar::{Entries, Entry, TarError};

/// A `.cls` member holds one whole number.
const MAX_LABEL_BYTES: u64 = 64;
/// What `splitmask pack` writes about a sample is shorter.
const MAX_ABOUT_BYTES: u64 = 1 << 16;

/// The part of a `.json` member that is looked at.
#[derive(serde::Deserialize)]
struct About {
    /// Its number among the samples of its class, if `splitmask pack` wrote it.
    class_rank: Option<u64>,
}

/// A picture of the key, the best so far.
struct Candidate {
    /// Its place in the order of preference.
    place: usize,
    name: Vec<u8>,
    extension: String,
    /// Its bytes, unless it is too large.
    content: Result<Bytes, SampleError>,
}

/// A member that is nothing of its sample, and what is wrong with it where the reason does not say that.
struct Passed {
    reason: PassedOver,
    name: Vec<u8>,
    detail: String,
}

/// What the members of one key came to.
pub(super) enum Outcome {
    /// A whole sample; the fields are those of [`crate::types::RawSample`].
    Sample {
        key: Name,
        image: Bytes,
        extension: String,
        label: Option<u32>,
        map: Option<Bytes>,
        objects: Option<Bytes>,
    },
    /// A sample that cannot be used.
    Rejected { key: Name, error: SampleError },
}

/// The members of one key that lie side by side.
pub(super) struct Group {
    key: Name,
    /// Whether it was asked for; else nothing of it is read.
    wanted: bool,
    /// Whether the sample of this key came before, and these members lie apart from it.
    apart: bool,
    /// Pictures that may be the image, by extension.
    pictures: Vec<String>,
    image: Option<Candidate>,
    /// Its label map, if maps are read.
    map: Option<Result<Bytes, SampleError>>,
    has_map: bool,
    /// Its objects, if they are read.
    objects: Option<Result<Bytes, SampleError>>,
    has_objects: bool,
    /// The class index that its `.cls` member holds, known or not.
    label: Option<u32>,
    /// Whether the manifest knows no such class.
    unknown_class: bool,
    has_label: bool,
    rank: Option<u64>,
    /// Of all its members, as written.
    extensions: Vec<Box<[u8]>>,
    /// Names of its label and its JSON, which need an image.
    attached: Vec<Vec<u8>>,
    passed: Vec<Passed>,
}

impl Group {
    /// Begins with no member.
    pub(super) fn new(key: &[u8], wanted: bool, apart: bool) -> Self {
        Self {
            key: key.into(),
            wanted,
            apart,
            pictures: vec![],
            image: None,
            map: None,
            has_map: false,
            objects: None,
            has_objects: false,
            label: None,
            unknown_class: false,
            has_label: false,
            rank: None,
            extensions: vec![],
            attached: vec![],
            passed: vec![],
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }

    /// Takes in a member whose extension is the last `extension` bytes of its name; `first` = no other member had this name.
    pub(super) fn take_in<R: Read>(
        &mut self,
        entry: Entry,
        extension: usize,
        role: Role,
        first: bool,
        options: &SampleOptions,
        entries: &mut Entries<R>,
    ) -> Result<(), TarError> {
        let Entry { name, size, .. } = entry;
        let extension = &name[name.len() - extension..];
        self.extensions.push(extension.into());
        if !self.wanted {
            return Ok(());
        }
        let second_label = match role {
            Role::Label => std::mem::replace(&mut self.has_label, true),
            Role::Map => std::mem::replace(&mut self.has_map, true),
            Role::Objects => std::mem::replace(&mut self.has_objects, true),
            _ => false,
        };
        let reason = match role {
            _ if !first || second_label => Some(PassedOver::Duplicate),
            _ if self.apart => Some(PassedOver::Scattered),
            Role::Other => Some(PassedOver::UnknownExtension),
            Role::OtherImage => Some(PassedOver::SecondImage),
            _ => None,
        };
        if let Some(reason) = reason {
            self.pass(reason, name, String::new());
            return Ok(());
        }
        let read = match role {
            Role::Image(place) => {
                let extension = shown(&extension.to_ascii_lowercase());
                return self.picture(place, name, size, extension, options, entries);
            }
            Role::Label => self.read_label(size, options, entries),
            Role::Map => read_member(&options.map, &mut self.map, size, options, entries),
            Role::Objects => read_member(&options.objects, &mut self.objects, size, options, entries),
            _ if options.balance.is_some() => self.read_about(size, entries),
            _ => Ok(None),
        };
        match read {
            Ok(None) => self.attached.push(name),
            Ok(Some((reason, detail))) => self.pass(reason, name, detail),
            Err(error) => {
                self.pass(PassedOver::CutOff, name, String::new());
                return Err(error);
            }
        }
        Ok(())
    }

    fn pass(&mut self, reason: PassedOver, name: Vec<u8>, detail: String) {
        self.passed.push(Passed { reason, name, detail });
    }

    fn picture<R: Read>(
        &mut self,
        place: usize,
        name: Vec<u8>,
        size: u64,
        extension: String,
        options: &SampleOptions,
        entries: &mut Entries<R>,
    ) -> Result<(), TarError> {
        self.pictures.push(extension.clone());
        if self.image.as_ref().is_some_and(|best| best.place <= place) {
            self.pass(PassedOver::SecondImage, name, String::new());
            return Ok(());
        }
        let limit = options.max_member_bytes;
        let content = if size > limit {
            Err(SampleError::TooManyBytes { bytes: size, limit })
        } else {
            match entries.read() {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => {
                    self.pass(PassedOver::CutOff, name, String::new());
                    return Err(error);
                }
            }
        };
        let better = Candidate {
            place,
            name,
            extension,
            content,
        };
        if let Some(worse) = self.image.replace(better) {
            self.pass(PassedOver::SecondImage, worse.name, String::new());
        }
        Ok(())
    }

    /// Why the label is none, and what stands there.
    fn read_label<R: Read>(
        &mut self,
        size: u64,
        options: &SampleOptions,
        entries: &mut Entries<R>,
    ) -> Result<Option<(PassedOver, String)>, TarError> {
        if size > MAX_LABEL_BYTES {
            return Ok(Some((PassedOver::BadLabel, format!("{size} bytes"))));
        }
        let bytes = entries.read()?;
        self.label = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        let Some(label) = self.label else {
            return Ok(Some((PassedOver::BadLabel, format!("\"{}\"", shown(&bytes)))));
        };
        self.unknown_class = options.classes.is_some_and(|classes| label >= classes);
        Ok(self.unknown_class.then(|| (PassedOver::UnknownClass, label.to_string())))
    }

    fn read_about<R: Read>(&mut self, size: u64, entries: &mut Entries<R>) -> Result<Option<(PassedOver, String)>, TarError> {
        if size > MAX_ABOUT_BYTES {
            return Ok(Some((PassedOver::BadJson, format!("{size} bytes"))));
        }
        match serde_json::from_slice::<About>(&entries.read()?) {
            Ok(about) => {
                self.rank = about.class_rank;
                Ok(None)
            }
            Err(error) => Ok(Some((PassedOver::BadJson, error.to_string()))),
        }
    }

    /// Its label, if the manifest knows no such class.
    pub(super) fn unknown_class(&self) -> Option<u32> {
        self.label.filter(|_| self.unknown_class)
    }

    /// What it is, if it was asked for and has an image; each of its members is counted.
    pub(super) fn finish(mut self, options: &SampleOptions, tally: &mut Tally) -> Option<Outcome> {
        let members = self.extensions.len() as u64;
        self.extensions.iter().for_each(|extension| tally.extension(extension));
        if !self.wanted || self.left_out_by_balance(options) {
            tally.unwanted += members;
            return None;
        }
        if self.image.is_none() {
            for name in std::mem::take(&mut self.attached) {
                self.pass(PassedOver::NoImage, name, String::new());
            }
        }
        tally.used += members - self.passed.len() as u64;
        for Passed { reason, name, detail } in self.passed {
            tally.pass(reason, || match detail.is_empty() {
                true => format!("{}: {}", options.path, shown(&name)),
                false => format!("{}: {} ({detail})", options.path, shown(&name)),
            });
        }
        let (key, image) = (self.key, self.image?);
        if self.pictures.len() > 1 && options.images.is_empty() {
            let error = SampleError::TwoImages { images: self.pictures };
            return Some(Outcome::Rejected { key, error });
        }
        let (map, objects) = match self.map.transpose().and_then(|map| Ok((map, self.objects.transpose()?))) {
            Ok(both) => both,
            Err(error) => return Some(Outcome::Rejected { key, error }),
        };
        Some(match image.content {
            Ok(bytes) => Outcome::Sample {
                key,
                image: bytes,
                extension: image.extension,
                label: self.label.filter(|_| !self.unknown_class),
                map,
                objects,
            },
            Err(error) => Outcome::Rejected { key, error },
        })
    }

    fn left_out_by_balance(&self, options: &SampleOptions) -> bool {
        let (Some(balance), true) = (&options.balance, self.image.is_some()) else {
            return false;
        };
        let kept = self.rank.and_then(|rank| balance.keeps(self.label, rank));
        !kept.unwrap_or_else(|| in_subset(self.key.as_bytes(), options.fraction))
    }
}

/// Reads a member into its place, if it is wanted.
fn read_member<R: Read>(
    member: &LabelMember,
    place: &mut Option<Result<Bytes, SampleError>>,
    size: u64,
    options: &SampleOptions,
    entries: &mut Entries<R>,
) -> Result<Option<(PassedOver, String)>, TarError> {
    let limit = options.max_member_bytes;
    if member.read {
        *place = Some(match size > limit {
            true => Err(SampleError::TooManyBytes { bytes: size, limit }),
            false => Ok(entries.read()?.into()),
        });
    }
    Ok(None)
}
