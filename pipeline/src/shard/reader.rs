//! One open shard: a thread that reads its tar and hands samples over in bounded portions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::watch;

use super::byte_reader;
use super::samples::{Grouped, SampleOptions, Samples};
use super::tally::Tally;
use crate::bucket::Bucket;
use crate::error::ShardError;
use crate::metrics::{Progress, Stage};

/// A portion is handed over when it holds this many bytes or samples, so that an open shard holds about `PORTIONS` × this at most.
pub(crate) const PORTION_BYTES: usize = 1 << 20;
pub(crate) const PORTION_SAMPLES: usize = 32;
/// Portions that wait.
pub(crate) const PORTIONS: usize = 3;

/// Consecutive samples of one shard.
#[derive(Debug)]
pub struct Portion {
    /// Samples in order.
    pub samples: Vec<Grouped>,
    /// The entries that these samples, and what lies between them, were made of.
    pub tally: Tally,
    /// Whether and how the shard ended behind them.
    pub end: Option<Result<(), ShardError>>,
}

/// A shard being read ahead. Dropping it stops and joins its thread.
#[derive(Debug)]
pub struct OpenShard {
    /// Portions in order; closed after the one with an end.
    pub portions: Receiver<Portion>,
    cancel: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl OpenShard {
    /// Starts reading; a portion holds at most `portion` samples.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(bucket: Arc<Bucket>, options: SampleOptions, portion: usize) -> std::io::Result<Self> {
        let (sender, portions) = bounded(PORTIONS);
        let (cancel, cancelled) = watch::channel(());
        let thread = std::thread::Builder::new()
            .name(format!("shard-{}", options.shard))
            .spawn(move || read(&bucket, options, portion, cancelled, &sender))?;
        Ok(Self {
            portions,
            cancel: Some(cancel),
            thread: Some(thread),
        })
    }
}

impl Drop for OpenShard {
    fn drop(&mut self) {
        drop(self.cancel.take());
        // Frees a thread that waits for room.
        self.portions = bounded(0).1;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(bucket: &Bucket, options: SampleOptions, portion: usize, cancelled: watch::Receiver<()>, sender: &Sender<Portion>) {
    let metrics = bucket.metrics();
    metrics.shards_opened.of(bucket.scheme).inc();
    let shard = &bucket.shards[options.shard as usize];
    let (mut samples, mut bytes, mut tally) = (vec![], 0, Tally::default());
    let mut busy = Instant::now();
    let end = match byte_reader::open(bucket, shard, cancelled) {
        Err(error) => Err(error),
        Ok(input) => {
            // Counts by label say something about the set where every sample of a shard was read, and could be.
            let whole = options.skip == 0 && options.fraction >= 1.0 && !shard.replaced;
            let mut labels = whole.then(BTreeMap::<u32, u64>::new);
            let (mut images, until) = (0, options.until.unwrap_or(u32::MAX));
            let mut all = Samples::new(input, options);
            let end = loop {
                // What lies behind belongs to another stripe, and is not read.
                if all.complete() >= until {
                    break Ok(());
                }
                match all.next() {
                    None => {
                        bucket.differences.shard_ended(shard, all.complete());
                        // A key without an image (of the kind that data.image names) keeps its label from being counted.
                        let counted = labels.filter(|_| images == all.complete());
                        counted.iter().for_each(|labels| bucket.differences.counted(shard, labels));
                        break Ok(());
                    }
                    Some(Err(error)) => break Err(error),
                    // Keys without an image came between the last sample and the end.
                    Some(Ok(_)) if all.complete() > until => break Ok(()),
                    Some(Ok(mut sample)) => {
                        images += u32::from(sample.is_ok());
                        if let Ok(sample) = &mut sample {
                            // Of a shard that was put in another's place nobody knows which classes its labels count.
                            sample.label = sample.label.filter(|_| !shard.replaced);
                            let unknown = all.take_unknown_class().filter(|_| !shard.replaced);
                            unknown.iter().for_each(|label| bucket.differences.labelled(shard, *label));
                            if let (Some(labels), Some(label)) = (&mut labels, sample.label) {
                                *labels.entry(label).or_default() += 1;
                            }
                        }
                        metrics.samples.of(Progress::Read).inc();
                        bytes += sample.as_ref().map_or(0, |s| s.image.len());
                        samples.push(sample);
                    }
                }
                if bytes >= PORTION_BYTES || samples.len() >= portion {
                    metrics.busy.add(Stage::Read, busy.elapsed());
                    let waiting = Instant::now();
                    let full = Portion {
                        samples: std::mem::take(&mut samples),
                        tally: all.take_tally(),
                        end: None,
                    };
                    if sender.send(full).is_err() {
                        return;
                    }
                    metrics.blocked_put.add(Stage::Read, waiting.elapsed());
                    (bytes, busy) = (0, Instant::now());
                }
            };
            tally = all.take_tally();
            end
        }
    };
    metrics.busy.add(Stage::Read, busy.elapsed());
    if end.is_ok() {
        metrics.shards_finished.of(bucket.scheme).inc();
    }
    // Fails when nobody waits for it any more.
    let _ = sender.send(Portion {
        samples,
        tally,
        end: Some(end),
    });
}
