//! Fills windows with the samples of the epoch's sequence, ahead of their consumer, and tells what else was there.

use std::sync::Arc;

use crossbeam_channel::{Sender, select};

use super::samples::Grouped;
use super::sequence::{Sequence, Step};
use super::tally::Tally;
use super::window_size::WindowSizes;
use crate::bucket::Bucket;
use crate::cursor::Cursor;
use crate::error::{PipelineError, ShardError};
use crate::metrics::{Label, PassedOver, Scheme};
use crate::stage::Stop;

/// Samples that are permuted among each other.
pub(super) struct Window {
    /// Cursor of its first sample, nothing taken.
    pub(super) start: Cursor,
    pub(super) samples: Vec<Option<Grouped>>,
}

/// The thread's work and what it needs.
pub(super) struct Filler {
    pub(super) bucket: Arc<Bucket>,
    pub(super) sequence: Sequence,
    pub(super) sizes: WindowSizes,
    /// Whether the data is read once only.
    pub(super) single_pass: bool,
    /// Whether a sample with two images ends the stream.
    pub(super) refuse_two_images: bool,
    pub(super) stop_on_shard_error: bool,
    pub(super) tokens: Sender<()>,
    pub(super) windows: Sender<Result<Window, PipelineError>>,
    pub(super) stop: Stop,
    pub(super) before: u64,
    pub(super) entries: Entries,
}

/// What the tars held, and what the log knows of it already.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) epoch: Tally,
    /// Reasons that were named with an example.
    named: [bool; PassedOver::ALL.len()],
    /// The last epoch's sum, which the next one may repeat.
    summed: String,
}

impl Entries {
    pub(super) fn add(&mut self, tally: Tally) {
        for (reason, _, example) in tally.passed_over() {
            if !std::mem::replace(&mut self.named[reason.index()], true) {
                match reason.is_usual() {
                    true => tracing::info!(reason = reason.text(), "passed over, the first: {example}"),
                    false => tracing::warn!(reason = reason.text(), "passed over, the first: {example}"),
                }
            }
        }
        self.epoch.add(tally);
    }

    /// Says once what an epoch passed over, unless the one before did the same.
    pub(super) fn end_epoch(&mut self, epoch: u32) -> Tally {
        let tally = std::mem::take(&mut self.epoch);
        let sum = tally.counts();
        if sum != self.summed {
            let lost = tally.passed_over().any(|(reason, ..)| !reason.is_usual());
            match lost {
                true => tracing::warn!(epoch, "passed over in the shards of this epoch: {sum}"),
                false => tracing::info!(epoch, "passed over in the shards of this epoch: {sum}"),
            }
            self.summed = sum;
        }
        tally
    }
}

impl Filler {
    pub(super) fn run(mut self, start: Cursor) {
        if let Err(error) = self.fill(start) {
            self.send(Err(error));
        }
    }

    fn fill(&mut self, start: Cursor) -> Result<(), PipelineError> {
        let mut samples: Vec<Option<Grouped>> = vec![];
        let mut first = start;
        // Whether anything of this epoch was seen; a resume in its middle counts as having seen something.
        let mut lively = start.plan_position > 0 || start.member > 0;
        let mut last_error = None;
        loop {
            let over = match self.sequence.step()? {
                Step::Entries(tally) => {
                    tally.count(self.bucket.metrics());
                    self.entries.add(tally);
                    continue;
                }
                Step::Sample(position, sample) => {
                    lively = true;
                    if let (true, Err(rejected)) = (self.refuse_two_images, &sample) {
                        rejected.refuse_two_images(&self.entries.epoch)?;
                    }
                    if samples.is_empty() {
                        let id = match &sample {
                            Ok(sample) => sample.id,
                            Err(rejected) => rejected.id,
                        };
                        first = Cursor {
                            epoch: id.epoch,
                            plan_position: position,
                            member: id.member,
                            taken: 0,
                            before: self.before,
                            window: self.sizes.current(),
                            ..Cursor::default()
                        };
                    }
                    select! {
                        send(self.tokens, ()) -> sent => if sent.is_err() { return Ok(()) },
                        recv(self.stop.receiver()) -> _ => return Ok(()),
                    }
                    samples.push(Some(sample));
                    if (samples.len() as u32) < self.sizes.current() {
                        continue;
                    }
                    false
                }
                Step::ShardFailed(error) => {
                    last_error = Some(passed_over(&self.bucket, error, self.stop_on_shard_error)?);
                    continue;
                }
                Step::EpochEnd(epoch) => {
                    let entries = self.entries.end_epoch(epoch);
                    if !std::mem::take(&mut lively) {
                        return Err(no_sample(&self.bucket, &entries, last_error));
                    }
                    false
                }
                Step::End => true,
            };
            if !samples.is_empty() {
                first.next_window = self.sizes.filled(samples.len() as u32);
                let window = Window {
                    start: first,
                    samples: std::mem::take(&mut samples),
                };
                self.before += window.samples.len() as u64;
                if !self.send(Ok(window)) {
                    return Ok(());
                }
                self.refuse_two_images &= self.single_pass;
            }
            if over {
                return Ok(());
            }
        }
    }

    fn send(&self, window: Result<Window, PipelineError>) -> bool {
        select! {
            send(self.windows, window) -> sent => sent.is_ok(),
            recv(self.stop.receiver()) -> _ => false,
        }
    }
}

/// Counts and tells a shard that cannot be read to its end, and gives it back where the stream goes on without.
///
/// # Errors
/// The shard's, where the policy is to stop.
pub(super) fn passed_over(bucket: &Bucket, error: ShardError, stop: bool) -> Result<ShardError, PipelineError> {
    bucket.metrics().shard_error(&error);
    tracing::warn!(reason = error.reason(), "{}", error.to_string().escape_debug());
    // Refused credentials concern the whole place: going on would pass over the data of the rest of the run.
    let denied = matches!(error, ShardError::Denied { .. }) && bucket.scheme != Scheme::File;
    if stop || denied {
        return Err(error.into());
    }
    Ok(error)
}

/// A pass over all shards of a place gave no sample; another would not either.
pub(crate) fn no_sample(bucket: &Bucket, entries: &Tally, last: Option<ShardError>) -> PipelineError {
    if let Some(denied @ ShardError::Denied { .. }) = last {
        return denied.into();
    }
    let mut found = entries.found();
    if let Some(error) = &last {
        found.push(format!("the last that failed: {error}"));
    }
    PipelineError::NoSample {
        url: bucket.shards[0].path.to_string(),
        shards: bucket.shards.len(),
        detail: if found.is_empty() {
            "they are empty".into()
        } else {
            found.join("; ")
        },
        last,
    }
}
