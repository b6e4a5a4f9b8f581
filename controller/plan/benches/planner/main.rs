//! `cargo bench --bench planner`: how long decisions take in a large cluster. Prints the
//! median of some rounds; asserts nothing.

mod sets;
mod storage;

use std::time::{Duration, Instant};

/// Rounds of each figure.
const ROUNDS: usize = 41;

fn main() {
    println!("decisions, ms, median of {ROUNDS}:");
    sets::run();
    storage::run();
}

fn ms(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1000.0)
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}
