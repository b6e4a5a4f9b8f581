//! What an answer of the API server to one call means, and what is kept of it.

use std::collections::BTreeMap;

use berth_plan::set::{Refusal, Verdict};

use crate::context::CallError;

/// What a failed creation says.
pub(super) fn refusal(error: &CallError) -> Refusal {
    match error.status() {
        Some(status) => Refusal::of(Some(status.code), &status.message),
        None => Refusal::of(None, &error.chain()),
    }
}

/// What a failed dry run says; `None` when the API server said nothing.
pub(super) fn verdict(error: &CallError) -> Option<Verdict> {
    let status = error.status()?;
    let exists = error.is_already_exists();
    Some(Verdict::of(status.code, exists, &status.message))
}

/// Remembers refusals: each answer replaces what was known.
pub(super) fn note_refusals(
    known: &mut BTreeMap<String, Refusal>,
    created: Option<&(String, Option<Refusal>)>,
) {
    if let Some((pod, refusal)) = created {
        match refusal {
            Some(refusal) => known.insert(pod.clone(), refusal.clone()),
            None => known.remove(pod),
        };
    }
}

#[cfg(test)]
mod tests {
    use berth_plan::set::RefusalKind;
    use kube::core::Status;

    use super::*;

    fn error(code: u16, reason: &str, message: &str) -> CallError {
        CallError::Api {
            call: "create".into(),
            source: Box::new(kube::Error::Api(Box::new(
                Status::failure(message, reason).with_code(code),
            ))),
        }
    }

    #[test]
    fn dry_runs_are_read_as_the_rules_say() {
        let read = |code, reason: &str, message: &str| verdict(&error(code, reason, message));
        let refused = |text: &str| Some(Verdict::Refused(text.to_owned()));
        let unknown = |text: &str| Some(Verdict::Unknown(text.to_owned()));
        assert_eq!(read(409, "AlreadyExists", "there"), Some(Verdict::Passed));
        assert_eq!(read(422, "Invalid", "bad"), refused("bad"));
        assert_eq!(read(403, "Forbidden", "policy"), refused("policy"));
        let quota = "exceeded quota: small";
        assert_eq!(read(403, "Forbidden", quota), unknown(quota));
        let webhook = "admission webhook \"x\" does not support dry run";
        assert_eq!(read(400, "BadRequest", webhook), unknown(webhook));
        assert_eq!(read(503, "ServiceUnavailable", "later"), unknown("later"));
        let silence = CallError::Unknown {
            call: "create".into(),
            limit: std::time::Duration::from_secs(30),
        };
        assert_eq!(verdict(&silence), None);
    }

    #[test]
    fn only_answers_are_refusals() {
        let kind = |code| refusal(&error(code, "", "text")).kind;
        assert_eq!(kind(422), RefusalKind::Template);
        assert_eq!(kind(403), RefusalKind::Circumstances);
        assert_eq!(kind(500), RefusalKind::Unavailable);
        assert_eq!(kind(429), RefusalKind::Unavailable);
    }
}
