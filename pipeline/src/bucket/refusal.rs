//! Whether a refusal concerns one object or all of them: some stores answer 403 for an object that is not there.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::verdict::{Verdict, judge};

/// Whom a refusal concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another object is served with the same credentials.
    Alone,
    /// All that were asked for are refused, or there is no other.
    Everywhere,
    /// The store did not say.
    Unknown,
}

/// What else of a place can be asked for when one of its objects is refused.
#[derive(Debug)]
pub struct Others {
    /// The first, middle and last object.
    spread: Vec<Path>,
    /// The object of the latest read that was served: it was there, and allowed.
    served: Mutex<Option<Path>>,
}

impl Others {
    /// Of a place with these objects.
    #[must_use]
    pub fn new(keys: &[&Path]) -> Self {
        let places = [0, keys.len() / 2, keys.len().saturating_sub(1)];
        Self {
            spread: places.iter().filter_map(|n| keys.get(*n).copied().cloned()).collect(),
            served: Mutex::default(),
        }
    }

    /// Remembers an object that was just read.
    pub fn served(&self, key: &Path) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if served.as_ref() != Some(key) {
            *served = Some(key.clone());
        }
    }

    /// Asks for a byte of up to four others; each answer may take `limit`. "Not found" shows as well as a byte that the credentials are good.
    pub async fn concerns(&self, refused: &Path, store: &dyn ObjectStore, limit: Duration) -> Refusal {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut asked: Vec<&Path> = vec![refused];
        let mut verdict = Refusal::Everywhere;
        for key in served.iter().chain(&self.spread) {
            if asked.contains(&key) {
                continue;
            }
            asked.push(key);
            match tokio::time::timeout(limit, store.get_range(key, 0..1)).await {
                Ok(Ok(_)) => return Refusal::Alone,
                Ok(Err(error)) => match judge(&error) {
                    Verdict::NotFound | Verdict::OutOfRange => return Refusal::Alone,
                    Verdict::Denied => {}
                    _ => verdict = Refusal::Unknown,
                },
                Err(_) => verdict = Refusal::Unknown,
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn a_place_of_one_object_has_no_other_to_ask() {
        let key = Path::from("s.tar");
        let others = Others::new(&[&key]);
        others.served(&key);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let empty = InMemory::new();
        let concerns = others.concerns(&key, &empty, Duration::from_secs(1));
        assert_eq!(runtime.block_on(concerns), Refusal::Everywhere);
    }

    #[test]
    fn an_object_that_was_served_is_asked_first_and_what_is_missing_is_no_refusal() {
        let keys: Vec<Path> = (0..9).map(|n| Path::from(format!("s-{n}.tar"))).collect();
        let others = Others::new(&keys.iter().collect::<Vec<_>>());
        assert_eq!(others.spread, [&keys[0], &keys[4], &keys[8]].map(Clone::clone));
        others.served(&keys[7]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let empty = InMemory::new();
        let concerns = others.concerns(&keys[3], &empty, Duration::from_secs(1));
        assert_eq!(runtime.block_on(concerns), Refusal::Alone);
    }
}
