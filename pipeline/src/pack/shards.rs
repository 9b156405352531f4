//! Writes one set (train or val): tar shards of a bounded size and the manifest that describes them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::PackError;
use super::maps::MEMBER;
use super::maps::counts::MapCounts;
use super::objects::{self, counts::ObjectCounts};
use super::prepare::{PixelSums, Prepared};
use crate::bucket::manifest::{ImageStatistics, MANIFEST_NAME, Manifest, MapClasses, ObjectClasses, ShardEntry};
use crate::file;

/// Tar's unit, bytes: headers take one, contents are padded to it.
const BLOCK: u64 = 512;

/// Longest part of a file name that goes into a key.
const STEM_CHARS: usize = 48;

/// Passes bytes on and keeps their SHA-256 and number.
struct Hashing<W> {
    inner: W,
    sha256: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(data)?;
        self.sha256.update(&data[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

struct OpenShard {
    tar: tar::Builder<Hashing<BufWriter<File>>>,
    name: String,
    samples: u32,
}

/// One set while it is written.
pub(super) struct SetWriter {
    dir: PathBuf,
    shard_bytes: u64,
    open: Option<OpenShard>,
    shards: Vec<ShardEntry>,
    label_counts: Vec<u64>,
    unlabelled: u64,
    sums: PixelSums,
    /// What its label maps hold.
    pub(super) maps: MapCounts,
    /// Its objects.
    pub(super) objects: ObjectCounts,
}

/// A key that is unique by its index, holds no dot, and still tells a reader which file it was.
pub(super) fn key(index: usize, relative: &str) -> String {
    let name = relative.rsplit('/').next().unwrap_or(relative);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let stem: String = stem.chars().take(STEM_CHARS).map(safe).collect();
    format!("{index:08}-{stem}")
}

impl SetWriter {
    /// Makes the set's folder.
    pub(super) fn new(dir: PathBuf, shard_bytes: u64, classes: usize) -> Result<Self, PackError> {
        std::fs::create_dir(&dir).map_err(PackError::io(&dir))?;
        Ok(Self {
            dir,
            shard_bytes,
            open: None,
            shards: Vec::new(),
            label_counts: vec![0; classes],
            unlabelled: 0,
            sums: PixelSums::default(),
            maps: MapCounts::default(),
            objects: ObjectCounts::default(),
        })
    }

    /// Appends one sample as members: image, class, label map and objects (if it has them), and where it came from.
    pub(super) fn append(&mut self, index: usize, relative: &str, class: Option<u32>, image: &Prepared) -> Result<(), PackError> {
        let key = key(index, relative);
        // Its number among those of its class, in the order of packing, which is that of a hash: `data.fraction` keeps the first ones.
        let rank = *self.of_class(class);
        let about = serde_json::json!({
            "path": relative, "class_rank": rank, "width": image.width, "height": image.height,
            "source_width": image.source_width, "source_height": image.source_height,
        });
        let mut members = vec![(format!("{key}.{}", image.extension), image.bytes.as_slice())];
        let label = class.map(|c| c.to_string());
        if let Some(label) = &label {
            members.push((format!("{key}.cls"), label.as_bytes()));
        }
        if let Some(map) = &image.map {
            members.push((format!("{key}.{MEMBER}"), map.bytes.as_slice()));
        }
        if let Some(found) = &image.objects {
            members.push((format!("{key}.{}", objects::MEMBER), found.bytes.as_slice()));
        }
        let about = about.to_string();
        members.push((format!("{key}.json"), about.as_bytes()));
        let size: u64 = members
            .iter()
            .map(|(_, data)| BLOCK + (data.len() as u64).next_multiple_of(BLOCK))
            .sum();
        let full = |s: &OpenShard| s.samples > 0 && s.tar.get_ref().bytes + size + 2 * BLOCK > self.shard_bytes;
        if self.open.as_ref().is_some_and(full) {
            self.close()?;
        }
        let mut shard = match self.open.take() {
            Some(shard) => shard,
            None => self.start()?,
        };
        for (name, data) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            shard
                .tar
                .append_data(&mut header, &name, data)
                .map_err(PackError::io(&self.dir.join(&shard.name)))?;
        }
        shard.samples += 1;
        self.open = Some(shard);
        *self.of_class(class) += 1;
        self.sums.add(&image.sums);
        image.map.iter().for_each(|map| self.maps.add(&map.counts, &map.file));
        image.objects.iter().for_each(|objects| self.objects.add(objects));
        Ok(())
    }

    /// Samples of a class so far; those without one count as a class of their own.
    fn of_class(&mut self, class: Option<u32>) -> &mut u64 {
        class
            .and_then(|c| self.label_counts.get_mut(c as usize))
            .unwrap_or(&mut self.unlabelled)
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.bytes).sum::<u64>() + self.open.as_ref().map_or(0, |s| s.tar.get_ref().bytes)
    }

    fn start(&self) -> Result<OpenShard, PackError> {
        let name = format!("{:06}.tar", self.shards.len());
        let path = self.dir.join(&name);
        let file = File::create_new(&path).map_err(PackError::io(&path))?;
        let inner = BufWriter::with_capacity(1 << 20, file);
        let tar = tar::Builder::new(Hashing {
            inner,
            sha256: Sha256::new(),
            bytes: 0,
        });
        Ok(OpenShard { tar, name, samples: 0 })
    }

    fn close(&mut self) -> Result<(), PackError> {
        let Some(shard) = self.open.take() else { return Ok(()) };
        let path = self.dir.join(&shard.name);
        let finish = || -> std::io::Result<(Sha256, u64)> {
            let hashing = shard.tar.into_inner()?;
            let file = hashing.inner.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            Ok((hashing.sha256, hashing.bytes))
        };
        let (sha256, bytes) = finish().map_err(PackError::io(&path))?;
        let sha256 = file::hex(sha256.finalize());
        self.shards.push(ShardEntry {
            path: shard.name,
            bytes,
            samples: shard.samples,
            sha256,
        });
        Ok(())
    }

    /// Whether no sample came.
    pub(super) fn is_empty(&self) -> bool {
        self.shards.is_empty() && self.open.is_none()
    }

    /// Samples so far.
    pub(super) fn samples(&self) -> u64 {
        self.label_counts.iter().sum::<u64>() + self.unlabelled
    }

    /// Makes this set the other one, which is empty, and leaves this one empty.
    pub(super) fn trade_places_with(&mut self, empty: &mut Self) -> Result<(), PackError> {
        self.close()?;
        std::fs::remove_dir(&empty.dir).map_err(PackError::io(&empty.dir))?;
        std::fs::rename(&self.dir, &empty.dir).map_err(PackError::io(&self.dir))?;
        std::fs::create_dir(&self.dir).map_err(PackError::io(&self.dir))?;
        std::mem::swap(&mut self.dir, &mut empty.dir);
        std::mem::swap(self, empty);
        Ok(())
    }

    /// Removes the folder of a set that stayed empty.
    pub(super) fn discard(self) -> Result<(), PackError> {
        std::fs::remove_dir(&self.dir).map_err(PackError::io(&self.dir))
    }

    /// Closes the last shard and writes the manifest.
    pub(super) fn finish(
        mut self,
        classes: &[String],
        maps: Option<MapClasses>,
        objects: Option<ObjectClasses>,
        provenance: String,
    ) -> Result<Manifest, PackError> {
        self.close()?;
        let manifest = Manifest {
            format: Manifest::FORMAT.into(),
            shards: self.shards,
            classes: classes.to_vec(),
            label_counts: self.label_counts,
            statistics: self.sums.statistics(),
            maps,
            objects,
            provenance,
        };
        let path = self.dir.join(MANIFEST_NAME);
        let text = serde_json::to_string_pretty(&manifest).expect("plain data serialises") + "\n";
        file::write(&path, text).map_err(PackError::io(&path))?;
        Ok(manifest)
    }
}

impl PixelSums {
    /// Mean and standard deviation in 0..1.
    fn statistics(&self) -> ImageStatistics {
        let n = self.pixels.max(1) as f64;
        let mean = self.sum.map(|s| s as f64 / n / 255.0);
        let square = self.square.map(|s| s as f64 / n / (255.0 * 255.0));
        let std = std::array::from_fn(|c| (square[c] - mean[c] * mean[c]).max(0.0).sqrt());
        let images = self.images.max(1) as f64;
        ImageStatistics {
            images: self.images,
            mean,
            std,
            mean_width: self.width as f64 / images,
            mean_height: self.height as f64 / images,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_no_dot_and_stay_readable() {
        assert_eq!(key(7, "a/b.c/old man.v2.PNG"), "00000007-old_man_v2");
        assert_eq!(key(7, "no-extension"), "00000007-no-extension");
        assert_eq!(key(123_456_789, "x/Käse/öl.png"), "123456789-_l");
        assert_eq!(key(1, &format!("{}.png", "x".repeat(300))).len(), 9 + STEM_CHARS);
        assert_eq!(key(2, ".png"), "00000002-");
    }
}
