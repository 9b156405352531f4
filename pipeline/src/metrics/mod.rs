//! Every series of the pipeline in one inventory: names, labels from closed enums, all starting at 0.

mod labels;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, exponential_buckets,
};

pub use self::labels::{CodeClass, Label, ManifestDifference, ObjectFate, PassedOver, Progress, RetryReason, Scheme, Stage, StoreOp};
use crate::error::{SampleError, ShardError};
use crate::types::ObjectCounts;

/// A counter per value of a closed label.
#[derive(Debug)]
pub struct Counters<L>(Vec<IntCounter>, std::marker::PhantomData<fn(L)>);

impl<L: Label> Counters<L> {
    /// The series of one label value.
    #[must_use]
    pub fn of(&self, label: L) -> &IntCounter {
        &self.0[label.index()]
    }
}

/// Seconds per value of a closed label.
#[derive(Debug)]
pub struct Seconds<L>(Vec<Counter>, std::marker::PhantomData<fn(L)>);

impl<L: Label> Seconds<L> {
    /// The series of one label value.
    #[must_use]
    pub fn of(&self, label: L) -> &Counter {
        &self.0[label.index()]
    }
    /// Adds a duration.
    pub fn add(&self, label: L, time: Duration) {
        self.of(label).inc_by(time.as_secs_f64());
    }
}

/// The series themselves; reached through [`PipelineMetrics`].
#[derive(Debug)]
pub struct Series {
    /// `splitmask_pipeline_samples_total{stage}`.
    pub samples: Counters<Progress>,
    /// `splitmask_pipeline_bytes_read_total{scheme}`.
    pub bytes_read: Counters<Scheme>,
    /// `splitmask_pipeline_shards_opened_total{scheme}`.
    pub shards_opened: Counters<Scheme>,
    /// `splitmask_pipeline_shards_finished_total{scheme}`: read to their end without an error.
    pub shards_finished: Counters<Scheme>,
    /// `splitmask_pipeline_members_passed_over_total{reason}`: entries of tars that are no part of a sample.
    pub passed_over: Counters<PassedOver>,
    sample_errors: IntCounterVec,
    shard_errors: IntCounterVec,
    /// `splitmask_pipeline_manifest_differences_total{kind}`: shards of which a manifest says something else than what is there, and what lies
    /// beside shards, looks like more of them and is not read.
    pub manifest_differences: Counters<ManifestDifference>,
    /// `splitmask_pipeline_fetch_retries_total{reason}`.
    pub fetch_retries: Counters<RetryReason>,
    /// `splitmask_pipeline_fetch_duration_seconds`: one ranged read with all its retries.
    pub fetch_duration: Histogram,
    stage_duration: HistogramVec,
    /// `splitmask_pipeline_stage_busy_seconds_total{stage}`.
    pub busy: Seconds<Stage>,
    /// `splitmask_pipeline_blocked_put_seconds_total{stage}`: the stage waits for the next one to take its output.
    pub blocked_put: Seconds<Stage>,
    /// `splitmask_pipeline_blocked_get_seconds_total{stage}`: the stage waits for input.
    pub blocked_get: Seconds<Stage>,
    /// `splitmask_pipeline_queue_batches`.
    pub queue_batches: Gauge,
    /// `splitmask_pipeline_queue_bytes`.
    pub queue_bytes: Gauge,
    /// `splitmask_pipeline_queue_capacity_batches`.
    pub queue_capacity_batches: Gauge,
    /// `splitmask_pipeline_queue_capacity_bytes`.
    pub queue_capacity_bytes: Gauge,
    store_requests: IntCounterVec,
    store_duration: HistogramVec,
    /// `splitmask_store_retries_total{reason}`.
    pub store_retries: Counters<RetryReason>,
    /// `splitmask_store_resumed_reads_total`: retries that went on in the middle of a range.
    pub store_resumed_reads: IntCounter,
    /// `splitmask_store_hedged_reads_total`: slow reads asked for a second time.
    pub store_hedged_reads: IntCounter,
    /// `splitmask_store_request_limit`: requests allowed in flight; falls while the store throttles.
    pub store_request_limit: Gauge,
    /// `splitmask_pipeline_slow_samples_total`: samples that took longer than `pipeline.slow_sample_s`.
    pub slow_samples: IntCounter,
    /// `splitmask_pipeline_truncated_kept_total`: truncated JPEGs that `data.truncated = "keep"` let through.
    pub truncated_kept: IntCounter,
    /// `splitmask_pipeline_objects_total{fate}`: objects of the samples of batches.
    pub objects: Counters<ObjectFate>,
}

impl Series {
    /// Counts a dropped sample.
    pub fn sample_error(&self, error: &SampleError) {
        self.sample_errors.with_label_values(&[error.reason()]).inc();
    }
    /// Counts a failed shard.
    pub fn shard_error(&self, error: &ShardError) {
        self.shard_errors.with_label_values(&[error.reason()]).inc();
    }
    /// Busy time of one item in a stage: counter and histogram.
    pub fn stage_time(&self, stage: Stage, time: Duration) {
        self.busy.add(stage, time);
        self.stage_duration.with_label_values(&[stage.text()]).observe(time.as_secs_f64());
    }
    /// Counts what became of the objects of a sample.
    pub fn count_objects(&self, counts: ObjectCounts) {
        for (fate, number) in [
            (ObjectFate::Kept, counts.kept),
            (ObjectFate::Outside, counts.outside),
            (ObjectFate::Small, counts.small),
            (ObjectFate::Hidden, counts.hidden),
        ] {
            self.objects.of(fate).inc_by(number.into());
        }
    }
    /// Counts one request to a store.
    pub fn store_request(&self, op: StoreOp, code: CodeClass, time: Duration) {
        self.store_requests.with_label_values(&[op.text(), code.text()]).inc();
        self.store_duration.with_label_values(&[op.text()]).observe(time.as_secs_f64());
    }
}

/// The pipeline's metrics; cheap to clone. `default()` counts without a registry, for tools.
#[derive(Debug, Clone)]
pub struct PipelineMetrics(Arc<Series>);

impl Deref for PipelineMetrics {
    type Target = Series;
    fn deref(&self) -> &Series {
        &self.0
    }
}

impl Default for PipelineMetrics {
    fn default() -> Self {
        Self::build(None).expect("static names and labels are valid")
    }
}

impl PipelineMetrics {
    /// Makes all series and registers them.
    ///
    /// # Errors
    /// A name that is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Self::build(Some(registry))
    }

    fn build(registry: Option<&Registry>) -> Result<Self, prometheus::Error> {
        let m = Maker { registry };
        let request_buckets = exponential_buckets(0.001, 4.0, 9)?;
        let series = Series {
            samples: m.counters("pipeline_samples_total", "Samples that left a stage.", "stage")?,
            bytes_read: m.counters("pipeline_bytes_read_total", "Bytes of shards read.", "scheme")?,
            shards_opened: m.counters("pipeline_shards_opened_total", "Shards opened.", "scheme")?,
            shards_finished: m.counters(
                "pipeline_shards_finished_total",
                "Shards read to their end without an error.",
                "scheme",
            )?,
            passed_over: m.counters(
                "pipeline_members_passed_over_total",
                "Entries of tars that are no part of a sample.",
                "reason",
            )?,
            sample_errors: m.vec(
                "pipeline_sample_errors_total",
                "Samples dropped.",
                &[("reason", &SampleError::REASONS)],
            )?,
            shard_errors: m.vec(
                "pipeline_shard_errors_total",
                "Shards not read to their end.",
                &[("reason", &ShardError::REASONS)],
            )?,
            manifest_differences: m.counters(
                "pipeline_manifest_differences_total",
                "Shards of which manifest.json says something else than what is there.",
                "kind",
            )?,
            fetch_retries: m.counters("pipeline_fetch_retries_total", "Ranged reads of shards tried again.", "reason")?,
            fetch_duration: m.add(Histogram::with_opts(
                opts_of("pipeline_fetch_duration_seconds", "One ranged read with its retries.").buckets(request_buckets.clone()),
            )?)?,
            stage_duration: m.histograms::<Stage>(
                "pipeline_stage_duration_seconds",
                "Busy time of one item in a stage.",
                "stage",
                exponential_buckets(0.000_25, 4.0, 8)?,
            )?,
            busy: m.seconds(
                "pipeline_stage_busy_seconds_total",
                "Work, summed over the stage's threads.",
                "stage",
            )?,
            blocked_put: m.seconds(
                "pipeline_blocked_put_seconds_total",
                "Waiting for the next stage to take output.",
                "stage",
            )?,
            blocked_get: m.seconds("pipeline_blocked_get_seconds_total", "Waiting for input.", "stage")?,
            queue_batches: m.gauge("pipeline_queue_batches", "Batches waiting for the trainer.")?,
            queue_bytes: m.gauge("pipeline_queue_bytes", "Bytes waiting for the trainer.")?,
            queue_capacity_batches: m.gauge("pipeline_queue_capacity_batches", "Batches that may wait at most.")?,
            queue_capacity_bytes: m.gauge("pipeline_queue_capacity_bytes", "Bytes that may wait at most.")?,
            store_requests: m.vec(
                "store_requests_total",
                "Requests to the object store by class of answer.",
                &[("op", StoreOp::ALL), ("code", CodeClass::ALL)],
            )?,
            store_duration: m.histograms::<StoreOp>(
                "store_request_duration_seconds",
                "Time to the answer's header.",
                "op",
                request_buckets,
            )?,
            store_retries: m.counters("store_retries_total", "Requests to the object store tried again.", "reason")?,
            store_resumed_reads: m.add(IntCounter::new(
                "splitmask_store_resumed_reads_total",
                "Retries that went on in the middle of a range.",
            )?)?,
            store_hedged_reads: m.counter("store_hedged_reads_total", "Slow reads asked for a second time.")?,
            store_request_limit: m.gauge("store_request_limit", "Requests to the object store allowed in flight.")?,
            slow_samples: m.counter(
                "pipeline_slow_samples_total",
                "Samples that took longer than pipeline.slow_sample_s.",
            )?,
            truncated_kept: m.counter(
                "pipeline_truncated_kept_total",
                "Truncated JPEGs kept by data.truncated = \"keep\".",
            )?,
            objects: m.counters(
                "pipeline_objects_total",
                "Objects of samples by what became of them in the view: kept in the batch, outside of the view, too small, hidden beyond its edge.",
                "fate",
            )?,
        };
        Ok(Self(Arc::new(series)))
    }
}

fn opts_of(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(format!("splitmask_{name}"), help)
}

/// Makes series, gives them to the registry if there is one, and touches each label value so that it starts at 0.
struct Maker<'a> {
    registry: Option<&'a Registry>,
}

impl Maker<'_> {
    fn add<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        if let Some(registry) = self.registry {
            registry.register(Box::new(collector.clone()))?;
        }
        Ok(collector)
    }

    fn vec(&self, name: &str, help: &str, labels: &[(&str, &[&'static str])]) -> Result<IntCounterVec, prometheus::Error> {
        let names: Vec<&str> = labels.iter().map(|l| l.0).collect();
        let vec = self.add(IntCounterVec::new(Opts::new(format!("splitmask_{name}"), help), &names)?)?;
        let mut rows: Vec<Vec<&str>> = vec![vec![]];
        for (_, values) in labels {
            rows = rows
                .iter()
                .flat_map(|r| values.iter().map(|v| [r.as_slice(), &[*v]].concat()))
                .collect();
        }
        for row in rows {
            vec.get_metric_with_label_values(&row)?;
        }
        Ok(vec)
    }

    fn counters<L: Label>(&self, name: &str, help: &str, label: &str) -> Result<Counters<L>, prometheus::Error> {
        let vec = self.vec(name, help, &[(label, L::ALL)])?;
        Ok(Counters(
            L::ALL.iter().map(|v| vec.with_label_values(&[*v])).collect(),
            std::marker::PhantomData,
        ))
    }

    fn seconds<L: Label>(&self, name: &str, help: &str, label: &str) -> Result<Seconds<L>, prometheus::Error> {
        let vec = self.add(CounterVec::new(Opts::new(format!("splitmask_{name}"), help), &[label])?)?;
        Ok(Seconds(
            L::ALL.iter().map(|v| vec.with_label_values(&[*v])).collect(),
            std::marker::PhantomData,
        ))
    }

    fn histograms<L: Label>(&self, name: &str, help: &str, label: &str, buckets: Vec<f64>) -> Result<HistogramVec, prometheus::Error> {
        let vec = self.add(HistogramVec::new(opts_of(name, help).buckets(buckets), &[label])?)?;
        for value in L::ALL {
            vec.get_metric_with_label_values(&[*value])?;
        }
        Ok(vec)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(format!("splitmask_{name}"), help)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.add(Gauge::new(format!("splitmask_{name}"), help)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_at_zero_before_anything_happened() {
        let registry = Registry::new();
        let metrics = PipelineMetrics::register(&registry).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "splitmask_pipeline_samples_total{stage=\"consumed\"} 0",
            "splitmask_pipeline_bytes_read_total{scheme=\"s3\"} 0",
            "splitmask_pipeline_sample_errors_total{reason=\"truncated\"} 0",
            "splitmask_pipeline_shard_errors_total{reason=\"malformed\"} 0",
            "splitmask_pipeline_members_passed_over_total{reason=\"scattered\"} 0",
            "splitmask_pipeline_fetch_retries_total{reason=\"early_end\"} 0",
            "splitmask_pipeline_fetch_duration_seconds_count 0",
            "splitmask_pipeline_stage_duration_seconds_count{stage=\"decode\"} 0",
            "splitmask_pipeline_blocked_put_seconds_total{stage=\"batch\"} 0",
            "splitmask_pipeline_blocked_get_seconds_total{stage=\"consume\"} 0",
            "splitmask_pipeline_queue_capacity_bytes 0",
            "splitmask_store_requests_total{code=\"5xx\",op=\"list\"} 0",
            "splitmask_store_request_duration_seconds_count{op=\"get\"} 0",
            "splitmask_store_retries_total{reason=\"throttled\"} 0",
            "splitmask_store_resumed_reads_total 0",
        ] {
            assert!(text.contains(line), "{line} missing in\n{text}");
        }
        assert!(
            PipelineMetrics::register(&registry).is_err(),
            "a second registration must be refused"
        );
        metrics.sample_error(&SampleError::Corrupt { detail: "x".into() });
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("splitmask_pipeline_sample_errors_total{reason=\"corrupt\"} 1"));
    }
}
