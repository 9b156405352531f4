//! Maps that belong to no image.

use std::collections::HashSet;
use std::path::Path;

use walkdir::WalkDir;

use super::MapOptions;
use crate::pack::found::Found;
use crate::pack::report::EXAMPLES;

/// Maps that no image asked for: how many, and the paths of the first few.
pub(in crate::pack) fn without_image(options: &MapOptions, images: &[Found]) -> (u64, Vec<String>) {
    let used: HashSet<&Path> = images.iter().filter_map(|found| found.map.as_deref()).collect();
    let files = options
        .folders()
        .flat_map(|folder| WalkDir::new(folder).follow_links(true).sort_by_file_name())
        .flatten();
    let is_map = |path: &Path| path.extension().is_some_and(|e| e == "png") && !used.contains(path);
    let (mut number, mut first) = (0, vec![]);
    for file in files.filter(|file| file.file_type().is_file() && is_map(file.path())) {
        number += 1;
        if first.len() < EXAMPLES {
            first.push(file.path().display().to_string());
        }
    }
    (number, first)
}
