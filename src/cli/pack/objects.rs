//! Objects that are packed beside the images.

use std::path::PathBuf;

use clap::Args;
use splitmask_pipeline::bucket::manifest::ObjectClasses;
use splitmask_pipeline::pack::ObjectOptions;

/// Classes that are named.
const LISTED: usize = 5;

/// Where the objects are marked.
#[derive(Args)]
pub(super) struct ObjectArgs {
    /// File in COCO's form with boxes and masks of objects, to be packed beside the images; its file_names are paths below INPUT.
    #[arg(long, value_name = "FILE")]
    coco: Option<PathBuf>,
    /// The same for the folder given by --val.
    #[arg(long, value_name = "FILE", requires_all = ["val", "coco"])]
    val_coco: Option<PathBuf>,
}

impl ObjectArgs {
    /// For the packer; none where no objects are asked for.
    pub(super) fn options(self) -> Option<ObjectOptions> {
        Some(ObjectOptions {
            file: self.coco?,
            val_file: self.val_coco,
        })
    }
}

/// A line about the objects of a set.
pub(super) fn told(set: &str, objects: &ObjectClasses) -> String {
    let mut counts: Vec<(u64, &String)> = objects.objects.iter().copied().zip(&objects.classes).collect();
    counts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let largest: Vec<String> = counts.iter().take(LISTED).map(|(n, name)| format!("{name} {n}")).collect();
    let number: u64 = objects.objects.iter().sum();
    let crowds: u64 = objects.crowds.iter().sum();
    format!(
        "objects of {set}: {number} and {crowds} crowds of {} classes, {} with masks; {} images have none; the largest classes: {}",
        objects.classes.len(),
        objects.masks,
        objects.negatives,
        largest.join(", ")
    )
}
