//! One process in `/proc`: what it has used, and when it was started, by which it is known
//! again although its number is used anew.

use std::{fs, path::Path};

/// What is read of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Processor time in clock ticks.
    pub cpu: u64,
    /// When it was started, in clock ticks since the machine was.
    pub started: u64,
}

/// Reads `/proc/PID/stat`: proc(5), fields 14, 15 and 22, after the name in brackets, which
/// may hold anything.
pub fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu: field(14)? + field(15)?,
        started: field(22)?,
    })
}

/// When a process was started, in clock ticks; `None` where there is none of that number.
pub fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    Some(parse_stat(&stat)?.started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_no_field() {
        let mut fields = vec!["0"; 20];
        fields[0] = "S";
        fields[11] = "7";
        fields[12] = "5";
        fields[19] = "99";
        let text = format!("12 (a) b (c) {}", fields.join(" "));
        let stat = Stat {
            cpu: 12,
            started: 99,
        };
        assert_eq!(parse_stat(&text), Some(stat));
        assert_eq!(parse_stat("12 (a) S 1"), None);
    }
}
