//! What was seen, as text and as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use splitmask_pipeline::bucket::differences::{Difference, sentences};
use splitmask_pipeline::bucket::manifest::Manifest;
use splitmask_pipeline::error::ShardError;

use super::extremes::extremes;
use super::reasons::Reasons;
use super::seen::Seen;
use crate::cli::amount;

/// Samples per class, largest first: from the samples where all were read, else from the manifest.
fn class_counts(manifest: Option<&Manifest>, seen: &Seen) -> Vec<(String, u64)> {
    let read = |label: usize| seen.labels.get(&(label as u32)).copied().unwrap_or(0);
    let mut counts: Vec<(String, u64)> = match manifest {
        Some(m) if seen.complete && seen.lost_samples.is_empty() && seen.lost_shards.is_empty() && !seen.labels.is_empty() => m
            .classes
            .iter()
            .enumerate()
            .map(|(label, name)| (name.clone(), read(label)))
            .collect(),
        Some(m) => m.classes.iter().cloned().zip(m.label_counts.iter().copied()).collect(),
        None => seen.labels.iter().map(|(label, n)| (format!("class {label}"), *n)).collect(),
    };
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

/// How even the classes are: entropy of the labels ÷ its greatest value, 1 = all equal; and the share of the largest class.
fn balance(counts: &[(String, u64)]) -> Option<(f64, f64)> {
    let total: u64 = counts.iter().map(|(_, n)| n).sum();
    let shares = counts.iter().map(|(_, n)| *n as f64 / total as f64);
    let entropy: f64 = shares.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    (counts.len() > 1 && total > 0).then(|| (entropy / (counts.len() as f64).ln(), counts[0].1 as f64 / total as f64))
}

/// Smallest, median and largest.
fn spread(values: &[u32]) -> Option<[u32; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    Some([*sorted.first()?, sorted[sorted.len() / 2], *sorted.last()?])
}

pub(super) fn describe(url: &str, manifest: Option<&Manifest>, shards: usize, seen: &Seen, differences: &[Difference]) -> String {
    let mut lines = vec![url.to_owned()];
    match manifest {
        Some(m) => {
            lines.push(format!("  {shards} shards, {} samples, {}", m.samples(), amount::human(m.bytes())));
            lines.push(format!("  made by: {}", m.provenance));
        }
        None => {
            let how_many = if seen.complete {
                format!("{} samples", seen.samples)
            } else {
                format!("at least {} samples (--read all counts them)", seen.samples)
            };
            lines.push(format!("  {shards} shards, {how_many}; no manifest.json"));
        }
    }
    let counts = class_counts(manifest, seen);
    match balance(&counts) {
        Some((even, largest)) => {
            lines.push(format!(
                "  {} classes; largest {:.1} % of the labelled; evenness {even:.2} (1 = all equal)",
                counts.len(),
                largest * 100.0
            ));
            let name = |(name, n): &(String, u64)| format!("{name} {n}");
            lines.extend(extremes(&counts, name));
        }
        None => lines.push(counts.first().map_or("  no labels (training needs none)".into(), |(name, n)| {
            format!("  one class: {name} {n}")
        })),
    }
    if let Some(m) = manifest {
        let s = &m.statistics;
        let three = |v: [f64; 3]| v.map(|x| format!("{x:.3}")).join(" ");
        lines.push(format!(
            "  pixels (RGB, 0..1): mean {}, std {}; mean size {:.0} × {:.0}",
            three(s.mean),
            three(s.std),
            s.mean_width,
            s.mean_height
        ));
    }
    let end = if seen.complete { "all" } else { "the first" };
    lines.push(format!(
        "read {end} {} samples, {} of images; {} without a label",
        seen.samples,
        amount::human(seen.bytes),
        seen.unlabelled
    ));
    let listed = |counts: &[(String, u64)]| counts.iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ");
    if !seen.formats.is_empty() {
        let formats: Vec<(String, u64)> = seen.formats.iter().map(|(f, n)| (f.clone(), *n)).collect();
        lines.push(format!("  formats: {}", listed(&formats)));
    }
    if let (Some(w), Some(h)) = (spread(&seen.widths), spread(&seen.heights)) {
        lines.push(format!(
            "  width {} to {} (median {}), height {} to {} (median {}) pixels",
            w[0], w[2], w[1], h[0], h[2], h[1]
        ));
    }
    if !seen.keys.is_empty() {
        lines.push(format!("  keys: {} …", seen.keys.join(", ")));
    }
    if !seen.entries.by_extension().is_empty() {
        lines.push(format!("  members by extension: {}", seen.entries.seen()));
    }
    lines.extend(seen.maps.describe(manifest.and_then(|m| m.maps.as_ref()), seen.complete));
    lines.extend(seen.objects.describe(manifest.and_then(|m| m.objects.as_ref()), seen.complete));
    lines.extend(sentences(differences).into_iter().map(|line| format!("  beware: {line}")));
    for (what, reasons) in left_out(seen) {
        for (reason, (n, example)) in reasons {
            lines.push(format!("  {n} {what} left out: {reason}, such as {example}"));
        }
    }
    lines.extend(advice(seen));
    lines.join("\n") + "\n"
}

/// What training leaves out: members of tars, samples, shards, each by reason.
fn left_out(seen: &Seen) -> [(&'static str, Reasons); 3] {
    let members = seen.entries.passed_over();
    [
        (
            "members",
            members
                .map(|(reason, n, example)| (reason.text(), (n, example.to_owned())))
                .collect(),
        ),
        ("samples", seen.lost_samples.clone()),
        ("shards", seen.lost_shards.clone()),
    ]
}

/// What to do where it is plain.
fn advice(seen: &Seen) -> Option<String> {
    if let Some(image) = &seen.image {
        return Some(format!(
            "Some keys hold two images. Training starts once data.image = \"{image}\" says which one it takes (here: --extension {image}); a list gives several in order of preference."
        ));
    }
    if let Some(hint) = seen.last_error.as_ref().and_then(ShardError::hint) {
        return Some(hint);
    }
    (seen.read() == 0 && !seen.entries.by_extension().is_empty()).then(|| {
        "No member is an image by its extension. data.image names the extension where it is another one (here: --extension).".into()
    })
}

/// The same for programs. `left_out` has the counts by reason, `left_out_examples` the first of each.
pub(super) fn json(
    url: &str,
    manifest: Option<&Manifest>,
    shards: usize,
    seen: &Seen,
    differences: &[Difference],
    contact_sheet: Option<&Path>,
) -> String {
    let counts = class_counts(manifest, seen);
    let (evenness, largest) = balance(&counts).unzip();
    let (mut numbers, mut examples) = (serde_json::Map::new(), serde_json::Map::new());
    for (what, reasons) in left_out(seen) {
        numbers.insert(
            what.into(),
            reasons
                .iter()
                .map(|(reason, (n, _))| ((*reason).to_owned(), (*n).into()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        );
        examples.insert(
            what.into(),
            reasons
                .into_iter()
                .map(|(reason, (_, example))| (reason.to_owned(), example.into()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        );
    }
    let value = serde_json::json!({
        "url": url,
        "shards": shards,
        "samples": manifest.map(Manifest::samples).or(seen.complete.then_some(seen.samples)),
        "bytes": manifest.map(Manifest::bytes),
        "classes": counts.into_iter().collect::<BTreeMap<_, _>>(),
        "class_evenness": evenness,
        "largest_class_share": largest,
        "statistics": manifest.map(|m| &m.statistics),
        "provenance": manifest.map(|m| &m.provenance),
        "read": {
            "samples": seen.samples, "complete": seen.complete, "image_bytes": seen.bytes, "formats": seen.formats, "unlabelled": seen.unlabelled,
            "width": spread(&seen.widths), "height": spread(&seen.heights), "first_keys": seen.keys,
            "members": seen.entries.by_extension().into_iter().collect::<BTreeMap<_, _>>(),
        },
        "maps": seen.maps.json(manifest.and_then(|m| m.maps.as_ref()), seen.complete),
        "objects": seen.objects.json(manifest.and_then(|m| m.objects.as_ref()), seen.complete),
        "differences": differences,
        "left_out": numbers,
        "left_out_examples": examples,
        "advice": advice(seen),
        "contact_sheet": contact_sheet,
    });
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balance_of_known_counts() {
        let counts = |list: &[u64]| list.iter().map(|&n| (String::new(), n)).collect::<Vec<_>>();
        assert_eq!(balance(&counts(&[5, 5, 5, 5])), Some((1.0, 0.25)));
        let (even, largest) = balance(&counts(&[3, 1])).unwrap();
        assert!((even - 0.811_278).abs() < 1e-6 && largest == 0.75);
        assert_eq!(balance(&counts(&[7])), None);
        assert_eq!(balance(&[]), None);
        assert_eq!(spread(&[3, 1, 2]), Some([1, 2, 3]));
    }
}
