//! Folders of images → tar shards, manifest and a list of what was refused.
//!
//! ```text
//! INPUT ─scan→ images in hash order ─prepare (threads)→ bytes ─shards→ OUT/{train,val}/{000000.tar…, manifest.json}, OUT/refused.tsv
//! ```
//! The output depends on the files and options only: byte-identical at any number of threads. A sample is `KEY.png` (or jpg, webp,
//! gif, bmp, tiff), `KEY.cls` (class index as text, if the image has a label), `KEY.seg.png` (its label map, where maps are packed), `KEY.objects.json` (its objects,
//! where those are) and `KEY.json` (its path and sizes), in this order.

mod became;
mod error;
mod found;
mod maps;
mod objects;
mod options;
mod output;
mod prepare;
mod report;
mod scan;
mod sets;
mod shards;
mod split;
mod walk;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub use error::PackError;
pub use maps::MapOptions;
pub use objects::{ObjectOptions, ObjectReport};
pub use options::{ClassFrom, Encoding, PackOptions};
pub use output::REFUSED_NAME;
pub use report::{Duplicates, PackProgress, PackReport, PassedOver, Refusal, RefusedCount, ValFrom};
pub use sets::Resembled;

use crate::stage::Meter;
use crate::stage::ordered_map::{Bounds, Claim, ordered_map};
use found::Found;
use objects::annotated::Annotations;
use objects::marked::Marked;
use prepare::{Prepared, Preparer};
use report::EXAMPLES;
use scan::{Division, Scan};
use shards::SetWriter;
use split::Floor;

use crate::printable::printable;

/// Memory for files being decoded or waiting for their turn: this, or [`BUDGET_PER_WORKER`] each if that is more.
const BUDGET: u64 = 768 << 20;
const BUDGET_PER_WORKER: u64 = 128 << 20;

/// Images that may be ahead of the one whose turn it is, per worker.
const AHEAD: usize = 64;

/// Packs a folder of images.
///
/// Randomness: none; order and split are hashes of the relative paths. Memory: the list of paths, and 768 MiB (or 128 MiB a thread)
/// of images in flight at most, plus one image that is larger than that.
///
/// # Errors
/// [`PackError`]; then the output is as it was before.
pub fn pack(options: &PackOptions, mut progress: impl FnMut(PackProgress)) -> Result<PackReport, PackError> {
    let start = Instant::now();
    options.validate()?;
    let followed;
    let options = match output::followed(&options.output)? {
        Some(output) => {
            followed = PackOptions { output, ..options.clone() };
            &followed
        }
        None => options,
    };
    let maps = options.maps.iter().flat_map(MapOptions::folders);
    for input in std::iter::once(&options.input).chain(&options.val).chain(maps) {
        check_input(input)?;
        output::check(input, &options.output, options.force)?;
    }
    let annotations = options.objects.as_ref().map(Annotations::read).transpose()?;
    let scan = Arc::new(scan::scan(options, annotations.as_ref(), &mut progress)?);
    let marked = match annotations.zip(options.objects.as_ref()) {
        Some((annotations, files)) => Some(Marked::of(annotations, &scan.images, files)?),
        None => None,
    };
    if let Some(parent) = options.output.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(PackError::io(parent))?;
    }
    let staging = output::Staging::open(&options.output)?;
    let mut run = Run::new(&staging.dir, options, &scan, marked)?;
    for (path, refusal) in &scan.rest.refused {
        run.refuse(path, refusal)?;
    }
    let workers = options.workers();
    let settings = Arc::new(options.clone());
    let worker = || {
        let scan = Arc::clone(&scan);
        let mut preparer = Preparer::new(Arc::clone(&settings));
        move |index: usize, claim: &mut Claim<'_>| preparer.prepare(&scan.images[index], claim)
    };
    let bounds = Bounds {
        threads: workers,
        items: workers * AHEAD,
        bytes: BUDGET.max(BUDGET_PER_WORKER * workers as u64),
    };
    let results = ordered_map("pack", 0..scan.images.len(), bounds, Meter::unread(), worker)?;
    for (index, prepared) in results.enumerate() {
        run.take(index, prepared?)?;
        let written = run.train.bytes() + run.val.bytes();
        progress(PackProgress {
            done: index as u64 + 1,
            total: scan.images.len() as u64,
            refused: run.refused_files(),
            written,
        });
    }
    let mut report = run.finish()?;
    staging.publish()?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

fn check_input(input: &Path) -> Result<(), PackError> {
    let bad = |detail: String| {
        Err(PackError::BadInput {
            input: input.to_path_buf(),
            detail,
        })
    };
    match std::fs::metadata(input) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => bad("is a file, not a folder".into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => bad("no such folder".into()),
        Err(e) => bad(e.to_string()),
    }
}

/// A packing run between scan and publication.
struct Run<'a> {
    options: &'a PackOptions,
    scan: &'a Scan,
    /// What is known of the objects, where they are packed.
    marked: Option<Marked>,
    train: SetWriter,
    val: SetWriter,
    refused_path: PathBuf,
    refused_list: BufWriter<File>,
    refused: BTreeMap<&'static str, RefusedCount>,
    floor: Option<Floor>,
    first_refused: Option<String>,
    /// First file of each content.
    seen: HashMap<u128, usize>,
    duplicates: Duplicates,
    source_bytes: u64,
    resized: u64,
    transparent: u64,
    unlabelled: u64,
}

impl<'a> Run<'a> {
    fn new(dir: &Path, options: &'a PackOptions, scan: &'a Scan, marked: Option<Marked>) -> Result<Self, PackError> {
        let set = |name: &str| SetWriter::new(dir.join(name), options.shard_bytes, scan.classes.len());
        let refused_path = dir.join(REFUSED_NAME);
        let mut refused_list = File::create_new(&refused_path)
            .map(BufWriter::new)
            .map_err(PackError::io(&refused_path))?;
        refused_list
            .write_all(b"reason\tpath\tdetail\n")
            .map_err(PackError::io(&refused_path))?;
        Ok(Self {
            options,
            scan,
            marked,
            train: set("train")?,
            val: set("val")?,
            refused_path,
            refused_list,
            refused: BTreeMap::new(),
            floor: matches!(scan.division, Division::Share(_)).then(|| Floor::of(&scan.images, scan.classes.len())),
            first_refused: None,
            seen: HashMap::new(),
            duplicates: Duplicates::default(),
            source_bytes: 0,
            resized: 0,
            transparent: 0,
            unlabelled: 0,
        })
    }

    /// Deals with the outcome of one image, in order.
    fn take(&mut self, index: usize, prepared: Result<Prepared, Refusal>) -> Result<(), PackError> {
        let found = &self.scan.images[index];
        let image = match prepared {
            Ok(image) => image,
            Err(refusal) => return self.lose(found, &refusal),
        };
        match self.seen.entry(image.content) {
            Entry::Vacant(slot) => {
                slot.insert(index);
            }
            Entry::Occupied(slot) => {
                let first = &self.scan.images[*slot.get()];
                self.duplicates.files += 1;
                self.duplicates.across_sets += u64::from(first.val != found.val);
                self.duplicates.label_conflicts += u64::from(first.class != found.class);
                if self.options.drop_duplicates {
                    return self.lose(found, &Refusal::Duplicate { of: first.shown() });
                }
            }
        }
        self.source_bytes += image.source_bytes;
        self.resized += u64::from(image.resized);
        self.transparent += u64::from(image.transparent);
        self.unlabelled += u64::from(found.class.is_none());
        let val = self.floor.as_mut().map_or(found.val, |floor| floor.is_val(found));
        let set = if val { &mut self.val } else { &mut self.train };
        set.append(index, &found.shown(), found.class, &image)
    }

    /// Refuses an image that was to be packed.
    fn lose(&mut self, found: &Found, refusal: &Refusal) -> Result<(), PackError> {
        if let Some(floor) = &mut self.floor {
            floor.lost(found);
        }
        self.refuse(&found.shown(), refusal)
    }

    fn refuse(&mut self, path: &str, refusal: &Refusal) -> Result<(), PackError> {
        let one_line = |s: &str| s.replace(['\t', '\n', '\r'], " ");
        let (path, detail) = (one_line(path), one_line(&refusal.to_string()));
        writeln!(self.refused_list, "{}\t{path}\t{detail}", refusal.reason()).map_err(PackError::io(&self.refused_path))?;
        self.first_refused.get_or_insert_with(|| format!("{path}: {detail}"));
        let count = self.refused.entry(refusal.reason()).or_default();
        count.files += 1;
        if count.examples.len() < EXAMPLES {
            count.examples.push((path, detail));
        }
        Ok(())
    }

    fn refused_files(&self) -> u64 {
        self.refused.values().map(|r| r.files).sum()
    }

    fn finish(mut self) -> Result<PackReport, PackError> {
        if self.train.is_empty() && self.val.is_empty() {
            return Err(PackError::AllRefused {
                input: self.options.input.clone(),
                images: self.scan.images.len() as u64,
                reasons: self
                    .refused
                    .iter()
                    .map(|(reason, r)| format!("{} {reason}", r.files))
                    .collect::<Vec<_>>()
                    .join(", "),
                first: self.first_refused.unwrap_or_default(),
            });
        }
        let val_from = self.val_from();
        let flushed = self.refused_list.flush().and_then(|()| self.refused_list.get_ref().sync_all());
        flushed.map_err(PackError::io(&self.refused_path))?;
        if self.train.is_empty() {
            // All that were meant for training were lost behind the last validation image.
            self.floor.iter_mut().for_each(|floor| floor.moved += self.val.samples());
            self.val.trade_places_with(&mut self.train)?;
        }
        let objects = match &self.marked {
            Some(marked) => marked.report([&self.train, &self.val], self.options)?,
            None => ObjectReport::default(),
        };
        let of_objects = |set: &SetWriter| self.marked.as_ref().map(|marked| set.objects.finish(&marked.classes));
        let (classes, provenance) = (&self.scan.classes, self.options.provenance(self.floor.is_none()));
        let of_maps = self.train.maps.classes().max(self.val.maps.classes());
        let maps = |set: &SetWriter| self.options.maps.as_ref().map(|options| set.maps.finish(options, of_maps));
        let counted = [&self.train.maps, &self.val.maps];
        let first_beyond = self
            .options
            .maps
            .as_ref()
            .map_or_else(Default::default, |options| maps::counts::first_beyond(options, counted));
        let unused_maps = self
            .options
            .maps
            .as_ref()
            .map_or_else(Default::default, |options| maps::unused::without_image(options, &self.scan.images));
        let val = if self.val.is_empty() {
            self.val.discard()?;
            None
        } else {
            let (maps, objects) = (maps(&self.val), of_objects(&self.val));
            Some(self.val.finish(classes, maps, objects, provenance.clone())?)
        };
        let (train_maps, train_objects) = (maps(&self.train), of_objects(&self.train));
        Ok(PackReport {
            output: self.options.output.clone(),
            train: self.train.finish(classes, train_maps, train_objects, provenance)?,
            val,
            val_from,
            resembled: self.scan.resembled.clone(),
            first_beyond,
            unused_maps,
            objects,
            found: (self.scan.images.len()
                + self
                    .scan
                    .rest
                    .refused
                    .iter()
                    .filter(|(_, r)| matches!(r, Refusal::Foreign { .. }))
                    .count()) as u64,
            source_bytes: self.source_bytes,
            resized: self.resized,
            transparent: self.transparent,
            unlabelled: self.unlabelled,
            refused: self.refused,
            duplicates: self.duplicates,
            passed_over: self.scan.rest.passed_over.clone(),
            other_files: self.scan.rest.other_files.clone(),
            in_root: self.scan.in_root,
            small_classes: self.scan.small_classes,
            moved_to_train: self.floor.map_or(0, |floor| floor.moved),
            seconds: 0.0,
        })
    }

    fn val_from(&self) -> ValFrom {
        let share = self.options.val_share;
        match &self.scan.division {
            Division::Share(Some(tree)) if !matches!(self.options.class, ClassFrom::Leaf | ClassFrom::None) => {
                ValFrom::ShareOfSets(share, printable(&tree.train), printable(&tree.val))
            }
            Division::Share(_) => ValFrom::Share(share),
            Division::ValFolder => ValFrom::Folder,
            Division::Folders(tree) => ValFrom::Sets(printable(&tree.train), printable(&tree.val)),
        }
    }
}
