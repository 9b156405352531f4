//! Members of a tar to samples, by WebDataset's rules: adjacent members of one key make one sample.

use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;

use super::byte_reader::shard_error;
use super::members::{Member, Members, TarError};
use crate::error::{SampleError, ShardError};
use crate::seed::{Purpose, derive};
use crate::types::{RawSample, SampleId};

/// Extensions of image members.
pub const IMAGE_EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];
/// A `.cls` member holds one whole number.
const MAX_LABEL_BYTES: u64 = 64;

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
    /// Bytes above which an image is refused unread.
    pub max_member_bytes: u64,
}

/// Whether a subset of `fraction` holds the sample with this key. The same in every run, and a smaller subset lies inside a larger one;
/// classes keep their shares within the spread of a fair draw.
#[must_use]
pub fn in_subset(key: &str, fraction: f64) -> bool {
    if fraction >= 1.0 {
        return true;
    }
    let hash = key.as_bytes().chunks(8).fold(key.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        crate::seed::mix(hash ^ u64::from_le_bytes(word))
    });
    // 53 bits, exact in f64.
    ((derive(0, Purpose::Subset, hash, 0, 0) >> 11) as f64) < fraction * (1u64 << 53) as f64
}

/// Key and extension of a member: the path is cut at the first dot of its file name. `None` for names without either.
#[must_use]
pub fn split_name(path: &str) -> Option<(&str, &str)> {
    let file = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + path[file..].find('.')?;
    let (key, extension) = (&path[..dot], &path[dot + 1..]);
    (dot > file && !extension.is_empty()).then_some((key, extension))
}

struct Building {
    key: String,
    wanted: bool,
    image: Option<(Bytes, String)>,
    label: Option<u32>,
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
                wanted: self.complete >= self.options.skip && in_subset(key, self.options.fraction),
                image: None,
                label: None,
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
mod tests {
    use super::*;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(vec![]);
        for (path, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, path, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn options() -> GroupOptions {
        GroupOptions {
            epoch: 2,
            shard: 5,
            path: "t.tar".into(),
            skip: 0,
            fraction: 1.0,
            max_member_bytes: 100,
        }
    }

    fn keys(bytes: &[u8], options: GroupOptions) -> (Vec<String>, Option<ShardError>) {
        let mut keys = vec![];
        for item in Groups::new(bytes, options) {
            match item {
                Ok(Ok(sample)) => keys.push(sample.key),
                Ok(Err(rejected)) => keys.push(format!("{}!{}", rejected.key, rejected.error.reason())),
                Err(error) => return (keys, Some(error)),
            }
        }
        (keys, None)
    }

    #[test]
    fn names_are_cut_at_the_first_dot_of_the_file_name() {
        assert_eq!(split_name("a.b/c.seg.png"), Some(("a.b/c", "seg.png")));
        assert_eq!(split_name("c.JPG"), Some(("c", "JPG")));
        for name in ["no_dot", "a.b/none", ".hidden.jpg", "a/.x", "x."] {
            assert_eq!(split_name(name), None, "{name}");
        }
    }

    #[test]
    fn members_of_one_key_make_a_sample() {
        let bytes = tar(&[
            ("README", b"no key"),
            ("a.txt", b"other"),
            ("a.JPG", b"img a"),
            ("a.cls", b" 7\n"),
            ("d/b.png", b"img b"),
            ("d/b.jpg", b"second image"),
        ]);
        let samples: Vec<RawSample> = Groups::new(bytes.as_slice(), options()).map(|g| g.unwrap().unwrap()).collect();
        assert_eq!(samples.len(), 2);
        let [a, b] = &samples[..] else { unreachable!() };
        assert_eq!(
            (a.key.as_str(), &a.image[..], a.extension.as_str(), a.label),
            ("a", &b"img a"[..], "jpg", Some(7))
        );
        assert_eq!(
            (b.key.as_str(), &b.image[..], b.extension.as_str(), b.label),
            ("d/b", &b"img b"[..], "png", None)
        );
        assert_eq!(
            b.id,
            SampleId {
                epoch: 2,
                shard: 5,
                member: 1
            }
        );
    }

    #[test]
    fn bad_samples_are_named_with_their_reason_and_keep_their_number() {
        let long = [0; 101];
        let bytes = tar(&[
            ("a.txt", b"x"),
            ("b.jpg", &long),
            ("c.jpg", b"x"),
            ("c.cls", b"cat"),
            ("d.jpg", b"ok"),
        ]);
        let (keys, error) = keys(&bytes, options());
        assert!(error.is_none());
        assert_eq!(keys, ["a!no_image", "b!too_large", "c!bad_label", "d"]);
        let last = Groups::new(bytes.as_slice(), options()).last().unwrap().unwrap().unwrap();
        assert_eq!(last.id.member, 3);
    }

    #[test]
    fn scattered_members_end_the_shard_with_the_key() {
        let bytes = tar(&[("a.jpg", b"x"), ("b.jpg", b"x"), ("a.cls", b"1"), ("c.jpg", b"x")]);
        let (keys, error) = keys(&bytes, options());
        assert_eq!(keys, ["a", "b"]);
        assert!(matches!(error, Some(ShardError::Scattered { key, .. }) if key == "a"));
    }

    #[test]
    fn a_tar_cut_anywhere_gives_its_whole_samples_and_then_says_truncated() {
        let bytes = tar(&[
            ("a.jpg", b"1"),
            ("a.cls", b"1"),
            ("b.jpg", b"2"),
            ("b.cls", b"2"),
            ("c.jpg", b"3"),
            ("c.cls", b"3"),
        ]);
        assert_eq!(bytes.len(), 6 * 1024 + 1024);
        for cut in (0..bytes.len()).step_by(37) {
            let (keys, error) = keys(&bytes[..cut], options());
            // A sample is known to be whole once the header of the next one, or the end marker, was read.
            let whole = (cut.saturating_sub(512) / 2048).min(3);
            if cut >= 6 * 1024 + 512 {
                assert!(error.is_none());
                assert_eq!(keys.len(), 3);
            } else {
                assert_eq!(keys, ["a", "b", "c"][..whole], "cut at {cut}");
                assert!(
                    matches!(error, Some(ShardError::Truncated { samples, .. }) if samples == whole as u32),
                    "cut at {cut}: {error:?}"
                );
            }
        }
    }

    #[test]
    fn skipping_and_subsets_leave_numbers_as_they_are() {
        let files: Vec<(String, &[u8])> = (0..400).map(|n| (format!("{n:04}.jpg"), &b"x"[..])).collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|(n, d)| (n.as_str(), *d)).collect();
        let bytes = tar(&files);
        let numbers = |skip, fraction| -> Vec<u32> {
            let options = GroupOptions {
                skip,
                fraction,
                ..options()
            };
            Groups::new(bytes.as_slice(), options)
                .map(|g| g.unwrap().unwrap().id.member)
                .collect()
        };
        assert_eq!(numbers(397, 1.0), [397, 398, 399]);
        let (third, half) = (numbers(0, 0.3), numbers(0, 0.5));
        // Binomial: 120 ± 9 and 200 ± 10; five standard deviations.
        assert!(
            (75..=165).contains(&third.len()) && (150..=250).contains(&half.len()),
            "{} {}",
            third.len(),
            half.len()
        );
        assert!(third.iter().all(|n| half.contains(n)), "a smaller subset lies inside a larger one");
        assert_eq!(numbers(200, 0.3), third.iter().copied().filter(|n| *n >= 200).collect::<Vec<_>>());
    }
}
