//! A registry as text and as a list of names.

use std::collections::BTreeSet;

use prometheus::proto::MetricType;
use prometheus::{Encoder, Registry, TextEncoder};

/// The registry's state in the Prometheus text format, version 0.0.4.
///
/// # Errors
/// If a collector hands out inconsistent families.
pub fn render(registry: &Registry) -> prometheus::Result<String> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    String::from_utf8(text).map_err(|e| prometheus::Error::Msg(e.to_string()))
}

/// Names of all series that a registry holds, as PromQL writes them: a histogram counts as its `_bucket`, `_sum` and `_count`.
#[must_use]
pub fn series_names(registry: &Registry) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for family in registry.gather() {
        if family.get_field_type() == MetricType::HISTOGRAM {
            names.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", family.name())));
        } else {
            names.insert(family.name().to_owned());
        }
    }
    names
}
