//! Lines on stderr that show how far a long step is and how long it has taken.

use std::io::Write;
use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Prints one line, prefixed with the seconds since the first line.
pub fn say(line: impl AsRef<str>) {
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs();
    // A closed stderr is no reason to stop making a cluster.
    let _ = writeln!(std::io::stderr(), "[{seconds:>4}s] {}", line.as_ref());
}

/// Runs `work`, saying its name before and its duration after.
pub fn step<T, E>(name: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    say(format!("{name} ..."));
    let begun = Instant::now();
    let result = work();
    let word = if result.is_ok() { "done" } else { "FAILED" };
    say(format!(
        "{name}: {word} after {:.1} s",
        begun.elapsed().as_secs_f32()
    ));
    result
}
