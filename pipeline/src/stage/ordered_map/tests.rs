use super::*;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

fn items(threads: usize, items: usize) -> Bounds {
    Bounds {
        threads,
        items,
        bytes: u64::MAX,
    }
}

#[test]
fn the_output_order_is_the_input_order_at_any_number_of_threads() {
    for threads in [1, 2, 8] {
        let map = ordered_map("test", 0..500u64, items(threads, 16), Meter::unread(), || {
            |i: u64, claim: &mut Claim<'_>| {
                claim.set(10);
                std::thread::sleep(Duration::from_micros(crate::seed::mix(i) % 300));
                i * 2
            }
        })
        .unwrap();
        let out: Vec<u64> = map.map(Result::unwrap).collect();
        assert_eq!(out, (0..500).map(|i| i * 2).collect::<Vec<_>>());
    }
}

#[test]
fn no_more_items_are_in_flight_than_the_bound_says() {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let input = (0..100).inspect(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let mut map = ordered_map("test", input, items(2, 5), Meter::unread(), || |i: i32, _: &mut Claim<'_>| i).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(taken.load(Ordering::SeqCst), 5);
    assert_eq!(map.next().unwrap().unwrap(), 0);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(taken.load(Ordering::SeqCst), 6);
}

/// Claims add up to the budget and the one item whose turn it is, and an item above the whole budget passes.
#[test]
fn claims_stay_within_the_budget_but_for_the_item_whose_turn_it_is() {
    for threads in [1, 4] {
        let sizes: Vec<u64> = (0..200).map(|i| if i % 40 == 7 { 1000 } else { 60 }).collect();
        let sum: u64 = sizes.iter().sum();
        let (held, peak) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let bounds = Bounds {
            threads,
            items: 64,
            bytes: 200,
        };
        let map = ordered_map("test", sizes.into_iter(), bounds, Meter::unread(), || {
            let (held, peak) = (Arc::clone(&held), Arc::clone(&peak));
            move |bytes: u64, claim: &mut Claim<'_>| {
                claim.set(bytes);
                peak.fetch_max(held.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                if bytes == 1000 {
                    std::thread::sleep(Duration::from_millis(20)); // the others would run 64 items ahead
                }
                bytes
            }
        })
        .unwrap();
        let mut got = 0;
        for bytes in map {
            let bytes = bytes.unwrap();
            held.fetch_sub(bytes, Ordering::SeqCst);
            got += bytes;
        }
        assert_eq!(got, sum);
        assert!(peak.load(Ordering::SeqCst) <= 1200, "{peak:?} bytes in flight");
        assert!(
            threads == 1 || peak.load(Ordering::SeqCst) > 1000,
            "{peak:?}: nothing ran beside the large items"
        );
    }
}

/// A claim that shrinks lets others go on before its item is handed out.
#[test]
fn a_smaller_claim_gives_memory_back() {
    let bounds = Bounds {
        threads: 2,
        items: 2,
        bytes: 100,
    };
    let mut map = ordered_map("test", 0..2, bounds, Meter::unread(), || {
        |i: u64, claim: &mut Claim<'_>| {
            claim.set(90);
            claim.set(5);
            i
        }
    })
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    // Nothing is handed out meanwhile, so item 1 never has its turn.
    while map.shared.ring().slots.iter().flatten().count() < 2 {
        assert!(Instant::now() < deadline, "the second item still waits for memory");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(map.next().unwrap().unwrap(), 0);
}

#[test]
fn a_panic_becomes_an_error_at_its_place_and_ends_the_stream() {
    let mut map = ordered_map("test", 0..100, items(3, 8), Meter::unread(), || {
        |i: i32, claim: &mut Claim<'_>| {
            claim.set(1);
            assert_ne!(i, 5, "five is bad");
            i
        }
    })
    .unwrap();
    for i in 0..5 {
        assert_eq!(map.next().unwrap().unwrap(), i);
    }
    let error = map.next().unwrap().unwrap_err();
    assert!(error.to_string().contains("five is bad"), "{error}");
    assert!(map.next().is_none());
}

#[test]
fn a_panic_in_the_input_becomes_an_error() {
    let input = (0..10).inspect(|i| assert_ne!(*i, 3, "three is bad"));
    let out: Vec<_> = ordered_map("test", input, items(2, 4), Meter::unread(), || |i: i32, _: &mut Claim<'_>| i)
        .unwrap()
        .collect();
    assert_eq!(out.len(), 4);
    assert!(matches!(&out[3], Err(PipelineError::Panicked { detail, .. }) if detail.contains("three is bad")));
}

#[test]
fn dropping_it_early_joins_its_threads_even_those_that_wait_for_memory() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let bounds = Bounds {
        threads: 4,
        items: 8,
        bytes: 10,
    };
    let mut map = ordered_map("test", 0..1_000_000, bounds, Meter::unread(), move || {
        let held = Arc::clone(&held);
        move |i: i32, claim: &mut Claim<'_>| {
            let _ = &held;
            claim.set(10);
            i
        }
    })
    .unwrap();
    assert_eq!(map.next().unwrap().unwrap(), 0);
    drop(map);
    assert_eq!(Arc::strong_count(&alive), 1, "workers are gone, and with them their state");
}
