//! How conditions are written, the same in both programs, and the two that show what is
//! wrong with a pool or a volume that can still be used.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{Problem, ProblemKind, names::condition};

/// A condition before it gets its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Type of the condition.
    pub type_: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Reason of the condition, one CamelCase word.
    pub reason: String,
    /// Message of the condition, for people; may be empty.
    pub message: String,
}

impl Said {
    /// The condition as of `now`; its transition time stays if `old` has the same status.
    pub fn since(self, old: &[Condition], generation: Option<i64>, now: Time) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let before = old
            .iter()
            .find(|condition| condition.type_ == self.type_ && condition.status == status);
        Condition {
            type_: self.type_.to_owned(),
            status: status.to_owned(),
            reason: self.reason,
            message: self.message,
            observed_generation: generation,
            last_transition_time: before.map_or(now, |it| it.last_transition_time.clone()),
        }
    }
}

/// `Healthy`, whose reason is the worst of the troubles, and `Full`.
pub fn of_problems(troubles: &[Problem]) -> [Said; 2] {
    let (full, wrong): (Vec<_>, Vec<_>) = troubles
        .iter()
        .partition(|trouble| trouble.kind == ProblemKind::Full);
    let worst = wrong.iter().map(|trouble| trouble.kind).min();
    let text = |troubles: &[&Problem]| {
        // The same may be wrong twice.
        let texts: BTreeSet<_> = troubles.iter().map(|it| it.message.as_str()).collect();
        texts.into_iter().collect::<Vec<_>>().join("; ")
    };
    [
        Said {
            type_: condition::HEALTHY,
            holds: worst.is_none(),
            reason: worst.map_or_else(
                || condition::HEALTHY.to_owned(),
                |worst| worst.as_str().to_owned(),
            ),
            message: text(&wrong),
        },
        Said {
            type_: condition::FULL,
            holds: !full.is_empty(),
            reason: match full.is_empty() {
                true => "RoomLeft",
                false => condition::FULL,
            }
            .to_owned(),
            message: text(&full),
        },
    ]
}

/// The conditions that are worth an event: they turned bad, changed their reason, or
/// turned good again. A condition that is good from the start is not.
pub fn news<'a>(old: &[Condition], new: &'a [Condition]) -> Vec<&'a Condition> {
    new.iter()
        .filter(|new| {
            let bad = new.status == bad_status(&new.type_);
            match old.iter().find(|old| old.type_ == new.type_) {
                None => bad,
                Some(old) => {
                    (&old.status, &old.reason) != (&new.status, &new.reason)
                        || bad && old.message != new.message
                }
            }
        })
        .collect()
}

/// The message of an event about a condition that changed.
pub fn note(condition: &Condition) -> String {
    match condition.message.as_str() {
        "" if is_bad(condition) => condition.reason.clone(),
        "" if condition.type_ == condition::FULL => "there is room again".to_owned(),
        "" => "nothing is known to be wrong any more".to_owned(),
        message => message.to_owned(),
    }
}

/// Whether a condition needs a person's attention.
pub fn is_bad(condition: &Condition) -> bool {
    condition.status == bad_status(&condition.type_)
}

fn bad_status(type_: &str) -> &'static str {
    match type_ {
        condition::FULL => "True",
        _ => "False",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(kind: ProblemKind, message: &str) -> Problem {
        Problem {
            kind,
            message: message.to_owned(),
        }
    }

    fn at(second: i64) -> Time {
        serde_json::from_value(serde_json::json!(format!("1970-01-01T00:00:{second:02}Z")))
            .expect("a time")
    }

    fn conditions(troubles: &[Problem], old: &[Condition], second: i64) -> Vec<Condition> {
        of_problems(troubles)
            .map(|said| said.since(old, Some(1), at(second)))
            .into()
    }

    fn show(conditions: &[&Condition]) -> Vec<String> {
        conditions
            .iter()
            .map(|it| format!("{}={} {} {}", it.type_, it.status, it.reason, it.message))
            .collect()
    }

    #[test]
    fn the_worst_trouble_is_the_reason_and_all_are_told() {
        use ProblemKind::{Full, IoErrors, ReadOnly};
        let well = conditions(&[], &[], 1);
        assert_eq!(news(&[], &well), Vec::<&Condition>::new());
        let troubles = [
            trouble(IoErrors, "errors"),
            trouble(ReadOnly, "no writes"),
            trouble(Full, "full"),
        ];
        let ill = conditions(&troubles, &well, 2);
        let told = news(&well, &ill);
        let expected = [
            "Healthy=False ReadOnly errors; no writes",
            "Full=True Full full",
        ];
        assert_eq!(show(&told), expected);
        assert!(told.iter().all(|it| is_bad(it)));
        assert_eq!(ill[0].last_transition_time, at(2));

        let less = conditions(&troubles[..1], &ill, 3);
        assert_eq!(
            show(&news(&ill, &less)),
            ["Healthy=False IoErrors errors", "Full=False RoomLeft "]
        );
        assert_eq!(less[0].last_transition_time, at(2));
        let well = conditions(&[], &less, 4);
        assert_eq!(show(&news(&less, &well)), ["Healthy=True Healthy "]);
    }
}
