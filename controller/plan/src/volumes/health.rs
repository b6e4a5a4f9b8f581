//! Events on the claim of a volume that works although something is wrong with it:
//! people look at their claims, not at Volumes.

use berth_api::{
    VolumeStatus, condition,
    names::{self, reason},
};

use super::decision::Decision;

/// Adds the worst problem as an event to a decision that has no event yet.
pub(super) fn told(decision: Decision, status: &VolumeStatus) -> Decision {
    if decision.notice.is_some() {
        return decision;
    }
    let bad = status.conditions.iter().filter(|it| condition::is_bad(it));
    let wrong = bad.filter_map(|it| match it.type_.as_str() {
        names::condition::HEALTHY => Some((reason::VOLUME_UNHEALTHY, it)),
        names::condition::FULL => Some((reason::VOLUME_FULL, it)),
        _ => None,
    });
    // Healthy comes first.
    match wrong.min_by_key(|(reason, _)| *reason != reason::VOLUME_UNHEALTHY) {
        Some((reason, it)) => decision.warn(reason, &*it.message),
        None => decision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::{Problem, ProblemKind};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use crate::volumes::Step;

    #[test]
    fn the_worst_is_told_where_nothing_else_is() {
        let notice = |troubles: &[(ProblemKind, &str)], decision: Decision| {
            let troubles: Vec<_> = troubles
                .iter()
                .map(|(kind, message)| Problem {
                    kind: *kind,
                    message: (*message).to_owned(),
                })
                .collect();
            let now = Time(Timestamp::UNIX_EPOCH);
            let conditions = condition::of_problems(&troubles)
                .map(|said| said.since(&[], None, now.clone()))
                .into();
            let status = VolumeStatus {
                conditions,
                ..VolumeStatus::default()
            };
            let notice = told(decision, &status).notice?;
            Some(format!("{} {}", notice.reason, notice.text))
        };
        let nothing = || Decision::from(Step::Nothing);
        let full = (ProblemKind::Full, "grow it");
        let errors = (ProblemKind::IoErrors, "copy it away");
        assert_eq!(notice(&[], nothing()), None);
        assert_eq!(
            notice(&[full], nothing()).as_deref(),
            Some("VolumeFull grow it")
        );
        assert_eq!(
            notice(&[full, errors], nothing()).as_deref(),
            Some("VolumeUnhealthy copy it away")
        );
        assert_eq!(
            notice(&[full], nothing().tell("Grown", "to 2Gi")).as_deref(),
            Some("Grown to 2Gi")
        );
    }
}
