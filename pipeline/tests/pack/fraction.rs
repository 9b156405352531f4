//! `data.fraction` on packed shards: the share of each class is exact, and smaller shares lie inside larger ones.

use std::collections::{BTreeMap, BTreeSet};

use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{Dataset, Order};
use tempfile::TempDir;

use super::{ImageFormat, PackOptions, bytes, pack, picture, put};

/// Classes of very different sizes, and pictures without one.
const CLASSES: [(&str, u32); 4] = [("many/", 83), ("some/", 40), ("few/", 7), ("", 20)];

#[test]
fn every_class_keeps_exactly_its_share_and_shares_are_nested() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut number = 0;
    for (folder, count) in CLASSES {
        for n in 0..count {
            number += 1;
            put(
                input.path(),
                &format!("{folder}{n}.png"),
                &bytes(&picture(16, 16, number), ImageFormat::Png),
            );
        }
    }
    let options = PackOptions {
        shard_bytes: 60_000,
        val_share: 0.0,
        ..PackOptions::new(input.path(), out.path().join("o"))
    };
    let report = pack(&options, |_| ()).unwrap();
    assert_eq!(report.train.samples(), 150);
    let url = out.path().join("o/train");
    let kept = |fraction: f64| -> BTreeMap<Option<u32>, BTreeSet<String>> {
        let data = DataConfig {
            fraction,
            ..DataConfig::default()
        };
        let dataset = Dataset::open(url.to_str().unwrap(), &data, &PipelineConfig::default(), PipelineMetrics::default()).unwrap();
        let mut kept = BTreeMap::<_, BTreeSet<String>>::new();
        for sample in dataset.samples(Order::Sequential).unwrap() {
            let sample = sample.unwrap();
            assert!(kept.entry(sample.label).or_default().insert(sample.key.to_string()));
        }
        kept
    };
    // Far less than one image of any class.
    let least = kept(0.001);
    assert_eq!(
        least.values().map(BTreeSet::len).collect::<Vec<_>>(),
        [1; 4],
        "every class keeps an image"
    );
    let (tenth, third, whole) = (kept(0.1), kept(0.3), kept(1.0));
    for (label, keys) in &least {
        assert!(keys.is_subset(&tenth[label]));
    }
    for (subset, fraction) in [(&tenth, 0.1), (&third, 0.3), (&whole, 1.0)] {
        for (label, keys) in &whole {
            let share = (keys.len() as f64 * fraction).round() as usize;
            assert_eq!(
                subset.get(label).map_or(0, BTreeSet::len),
                share,
                "{fraction} of {} of class {label:?}",
                keys.len()
            );
        }
    }
    for (label, keys) in &tenth {
        assert!(keys.is_subset(&third[label]) && third[label].is_subset(&whole[label]));
    }
}
