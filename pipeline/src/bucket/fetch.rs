//! One object as a stream of bytes: by ranges, or whole where whoever serves it knows no ranges.

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;

use super::object::Object;
use super::ranges::Unread;
use super::whole;
use crate::error::ShardError;

impl Object {
    /// All bytes in order. Must be polled inside a tokio runtime. Holds at most (`ahead` + 1) × `part` bytes, with an `ahead` of
    /// [`super::pace::MOST_AHEAD_THROTTLED`] at most where it follows need.
    ///
    /// # Errors
    /// [`ShardError::NotFound`], [`ShardError::Refused`], [`ShardError::Denied`], [`ShardError::Changed`] when size or ETag differ from the
    /// first read's, [`ShardError::Unreachable`] when the retry budget is spent. The stream ends after an error.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes, ShardError>> + Send + 'static {
        let object = Arc::new(self);
        async_stream::try_stream! {
            let mut given = 0;
            let mut whole = object.web.as_ref().filter(|w| w.knows_no_ranges()).cloned();
            if whole.is_none() {
                for await part in Arc::clone(&object).parts() {
                    match part {
                        Ok(bytes) => {
                            given += bytes.len() as u64;
                            yield bytes;
                        }
                        Err(Unread::Failed(error)) => Err(error)?,
                        Err(Unread::NoRanges) => {
                            whole = object.web.clone();
                            whole.iter().for_each(|web| web.learnt_no_ranges(&object.shard));
                            break;
                        }
                    }
                }
            }
            if let Some(web) = whole {
                for await bytes in whole::stream(object, web, given) {
                    yield bytes?;
                }
            }
        }
    }
}
