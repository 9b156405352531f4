//! The tries of one read: why one failed, what that means, and how long to wait for the next.

use super::object::{Object, Version};
use super::refusal::Refusal;
use super::retry::{Retries, Spent};
use crate::error::ShardError;
use crate::metrics::RetryReason;

/// Why an attempt ended without all its bytes.
pub(super) enum Broken {
    Retry(RetryReason, String),
    /// With the number of the client that was refused.
    Denied(String, u64),
    Empty(Version),
    /// Whoever answers knows no ranges.
    NoRanges,
    Final(ShardError),
}

/// The tries of one read so far.
pub(super) struct Tries<'a> {
    object: &'a Object,
    retries: Retries,
    denied: bool,
}

impl<'a> Tries<'a> {
    pub(super) fn new(object: &'a Object) -> Self {
        Self {
            object,
            retries: Retries::new(object.options.retry_budget),
            denied: false,
        }
    }

    /// Bytes came.
    pub(super) fn progressed(&mut self) {
        self.denied = false;
        self.retries.progressed();
    }

    /// Waits until the time for the next try, from byte `offset` on.
    ///
    /// # Errors
    /// The shard's, if there is none.
    pub(super) async fn wait(&mut self, broken: Broken, offset: u64) -> Result<(), ShardError> {
        let object = self.object;
        let shard = object.shard.to_string();
        let (reason, detail) = match broken {
            Broken::Retry(reason, detail) => (reason, detail),
            // Tokens expire: the second try reads the credentials again.
            Broken::Denied(detail, client) if !self.denied => {
                self.denied = true;
                object.client.renew(client);
                (RetryReason::Denied, detail)
            }
            Broken::Denied(detail, _) => {
                let (_, store) = object.client.current();
                match object.others.concerns(&object.key, &*store, object.options.read_timeout).await {
                    Refusal::Alone => return Err(ShardError::Refused { shard, detail }),
                    Refusal::Everywhere => return Err(ShardError::Denied { shard, detail }),
                    Refusal::Unknown => (RetryReason::Denied, detail),
                }
            }
            Broken::Empty(_) | Broken::NoRanges => (RetryReason::Other, "an answer of another kind than before".into()),
            Broken::Final(error) => return Err(error),
        };
        let asked = (reason == RetryReason::Throttled).then(|| object.pace.retry_after());
        let delay = match self.retries.next(asked) {
            Ok(delay) => delay,
            Err(Spent { attempts, elapsed }) => return Err(object.unreachable(offset, attempts, elapsed, detail)),
        };
        tracing::debug!(%shard, offset, reason = ?reason, %detail, "read broke, trying again");
        object.metrics.fetch_retries.of(reason).inc();
        object.metrics.store_retries.of(reason).inc();
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
