//! Waiting on conditions, never on the clock: each wait says what it waits for,
//! and when its patience ends, what it last saw.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Long enough for a slow machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// What a check found.
pub enum Seen<T> {
    /// The condition holds.
    Done(T),
    /// Not yet, and what there is instead.
    NotYet(String),
}

/// Repeats `check` until it is done. An error of `check` counts as "not yet":
/// API servers and nodes come and go in these tests.
pub async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Result<Seen<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = match check().await {
            Ok(Seen::Done(value)) => return Ok(value),
            Ok(Seen::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > PATIENCE {
            bail!(
                "waited {}s for {what}; last seen: {last}",
                PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// `Done(())` when `holds`, else what was seen.
pub fn check(holds: bool, seen: impl FnOnce() -> String) -> Result<Seen<()>> {
    Ok(if holds {
        Seen::Done(())
    } else {
        Seen::NotYet(seen())
    })
}
