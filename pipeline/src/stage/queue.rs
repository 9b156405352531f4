//! A blocking queue bounded in items and in weight (bytes): the seam between the pipeline and the trainer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use prometheus::Gauge;

use super::Meter;

/// Bounds of a queue. One item always fits, however heavy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Items at most.
    pub items: usize,
    /// Weight of all items at most.
    pub weight: usize,
}

/// Gauges that follow the queue's level.
#[derive(Debug, Clone)]
pub struct Level {
    /// Items in the queue.
    pub items: Gauge,
    /// Their weight.
    pub weight: Gauge,
}

struct State<T> {
    items: VecDeque<(usize, T)>,
    weight: usize,
    producer_gone: bool,
    consumer_gone: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    bounds: Bounds,
    not_empty: Condvar,
    not_full: Condvar,
    put_meter: Meter,
    get_meter: Meter,
    level: Level,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The state is consistent between statements, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn show(&self, state: &State<T>) {
        self.level.items.set(state.items.len() as f64);
        self.level.weight.set(state.weight as f64);
    }
}

/// The putting end. Dropping it lets the consumer drain the queue and then see its end.
pub struct Producer<T>(Arc<Shared<T>>);

/// The taking end. Dropping it empties the queue and makes every put fail.
pub struct Consumer<T>(Arc<Shared<T>>);

/// The consumer is gone; the item comes back.
#[derive(Debug)]
pub struct ConsumerGone<T>(pub T);

/// Makes a queue. `put_meter.blocked_put` and `get_meter.blocked_get` count waiting seconds of either end.
#[must_use]
pub fn bounded<T>(bounds: Bounds, put_meter: Meter, get_meter: Meter, level: Level) -> (Producer<T>, Consumer<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items: VecDeque::with_capacity(bounds.items),
            weight: 0,
            producer_gone: false,
            consumer_gone: false,
        }),
        bounds,
        not_empty: Condvar::new(),
        not_full: Condvar::new(),
        put_meter,
        get_meter,
        level,
    });
    (Producer(Arc::clone(&shared)), Consumer(shared))
}

impl<T> Producer<T> {
    /// Puts an item, waiting while the queue is full.
    ///
    /// # Errors
    /// [`ConsumerGone`] with the item.
    pub fn put(&self, item: T, weight: usize) -> Result<(), ConsumerGone<T>> {
        let shared = &*self.0;
        let mut state = shared.lock();
        let full = |s: &State<T>| !s.items.is_empty() && (s.items.len() >= shared.bounds.items || s.weight + weight > shared.bounds.weight);
        if full(&state) {
            let start = Instant::now();
            while full(&state) && !state.consumer_gone {
                state = shared.not_full.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            shared.put_meter.blocked_put.inc_by(start.elapsed().as_secs_f64());
        }
        if state.consumer_gone {
            return Err(ConsumerGone(item));
        }
        state.items.push_back((weight, item));
        state.weight += weight;
        shared.show(&state);
        shared.not_empty.notify_one();
        Ok(())
    }
}

impl<T> Consumer<T> {
    /// Takes the next item, waiting for one; `None` when the producer is gone and the queue empty.
    pub fn get(&self) -> Option<T> {
        match self.get_until(None) {
            Poll::Ready(item) => item,
            Poll::Pending => unreachable!("no deadline was given"),
        }
    }

    /// As [`Consumer::get`], but `Pending` when nothing came in time.
    pub fn get_timeout(&self, timeout: Duration) -> Poll<Option<T>> {
        self.get_until(Some(timeout))
    }

    fn get_until(&self, timeout: Option<Duration>) -> Poll<Option<T>> {
        let shared = &*self.0;
        let mut state = shared.lock();
        if state.items.is_empty() && !state.producer_gone {
            let start = Instant::now();
            while state.items.is_empty() && !state.producer_gone {
                state = match timeout {
                    None => shared.not_empty.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(limit) => {
                        let left = limit.saturating_sub(start.elapsed());
                        if left.is_zero() {
                            shared.get_meter.blocked_get.inc_by(start.elapsed().as_secs_f64());
                            return Poll::Pending;
                        }
                        shared.not_empty.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                    }
                };
            }
            shared.get_meter.blocked_get.inc_by(start.elapsed().as_secs_f64());
        }
        let Some((weight, item)) = state.items.pop_front() else {
            return Poll::Ready(None);
        };
        state.weight -= weight;
        shared.show(&state);
        shared.not_full.notify_one();
        Poll::Ready(Some(item))
    }

    /// Items waiting and their weight.
    #[must_use]
    pub fn level(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.items.len(), state.weight)
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.0.lock().producer_gone = true;
        self.0.not_empty.notify_all();
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.consumer_gone = true;
        state.weight = 0;
        let items = std::mem::take(&mut state.items);
        self.0.show(&state);
        drop(state);
        drop(items);
        self.0.not_full.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Counter;

    fn queue<T>(items: usize, weight: usize) -> (Producer<T>, Consumer<T>, Meter) {
        let meter = Meter {
            blocked_get: Counter::new("get", "get").unwrap(),
            blocked_put: Counter::new("put", "put").unwrap(),
        };
        let level = Level {
            items: Gauge::new("items", "items").unwrap(),
            weight: Gauge::new("weight", "weight").unwrap(),
        };
        let (p, c) = bounded(Bounds { items, weight }, meter.clone(), meter.clone(), level);
        (p, c, meter)
    }

    #[test]
    fn both_bounds_hold_and_one_heavy_item_always_fits() {
        let (producer, consumer, meter) = queue(3, 10);
        producer.put(1, 100).unwrap();
        let putter = std::thread::spawn(move || {
            for (item, weight) in [(2, 4), (3, 4), (4, 4), (5, 1)] {
                producer.put(item, weight).unwrap();
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(consumer.level(), (1, 100), "nothing may join an item over the limit");
        assert_eq!(consumer.get(), Some(1));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(consumer.level(), (2, 8), "the third would make 12 of 10");
        let rest: Vec<i32> = std::iter::from_fn(|| consumer.get()).collect();
        assert_eq!(rest, [2, 3, 4, 5]);
        putter.join().unwrap();
        assert!(
            meter.blocked_put.get() > 0.05,
            "blocked seconds are counted: {}",
            meter.blocked_put.get()
        );
    }

    #[test]
    fn a_timeout_is_neither_an_item_nor_the_end() {
        let (producer, consumer, meter) = queue::<u8>(1, 1);
        assert_eq!(consumer.get_timeout(Duration::from_millis(30)), Poll::Pending);
        assert!(meter.blocked_get.get() >= 0.03);
        producer.put(7, 1).unwrap();
        drop(producer);
        assert_eq!(consumer.get_timeout(Duration::from_millis(30)), Poll::Ready(Some(7)));
        assert_eq!(consumer.get_timeout(Duration::from_millis(30)), Poll::Ready(None));
    }

    #[test]
    fn a_consumer_that_goes_frees_a_blocked_producer() {
        let (producer, consumer, _) = queue(1, 10);
        producer.put(1, 1).unwrap();
        let putter = std::thread::spawn(move || producer.put(2, 1).is_err());
        std::thread::sleep(Duration::from_millis(20));
        drop(consumer);
        assert!(putter.join().unwrap());
    }
}
