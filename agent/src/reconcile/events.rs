//! Events on Volumes and Snapshots. They say what changed, once; the controller relays
//! what concerns a claim to the claim.

use berth_api::{
    Volume, VolumePhase, VolumeStatus, condition,
    names::{self, reason},
};
use berth_kube::events::{self, Kind, Reporter};
use kube::{Client, Resource};
use tokio_util::sync::CancellationToken;

/// Publishes events as this node's agent.
#[derive(Clone)]
pub(crate) struct Events(events::Events);

/// What is told of one object.
pub(crate) struct Event {
    pub(crate) kind: Kind,
    pub(crate) reason: String,
    pub(crate) note: String,
    /// What was being done.
    pub(crate) action: &'static str,
}

impl Events {
    pub(crate) fn new(client: Client, node: &str, stop: CancellationToken) -> Self {
        let reporter = Reporter {
            controller: "berth.dev/agent",
            instance: node.to_owned(),
            manager: "berth-agent",
        };
        Self(events::Events::new(client, reporter, stop))
    }

    /// Publishes what changed between two statuses.
    pub(crate) fn status_changed(&self, volume: &Volume, new: &VolumeStatus) {
        for event in events(volume.status.as_ref(), new) {
            self.publish(volume, &event);
        }
    }

    /// Publishes an event. One for which there is no place is dropped: the status says the
    /// same.
    pub(crate) fn publish(&self, about: &impl Resource<DynamicType = ()>, event: &Event) {
        let Event {
            kind,
            action,
            reason,
            note,
        } = event;
        let about = about.object_ref(&());
        self.0.publish_action(about, *kind, action, reason, note);
    }
}

fn events(old: Option<&VolumeStatus>, new: &VolumeStatus) -> Vec<Event> {
    let before = old.map_or(&[][..], |old| &old.conditions);
    let news = condition::news(before, &new.conditions).into_iter();
    let changed_conditions = news
        .filter(|it| [names::condition::HEALTHY, names::condition::FULL].contains(&&*it.type_))
        .map(|it| Event {
            kind: Kind::of(condition::is_bad(it)),
            reason: it.reason.clone(),
            note: condition::note(it),
            action: "Keep",
        });
    of_phase(old, new)
        .into_iter()
        .chain(changed_conditions)
        .collect()
}

fn of_phase(old: Option<&VolumeStatus>, new: &VolumeStatus) -> Option<Event> {
    let old_phase = old.map_or(VolumePhase::Pending, |old| old.phase);
    let same_message = old.is_some_and(|old| old.message == new.message);
    if old_phase == new.phase && (same_message || new.message.is_none()) {
        return None;
    }
    let made = old.is_some_and(|old| old.path.is_some());
    let (kind, reason, action) = match new.phase {
        VolumePhase::Ready if new.message.is_some() => (Kind::Warning, reason::UNHEALTHY, "Keep"),
        VolumePhase::Ready if made => (Kind::Normal, "Recovered", "Keep"),
        VolumePhase::Ready => (Kind::Normal, reason::PROVISIONING_SUCCEEDED, "Create"),
        VolumePhase::NoRoom => (Kind::Warning, reason::NO_ROOM, "Create"),
        VolumePhase::Failed if made => (Kind::Warning, reason::UNHEALTHY, "Keep"),
        VolumePhase::Failed => (Kind::Warning, reason::PROVISIONING_FAILED, "Create"),
        VolumePhase::Lost => (Kind::Warning, reason::DATA_LOST, "Keep"),
        VolumePhase::Deleted => (Kind::Normal, "Erased", "Erase"),
        VolumePhase::Pending => (Kind::Normal, reason::PROVISIONING, "Create"),
    };
    let note = new.message.clone().or_else(|| match new.phase {
        VolumePhase::Ready => new
            .path
            .as_ref()
            .map(|path| format!("the data is in {path}")),
        VolumePhase::Deleted => Some("the data is erased".to_owned()),
        _ => None,
    });
    Some(Event {
        kind,
        reason: reason.to_owned(),
        note: note.unwrap_or_default(),
        action,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::{Problem, ProblemKind};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn says_what_changed_once() {
        let status = |phase, message: Option<&str>, path: Option<&str>| VolumeStatus {
            phase,
            message: message.map(str::to_owned),
            path: path.map(str::to_owned),
            ..VolumeStatus::default()
        };
        use VolumePhase::{Deleted, Failed, Lost, NoRoom, Ready};
        let ready = status(Ready, None, Some("/v"));
        let failed = status(Failed, Some("unmounted"), Some("/v"));
        let new_failed = status(Failed, Some("no backend"), None);
        let cannot_grow = status(Ready, Some("no room to grow"), Some("/v"));
        for (old, new, expected) in [
            (
                None,
                &ready,
                Some("ProvisioningSucceeded the data is in /v"),
            ),
            (Some(&ready), &ready, None),
            (Some(&ready), &failed, Some("Unhealthy unmounted")),
            (Some(&failed), &failed, None),
            (Some(&failed), &ready, Some("Recovered the data is in /v")),
            (None, &new_failed, Some("ProvisioningFailed no backend")),
            (
                Some(&ready),
                &cannot_grow,
                Some("Unhealthy no room to grow"),
            ),
            (Some(&cannot_grow), &ready, None),
            (
                None,
                &status(NoRoom, Some("full"), None),
                Some("NoRoom full"),
            ),
            (
                Some(&ready),
                &status(Lost, Some("gone"), Some("/v")),
                Some("DataLost gone"),
            ),
            (
                Some(&ready),
                &status(Deleted, None, Some("/v")),
                Some("Erased the data is erased"),
            ),
        ] {
            let shown = shown(old, new);
            assert_eq!(shown, expected.as_slice(), "{old:?} -> {new:?}");
        }
    }

    fn shown(old: Option<&VolumeStatus>, new: &VolumeStatus) -> Vec<String> {
        let shown = events(old, new).into_iter();
        shown
            .map(|event| format!("{} {}", event.reason, event.note))
            .collect()
    }

    #[test]
    fn problems_are_published_when_they_come_and_go() {
        let status = |troubles: &[Problem]| VolumeStatus {
            phase: VolumePhase::Ready,
            path: Some("/v".to_owned()),
            conditions: condition::of_problems(troubles)
                .map(|said| said.since(&[], None, Time(jiff::Timestamp::UNIX_EPOCH)))
                .into(),
            ..VolumeStatus::default()
        };
        let full = Problem {
            kind: ProblemKind::Full,
            message: "grow it".to_owned(),
        };
        let (well, ill) = (status(&[]), status(&[full]));
        assert_eq!(shown(Some(&well), &ill), ["Full grow it"]);
        assert_eq!(shown(Some(&ill), &ill), Vec::<String>::new());
        assert_eq!(shown(Some(&ill), &well), ["RoomLeft there is room again"]);
    }
}
