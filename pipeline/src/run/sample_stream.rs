//! The stream of undecoded samples, of one place or of several.

use super::budget::FailureBudget;
use crate::cursor::Cursor;
use crate::error::PipelineError;
use crate::shard::mixture::MixedStream;
use crate::shard::striped::StripedStream;
use crate::shard::window::{Positioned, PositionedStream};
use crate::stage::Stop;
use crate::types::RawSample;

/// The samples of one place or of several.
#[expect(clippy::large_enum_variant, reason = "one for each stream")]
pub(super) enum Items {
    One(PositionedStream),
    Striped(StripedStream),
    Mixed(MixedStream),
}

impl Items {
    pub(super) fn stopper(&self) -> Stop {
        match self {
            Self::One(stream) => stream.stopper(),
            Self::Striped(stream) => stream.stopper(),
            Self::Mixed(stream) => stream.stopper(),
        }
    }
}

impl Iterator for Items {
    type Item = Result<Positioned, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::One(stream) => stream.next(),
            Self::Striped(stream) => stream.next(),
            Self::Mixed(stream) => stream.next(),
        }
    }
}

/// Blocking iterator over undecoded samples. It ends after an error. Dropping it stops and joins all its threads.
pub struct SampleStream {
    pub(super) items: Items,
    /// Gone after the end.
    pub(super) budget: Option<FailureBudget>,
    pub(super) cursor: Cursor,
}

impl SampleStream {
    /// Where the stream goes on behind the last sample.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Ends the stream from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.items.stopper()
    }
}

impl Iterator for SampleStream {
    type Item = Result<RawSample, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let budget = self.budget.as_mut()?;
        let end = loop {
            match self.items.next() {
                Some(Ok(item)) => {
                    self.cursor = item.cursor;
                    match item.sample {
                        Ok(sample) => {
                            budget.good();
                            return Some(Ok(sample));
                        }
                        Err(rejected) => {
                            if let Err(error) = budget.lost(&rejected) {
                                break Err(error);
                            }
                        }
                    }
                }
                Some(Err(error)) => break Err(error),
                None => {
                    break if self.items.stopper().is_triggered() {
                        Ok(())
                    } else {
                        budget.check()
                    };
                }
            }
        };
        self.budget = None;
        end.err().map(Err)
    }
}
