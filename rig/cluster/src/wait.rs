//! Waiting for a condition without burning the processor that others need.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Looks until `look` answers `Ok(Ok(value))`; what it answers otherwise is what an error quotes.
///
/// The pause between looks grows from 20 ms to 500 ms.
pub(crate) fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<std::result::Result<T, String>>,
) -> Result<T> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        let last = match look()? {
            Ok(value) => return Ok(value),
            Err(last) => last,
        };
        if begun.elapsed() >= patience {
            return Err(Error::Timeout {
                what: what.to_owned(),
                seconds: patience.as_secs(),
                last,
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sight_is_quoted() {
        let mut left = 2;
        let value = wait_for("x", Duration::from_secs(60), || {
            left -= 1;
            Ok(if left == 0 {
                Ok(7)
            } else {
                Err("later".to_owned())
            })
        });
        assert_eq!(value.unwrap(), 7);
        let never: Result<()> = wait_for("rain", Duration::ZERO, || Ok(Err("sun".to_owned())));
        let text = never.unwrap_err().to_string();
        assert!(text.contains("rain") && text.contains("sun"), "{text}");
    }
}
