//! Several ways to do the same work, timed by turns on one thread, so that all meet the same disturbances.

use std::time::{Duration, Instant};

/// Time that this thread has spent on a processor (first number of /proc/thread-self/schedstat, nanoseconds): waiting for others' work
/// does not count.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux kernel with schedstat");
    let nanoseconds = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

/// The middle, the least and the largest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[values.len() / 2], values[0], values[values.len() - 1]]
}

/// Runs `work(way, round, piece)` for each round and piece with each way, beginning with another way each time. Prints for each way the median
/// over the rounds of its time for all pieces, divided by `units`, on the processor and by the clock, and how many times the first way's
/// processor time it takes (least and largest of the rounds in brackets).
pub(crate) fn by_turns(ways: &[&str], rounds: usize, pieces: usize, units: f64, mut work: impl FnMut(usize, usize, usize)) {
    let mut times = vec![vec![(0.0, 0.0); rounds]; ways.len()];
    for round in 0..rounds {
        for piece in 0..pieces {
            for turn in 0..ways.len() {
                let way = (turn + piece + round) % ways.len();
                let (clock, before) = (Instant::now(), processor());
                work(way, round, piece);
                times[way][round].0 += (processor() - before).as_secs_f64();
                times[way][round].1 += clock.elapsed().as_secs_f64();
            }
        }
    }
    let first: Vec<f64> = times[0].iter().map(|t| t.0).collect();
    for (name, times) in ways.iter().zip(&times) {
        let [cpu, ..] = spread(times.iter().map(|t| t.0).collect());
        let [wall, ..] = spread(times.iter().map(|t| t.1).collect());
        let [ratio, least, most] = spread(times.iter().zip(&first).map(|(t, first)| t.0 / first).collect());
        let ms = 1e3 / units;
        println!(
            "{name:<48} {:8.3} ms processor, {:8.3} ms clock, {ratio:6.3} × the first ({least:.3}-{most:.3})",
            cpu * ms,
            wall * ms
        );
    }
}
