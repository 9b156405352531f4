//! A process that looks like the daemon in the middle of a run: the real inventories, with values that move, behind HTTP.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::Registry;
use splitmask::objective::OBJECTIVES;
use splitmask::telemetry::metrics::{CheckpointFailure, EvalTask, MemoryKind, Phase, ReloadOutcome, TrainMetrics, render, unix_seconds};
use splitmask_pipeline::error::{SampleError, ShardError};
use splitmask_pipeline::metrics::{CodeClass, PipelineMetrics, Progress, RetryReason, Scheme, Stage, StoreOp};

const TICK: Duration = Duration::from_millis(100);

/// Serves `/metrics` until it is dropped.
pub(crate) struct Exporter {
    /// Where it listens, `host:port`.
    pub(crate) address: String,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees the flag.
        let _ = std::net::TcpStream::connect(&self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Both inventories in one registry, as the daemon has them.
pub(crate) fn inventories() -> (Registry, TrainMetrics, PipelineMetrics) {
    let registry = Registry::new();
    let train = TrainMetrics::new(&registry).expect("the trainer's metrics");
    let pipeline = PipelineMetrics::register(&registry).expect("the pipeline's metrics beside them");
    train.set_build_info("2.11.0", "cpu");
    train.eval.set_layers(12);
    for kind in OBJECTIVES {
        train.objective.declare(kind.numbers, kind.collapse.iter().map(|rule| rule.name));
    }
    (registry, train, pipeline)
}

impl Exporter {
    /// Starts the server and a thread that advances a run ten times a second.
    pub(crate) fn start() -> Self {
        let (registry, train, pipeline) = inventories();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let stop = Arc::new(AtomicBool::new(false));
        begin(&train, &pipeline);
        let (running, serving) = (stop.clone(), stop.clone());
        let run = std::thread::spawn(move || {
            for step in 1.. {
                if running.load(Ordering::Relaxed) {
                    break;
                }
                advance_trainer(&train, step);
                advance_pipeline(&pipeline, step);
                std::thread::sleep(TICK);
            }
        });
        let serve = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if serving.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(mut stream) = connection else { continue };
                let head = BufReader::new(&stream).lines().map_while(Result::ok);
                head.take_while(|line| !line.is_empty()).for_each(drop);
                let body = render(&registry).expect("encodes");
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            }
        });
        Self {
            address,
            stop,
            threads: vec![run, serve],
        }
    }
}

fn begin(train: &TrainMetrics, pipeline: &PipelineMetrics) {
    train.record_reload(ReloadOutcome::Applied, 2);
    train.last_rollback_timestamp.set(unix_seconds());
    train.weight_decay.set(0.05);
    train.ranks.world.set(2.0);
    train.ranks.own_step.set(0.08);
    train.ema_momentum.set(0.999);
    train.checkpoint_bytes.set(350e6);
    train.checkpoint_disk_free.set(200e9);
    train.checkpoint_disk_size.set(500e9);
    for (kind, bytes) in [
        (MemoryKind::Allocated, 20e9),
        (MemoryKind::Reserved, 24e9),
        (MemoryKind::Total, 80e9),
    ] {
        train.device_memory.of(kind).set(bytes);
    }
    pipeline.queue_capacity_batches.set(8.0);
    pipeline.queue_capacity_bytes.set(256e6);
}

/// One step of 16 images in a tenth of a second.
fn advance_trainer(train: &TrainMetrics, step: u64) {
    let t = step as f64;
    train.steps.inc();
    train.images.inc_by(16);
    train.ranks.exchange.inc_by(0.002);
    train.ranks.tick.inc_by(0.001);
    train.ranks.tick_message.inc_by(0.0003);
    train.ranks.ticks.inc();
    train.step_duration.observe(0.09 + 0.02 * (t * 0.7).sin());
    train.last_step_timestamp.set(unix_seconds());
    for (index, phase) in Phase::ALL.iter().enumerate() {
        train
            .phase(*phase)
            .inc_by(0.1 * [0.03, 0.02, 0.3, 0.5, 0.1, 0.01, 0.02, 0.01, 0.01, 0.01][index]);
    }
    let inpaint = 5.0 + 4.0 * (-t / 200.0).exp();
    let means = [
        ("total", inpaint + 2.0),
        ("inpaint", inpaint),
        ("match", 2.0),
        ("predicted_perplexity", 4.0_f64.exp()),
        ("token_accuracy", 0.2),
        ("match_accuracy", 0.6),
    ];
    let means = means.map(|(name, value)| (name.to_owned(), value)).into();
    train.objective.set(OBJECTIVES[0].numbers, &means);
    train.token_entropy.set(5.5);
    train.codebook_perplexity.set(5.5_f64.exp());
    train.grad_norm.set(1.0 + 0.1 * t.sin());
    train.learning_rate.set(1.5e-3);
    train.model_flops_utilization.set(0.4);
    train.tokens_per_second.set(31_360.0);
    if step % 20 == 1 {
        train.epochs.inc();
        train.nonfinite_steps.inc();
        train.rollbacks.inc();
        train.checkpoint_failures.of(CheckpointFailure::NoSpace).inc();
        train.checkpoint_duration.observe(0.8);
        train.checkpoint_last_success_timestamp.set(unix_seconds());
        train.checkpoint_last_step.set(t);
        train.eval.accuracy.of(EvalTask::Knn).set(0.45);
        train.eval.accuracy.of(EvalTask::Linear).set(0.52);
        for layer in 1..=12 {
            train.eval.set_layer_accuracy(layer, 0.2 + 0.03 * layer as f64);
        }
        train.eval.loss.set(7.1);
        train.eval.feature_rank.set(38.0);
        train.eval.feature_cosine.set(0.3);
        train.eval.feature_deviation.set(0.8);
        train.eval.best_step.set(t);
        train.eval.since_best.set(1.0);
        train.eval.overfitting.set(0.0);
        train.set_paused(&[]);
    }
}

fn advance_pipeline(pipeline: &PipelineMetrics, step: u64) {
    use Stage::{Augment, Batch, Consume, Decode, Fetch, Read, Tokenize};
    for progress in [
        Progress::Read,
        Progress::Decoded,
        Progress::Augmented,
        Progress::Tokenized,
        Progress::Batched,
        Progress::Consumed,
    ] {
        pipeline.samples.of(progress).inc_by(16);
    }
    for (stage, millis) in [
        (Fetch, 5),
        (Read, 3),
        (Decode, 60),
        (Augment, 30),
        (Tokenize, 40),
        (Batch, 2),
        (Consume, 1),
    ] {
        pipeline.stage_time(stage, Duration::from_millis(millis));
        pipeline.blocked_put.add(stage, Duration::from_millis(20));
        pipeline.blocked_get.add(stage, Duration::from_millis(10));
    }
    for scheme in [Scheme::File, Scheme::S3] {
        pipeline.bytes_read.of(scheme).inc_by(2_000_000);
        pipeline.shards_opened.of(scheme).inc();
        pipeline.shards_finished.of(scheme).inc();
    }
    pipeline.queue_batches.set((step % 8) as f64);
    pipeline.queue_bytes.set((step % 8) as f64 * 10e6);
    pipeline.sample_error(&SampleError::Truncated {
        detail: "12 bytes short".into(),
    });
    pipeline.shard_error(&ShardError::NotFound {
        shard: "000007.tar".into(),
    });
    pipeline.fetch_retries.of(RetryReason::Timeout).inc();
    pipeline.fetch_duration.observe(0.05);
    for op in [StoreOp::Get, StoreOp::Head, StoreOp::List, StoreOp::Other] {
        pipeline.store_request(op, CodeClass::Success, Duration::from_millis(30));
    }
    pipeline.store_request(StoreOp::Get, CodeClass::Server, Duration::from_millis(200));
    pipeline.store_retries.of(RetryReason::Throttled).inc();
    pipeline.store_resumed_reads.inc();
}
