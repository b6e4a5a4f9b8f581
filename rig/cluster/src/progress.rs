//! What a person sees of a long step: how long it has taken and about how long it will.
//! On a terminal one line is written over again each second; elsewhere, as in a log, a
//! line comes at the start, at the end, and twice a minute between.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::paths::cache;

static START: OnceLock<Instant> = OnceLock::new();

/// The steps under way, in the order in which they began.
static ACTIVE: Mutex<Vec<Active>> = Mutex::new(Vec::new());

/// Time between two lines of a log.
const LOGGED: Duration = Duration::from_secs(30);

/// Time between two looks of a terminal's line.
const SHOWN: Duration = Duration::from_secs(1);

/// Steps that are shorter are not remembered.
const SHORT: Duration = Duration::from_secs(5);

/// Seconds that steps take from nothing on two cores, as long as this machine has not
/// shown its own.
const USUAL: [(&str, u64); 11] = [
    ("making kubernetes", 450),
    ("making containerd", 60),
    ("making coredns", 100),
    ("making etcd", 25),
    ("making crictl", 25),
    ("making e2e", 460),
    ("making node-image", 120),
    ("making snapshot-controller", 120),
    ("making kwok", 60),
    ("building Berth's image", 240),
    ("creating the nodes (kind)", 40),
];

#[derive(Debug)]
struct Active {
    number: u64,
    name: String,
    begun: Instant,
    usual: Option<u64>,
}

/// Prints one line, prefixed with the seconds since the first line.
pub fn say(line: impl AsRef<str>) {
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs();
    // A closed stderr is no reason to stop making a cluster.
    let _ = writeln!(
        std::io::stderr(),
        "{}[{seconds:>4}s] {}",
        if terminal() { "\r\x1b[K" } else { "" },
        line.as_ref()
    );
}

/// Runs `work`, saying its name before, how far it is, and its duration after.
pub fn step<T, E>(name: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    let usual = usual(&times(), name);
    say(format!("{name} ...{}", about(usual)));
    let number = start(name, begun, usual);
    let (ended, end) = mpsc::channel::<()>();
    let ticker = thread::spawn(move || tick(number, &end));
    let result = work();
    active().retain(|step| step.number != number);
    drop(ended);
    let _ = ticker.join();
    let word = if result.is_ok() { "done" } else { "FAILED" };
    say(format!(
        "{name}: {word} after {:.1} s",
        begun.elapsed().as_secs_f32()
    ));
    if result.is_ok() {
        remember(&times(), name, begun.elapsed());
    }
    result
}

fn start(name: &str, begun: Instant, usual: Option<u64>) -> u64 {
    static NUMBER: Mutex<u64> = Mutex::new(0);
    let mut last = NUMBER.lock().unwrap_or_else(PoisonError::into_inner);
    *last += 1;
    active().push(Active {
        number: *last,
        name: name.to_owned(),
        begun,
        usual,
    });
    *last
}

fn active() -> MutexGuard<'static, Vec<Active>> {
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows a step until it ends; of several the one that began last.
fn tick(number: u64, end: &mpsc::Receiver<()>) {
    let pause = if terminal() { SHOWN } else { LOGGED };
    while end.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let line = {
            let steps = active();
            steps
                .last()
                .filter(|step| step.number == number)
                .map(|step| standing(&step.name, step.begun.elapsed().as_secs(), step.usual))
        };
        match line {
            Some(line) if terminal() => {
                let mut stderr = std::io::stderr();
                let _ = write!(stderr, "\r\x1b[K       {line}");
                let _ = stderr.flush();
            }
            Some(line) => say(line),
            None => {}
        }
    }
    if terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

/// How far a step is.
fn standing(name: &str, seconds: u64, usual: Option<u64>) -> String {
    match usual {
        Some(usual) if usual >= seconds => format!("{name}: {seconds} s of about {usual} s"),
        Some(usual) => format!("{name}: {seconds} s, longer than the usual {usual} s"),
        None => format!("{name}: {seconds} s"),
    }
}

fn about(usual: Option<u64>) -> String {
    match usual {
        Some(seconds) if seconds >= 120 => {
            format!(" about {} minutes", seconds.div_ceil(60))
        }
        Some(seconds) if seconds >= 10 => format!(" about {seconds} s"),
        _ => String::new(),
    }
}

/// What a step took here the last time, else what it takes elsewhere.
fn usual(times: &Path, name: &str) -> Option<u64> {
    let known = std::fs::read_to_string(times.join(file(name)))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    known.or_else(|| {
        let of = |(known, seconds): &(&str, u64)| (*known == name).then_some(*seconds);
        USUAL.iter().find_map(of)
    })
}

fn remember(times: &Path, name: &str, time: Duration) {
    // What is over at once needs no guess, and one that cannot be kept is no loss.
    if time >= SHORT && std::fs::create_dir_all(times).is_ok() {
        let _ = std::fs::write(times.join(file(name)), format!("{}\n", time.as_secs()));
    }
}

/// Where times are kept.
fn times() -> PathBuf {
    cache().join("times")
}

fn file(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

fn terminal() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_took_here_counts_more_than_what_it_takes_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(usual(dir.path(), "making kubernetes"), Some(450));
        assert_eq!(usual(dir.path(), "another step"), None);
        remember(dir.path(), "making kubernetes", Duration::from_secs(77));
        assert_eq!(usual(dir.path(), "making kubernetes"), Some(77));
    }

    #[test]
    fn a_step_says_how_far_it_is() {
        assert_eq!(standing("x", 12, Some(60)), "x: 12 s of about 60 s");
        assert_eq!(
            standing("x", 61, Some(60)),
            "x: 61 s, longer than the usual 60 s"
        );
        assert_eq!(standing("x", 5, None), "x: 5 s");
        assert_eq!(about(Some(450)), " about 8 minutes");
        assert_eq!(about(Some(40)), " about 40 s");
        assert_eq!(about(None), "");
    }

    #[test]
    fn steps_in_steps_end_with_what_they_made() {
        let outcome: Result<u8, ()> = step("outer", || step("inner", || Ok(7)));
        assert_eq!(outcome, Ok(7));
        assert_eq!(step("failing", || Err::<(), _>("no")), Err("no"));
        let ours = |step: &Active| ["outer", "inner", "failing"].contains(&step.name.as_str());
        assert!(!active().iter().any(ours));
    }
}
