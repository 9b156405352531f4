//! What the stages of the pipeline do at present, and which of them limits: rates over the last seconds, from the counters that `/metrics` shows.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use prometheus::Registry;
use serde::Serialize;
use splitmask_pipeline::metrics::{Label, Progress, Stage};

use crate::telemetry::limiting_stage;

/// Two samples are so far apart at least.
const APART: Duration = Duration::from_secs(1);
/// Rates are taken over so long, where samples reach back so far.
const WINDOW: Duration = Duration::from_secs(20);
/// Less than this says nothing.
const LEAST: Duration = Duration::from_secs(2);

/// Counters by (series, label) at one time.
type Counters = BTreeMap<(String, String), f64>;

/// Samples of the counters, taken when somebody asks.
#[derive(Debug, Default)]
pub(super) struct PipelineRates {
    samples: VecDeque<(Instant, Counters)>,
}

/// The answer of `/api/v1/pipeline`.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Answer {
    /// Seconds over which rates are taken; `None` until there are two samples.
    window_seconds: Option<f64>,
    /// Threads that decode, augment and tokenize.
    workers: usize,
    /// Share of the time for which the trainer waits for batches.
    data_wait: Option<f64>,
    stages: Vec<StageRates>,
    flow: Vec<Flow>,
    queue: Queue,
    /// What limits; `None` while nothing is consumed.
    limit: Option<Limit>,
}

/// Seconds a second, over all threads of a stage.
#[derive(Debug, Serialize, PartialEq)]
struct StageRates {
    stage: &'static str,
    busy: f64,
    waits_for_input: f64,
    waits_for_next_stage: f64,
}

#[derive(Debug, Serialize, PartialEq)]
struct Flow {
    stage: &'static str,
    samples_per_second: f64,
}

#[derive(Debug, Serialize, PartialEq, Default)]
struct Queue {
    batches: f64,
    capacity_batches: f64,
    bytes: f64,
    capacity_bytes: f64,
}

#[derive(Debug, Serialize, PartialEq)]
struct Limit {
    stage: &'static str,
    what: String,
    remedy: String,
}

const BUSY: &str = "splitmask_pipeline_stage_busy_seconds_total";
const GET: &str = "splitmask_pipeline_blocked_get_seconds_total";
const PUT: &str = "splitmask_pipeline_blocked_put_seconds_total";
const SAMPLES: &str = "splitmask_pipeline_samples_total";
const PHASES: &str = "splitmask_train_phase_seconds_total";
const QUEUE: &str = "splitmask_pipeline_queue_";

/// The counters and gauges that this is about.
fn read(registry: &Registry) -> Counters {
    let mut found = Counters::new();
    for family in registry.gather() {
        let name = family.name();
        let counts = [BUSY, GET, PUT, SAMPLES, PHASES].contains(&name);
        if !counts && !name.starts_with(QUEUE) {
            continue;
        }
        for metric in family.get_metric() {
            let label = metric.get_label().first().map_or("", |l| l.value());
            let value = if counts {
                metric.get_counter().get_value()
            } else {
                metric.get_gauge().get_value()
            };
            found.insert((name.to_owned(), label.to_owned()), value);
        }
    }
    found
}

impl PipelineRates {
    /// Takes a sample, and answers what lies between it and an older one.
    pub(super) fn answer(&mut self, registry: &Registry, workers: usize, now: Instant) -> Answer {
        self.answer_of(read(registry), workers, now)
    }

    fn answer_of(&mut self, counters: Counters, workers: usize, now: Instant) -> Answer {
        // The youngest sample that is as old as the window stays; one that is far older, because nobody asked, only until there is another.
        let age = |sample: Option<&(Instant, Counters)>| sample.map_or(Duration::ZERO, |(at, _)| now.duration_since(*at));
        while age(self.samples.get(1)) >= WINDOW || (age(self.samples.front()) > 2 * WINDOW && age(self.samples.get(1)) >= LEAST) {
            self.samples.pop_front();
        }
        let gauge = |name: &str| counters.get(&(format!("{QUEUE}{name}"), String::new())).copied().unwrap_or(0.0);
        let queue = Queue {
            batches: gauge("batches"),
            capacity_batches: gauge("capacity_batches"),
            bytes: gauge("bytes"),
            capacity_bytes: gauge("capacity_bytes"),
        };
        let mut answer = Answer {
            window_seconds: None,
            workers,
            data_wait: None,
            stages: Vec::new(),
            flow: Vec::new(),
            queue,
            limit: None,
        };
        let before = self.samples.front().map(|(at, before)| (now.duration_since(*at), before));
        if let Some((window, before)) = before.filter(|(window, _)| *window >= LEAST) {
            let seconds = window.as_secs_f64();
            // None where there is no such series; a counter that fell belongs to a trainer that was rebuilt.
            let rate = |series: &str, label: &str| {
                let key = (series.to_owned(), label.to_owned());
                Some((counters.get(&key)? - before.get(&key).copied().unwrap_or(0.0)).max(0.0) / seconds)
            };
            answer.window_seconds = Some(seconds);
            answer.data_wait = rate(PHASES, "data_wait").map(|share| share.min(1.0));
            for stage in Stage::VALUES {
                let name = stage.text();
                if let (Some(busy), Some(get), Some(put)) = (rate(BUSY, name), rate(GET, name), rate(PUT, name)) {
                    answer.stages.push(StageRates {
                        stage: name,
                        busy,
                        waits_for_input: get,
                        waits_for_next_stage: put,
                    });
                }
            }
            for stage in Progress::ALL {
                if let Some(samples_per_second) = rate(SAMPLES, stage) {
                    answer.flow.push(Flow { stage, samples_per_second });
                }
            }
            let consumed = rate(SAMPLES, "consumed").is_some_and(|rate| rate > 0.0);
            if let Some(waits) = answer.data_wait.filter(|_| consumed) {
                let times = |stage: Stage| [BUSY, GET, PUT].map(|series| rate(series, stage.text()).unwrap_or(0.0));
                let limit = limiting_stage::of_run(waits, times, 1.0, workers);
                answer.limit = Some(Limit {
                    stage: limit.stage.text(),
                    what: limit.what,
                    remedy: limit.remedy,
                });
            }
        }
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= APART) {
            self.samples.push_back((now, counters));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(seconds: f64) -> Counters {
        let series = [
            (SAMPLES, "consumed", 100.0),
            (BUSY, "decode", 0.9),
            (GET, "decode", 0.05),
            (PUT, "decode", 0.0),
            (BUSY, "augment", 0.3),
            (GET, "augment", 0.0),
            (PUT, "augment", 0.0),
            (PHASES, "data_wait", 0.4),
        ];
        let mut all: Counters = series
            .iter()
            .map(|(series, label, rate)| (((*series).to_owned(), (*label).to_owned()), rate * seconds))
            .collect();
        all.insert((format!("{QUEUE}batches"), String::new()), 2.0);
        all
    }

    #[test]
    fn rates_are_those_of_the_last_seconds_and_the_limit_is_named() {
        let (mut rates, start) = (PipelineRates::default(), Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        let first = rates.answer_of(counters(0.0), 2, at(0));
        assert_eq!((first.window_seconds, &first.limit, first.queue.batches), (None, &None, 2.0));
        assert_eq!(
            rates.answer_of(counters(1.0), 2, at(1)).window_seconds,
            None,
            "too short to say anything"
        );
        let answer = rates.answer_of(counters(10.0), 2, at(10));
        assert_eq!(answer.window_seconds, Some(10.0));
        assert_eq!(
            answer.flow,
            [Flow {
                stage: "consumed",
                samples_per_second: 100.0
            }]
        );
        assert!((answer.stages[0].busy - 0.9).abs() < 1e-9 && answer.stages[0].stage == "decode");
        let limit = answer.limit.unwrap();
        assert_eq!(limit.stage, "decode");
        assert!(limit.what.contains("waits for batches 40 %"), "{}", limit.what);
        // Half an hour later with nobody asking, and a second after that.
        assert_eq!(rates.answer_of(counters(1800.0), 2, at(1800)).window_seconds, Some(1790.0));
        let soon = rates.answer_of(counters(1803.0), 2, at(1803));
        assert_eq!(soon.window_seconds, Some(3.0));
        // A trainer that was rebuilt begins at 0; nothing is consumed, so nothing limits.
        let rebuilt = rates.answer_of(counters(0.0), 2, at(1810));
        assert_eq!((rebuilt.limit, rebuilt.flow[0].samples_per_second), (None, 0.0));
    }

    #[test]
    fn the_series_are_those_of_the_registry() {
        let registry = Registry::new();
        splitmask_pipeline::metrics::PipelineMetrics::register(&registry).unwrap();
        crate::telemetry::metrics::TrainMetrics::new(&registry).unwrap();
        let found = read(&registry);
        for (series, label) in [
            (BUSY, "decode"),
            (GET, "consume"),
            (PUT, "batch"),
            (SAMPLES, "consumed"),
            (PHASES, "data_wait"),
        ] {
            assert!(found.contains_key(&(series.into(), label.into())), "{series} {label}");
        }
        for gauge in ["batches", "capacity_batches", "bytes", "capacity_bytes"] {
            assert!(found.contains_key(&(format!("{QUEUE}{gauge}"), String::new())), "{gauge}");
        }
    }
}
