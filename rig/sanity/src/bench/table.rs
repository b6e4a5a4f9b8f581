//! What was measured, for people. Pure but for the printing.

use std::{fmt, time::Duration};

use berth_provisioner::Backend;

/// Volumes for the agent to know when its memory is looked at.
pub(super) const MANY: usize = 100;

/// Clients that call at the same time for the memory under load.
pub(super) const CLIENTS: usize = 8;

/// A call beside a plain operation.
pub(super) struct Row {
    call: &'static str,
    operation: &'static str,
    calls: Vec<Duration>,
    plain: Vec<Duration>,
}

impl Row {
    pub(super) fn new(call: &'static str, operation: &'static str) -> Self {
        Self {
            call,
            operation,
            calls: Vec::new(),
            plain: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, call: Duration, plain: Duration) {
        self.calls.push(call);
        self.plain.push(plain);
    }
}

/// Bytes of memory that the agent takes.
pub(super) struct Memory {
    /// Before the first volume.
    pub(super) idle: u64,
    /// With many volumes.
    pub(super) volumes: u64,
    /// The most that was seen while several clients called.
    pub(super) load: u64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "agent's memory (MiB): {:.1} idle, {:.1} with {} volumes, {:.1} with {} clients",
            mib(self.idle),
            mib(self.volumes),
            MANY,
            mib(self.load),
            CLIENTS
        )
    }
}

/// The value below or at which this many percent of all are; sorts them.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

/// Prints what was measured of a backend.
pub(super) fn print(backend: Backend, fstype: &str, rounds: usize, rows: &mut [Row]) {
    println!("{backend} on {fstype}, {rounds} rounds, milliseconds");
    println!(
        "{:<24}{:>9}{:>9}  {:<29}{:>9}{:>9}{:>9}",
        "call", "p50", "p90", "beside", "p50", "p90", "p50/p50"
    );
    for row in rows {
        println!("{}", line(row));
    }
}

fn line(row: &mut Row) -> String {
    let milliseconds =
        |times: &mut [Duration], percent| percentile(times, percent).as_secs_f64() * 1e3;
    let (call, plain) = (
        milliseconds(&mut row.calls, 50),
        milliseconds(&mut row.plain, 50),
    );
    format!(
        "{:<24}{call:>9.2}{:>9.2}  {:<29}{plain:>9.3}{:>9.3}{:>9.1}",
        row.call,
        milliseconds(&mut row.calls, 90),
        row.operation,
        milliseconds(&mut row.plain, 90),
        call / plain
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut times: Vec<Duration> = (1..=50).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut times, 50), Duration::from_millis(25));
        assert_eq!(percentile(&mut times, 90), Duration::from_millis(45));
        assert_eq!(percentile(&mut times[..1], 90), Duration::from_millis(1));
        assert_eq!(percentile(&mut [], 50), Duration::ZERO);
    }

    #[test]
    fn a_line_has_both_and_their_ratio() {
        let mut row = Row::new("CreateVolume", "mkdir, fsync");
        row.add(Duration::from_millis(6), Duration::from_millis(2));
        let line = line(&mut row);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "CreateVolume",
                "6.00",
                "6.00",
                "mkdir,",
                "fsync",
                "2.000",
                "2.000",
                "3.0"
            ]
        );
    }
}
