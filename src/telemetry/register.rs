//! Making a metric and registering it in one go; those with a closed label have all its values from the start.

use prometheus::core::Collector;
use prometheus::{Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use super::labels::{ClosedLabel, PerLabel};

pub(super) fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    register(registry, IntCounter::new(name, help)?)
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Gauge> {
    register(registry, Gauge::new(name, help)?)
}

pub(super) fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    (start, factor, count): (f64, f64, usize),
) -> prometheus::Result<Histogram> {
    let buckets = prometheus::exponential_buckets(start, factor, count)?;
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
}

pub(super) fn count_per<L: ClosedLabel>(registry: &Registry, name: &str, help: &str) -> prometheus::Result<PerLabel<L, IntCounter>> {
    let vec = register(registry, IntCounterVec::new(Opts::new(name, help), &[L::NAME])?)?;
    Ok(PerLabel::new(|value| vec.with_label_values(&[value])))
}

pub(super) fn seconds_per<L: ClosedLabel>(registry: &Registry, name: &str, help: &str) -> prometheus::Result<PerLabel<L, Counter>> {
    let vec = register(registry, CounterVec::new(Opts::new(name, help), &[L::NAME])?)?;
    Ok(PerLabel::new(|value| vec.with_label_values(&[value])))
}

pub(super) fn gauge_per<L: ClosedLabel>(registry: &Registry, name: &str, help: &str) -> prometheus::Result<PerLabel<L, Gauge>> {
    let vec = register(registry, GaugeVec::new(Opts::new(name, help), &[L::NAME])?)?;
    Ok(PerLabel::new(|value| vec.with_label_values(&[value])))
}
