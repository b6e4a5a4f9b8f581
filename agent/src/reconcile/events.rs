//! Events on Volumes and Snapshots. They say what changed, once; the controller relays
//! what concerns a claim to the claim.

use berth_api::{
    Volume, VolumePhase, VolumeStatus, condition,
    names::{self, reason},
};
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// Publishes events as this node's agent.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    pub(crate) fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter {
            controller: "berth-agent".to_owned(),
            instance: Some(node.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Publishes what changed between two statuses. An event that cannot be written
    /// is only logged: the status says the same.
    pub(crate) async fn status_changed(&self, volume: &Volume, new: &VolumeStatus) {
        for event in events(volume.status.as_ref(), new) {
            self.publish(volume, event).await;
        }
    }

    pub(crate) async fn publish(&self, about: &impl Resource<DynamicType = ()>, event: Event) {
        let regarding = about.object_ref(&());
        let published = self.recorder.publish(&event, &regarding);
        if let Err(error) = super::within("create Event", published).await {
            tracing::debug!(about = ?about.meta().name, error = error.chain(), "event is not written");
        }
    }
}

fn events(old: Option<&VolumeStatus>, new: &VolumeStatus) -> Vec<Event> {
    let before = old.map_or(&[][..], |old| &old.conditions);
    let news = condition::news(before, &new.conditions).into_iter();
    let changed_conditions = news
        .filter(|it| [names::condition::HEALTHY, names::condition::FULL].contains(&&*it.type_))
        .map(|it| Event {
            type_: match condition::is_bad(it) {
                true => EventType::Warning,
                false => EventType::Normal,
            },
            reason: it.reason.clone(),
            note: Some(condition::note(it)),
            action: "Keep".to_owned(),
            secondary: None,
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
    let (type_, reason, action) = match new.phase {
        VolumePhase::Ready if new.message.is_some() => {
            (EventType::Warning, reason::UNHEALTHY, "Keep")
        }
        VolumePhase::Ready if made => (EventType::Normal, "Recovered", "Keep"),
        VolumePhase::Ready => (EventType::Normal, reason::PROVISIONING_SUCCEEDED, "Create"),
        VolumePhase::NoRoom => (EventType::Warning, reason::NO_ROOM, "Create"),
        VolumePhase::Failed if made => (EventType::Warning, reason::UNHEALTHY, "Keep"),
        VolumePhase::Failed => (EventType::Warning, reason::PROVISIONING_FAILED, "Create"),
        VolumePhase::Lost => (EventType::Warning, reason::DATA_LOST, "Keep"),
        VolumePhase::Deleted => (EventType::Normal, "Erased", "Erase"),
        VolumePhase::Pending => (EventType::Normal, reason::PROVISIONING, "Create"),
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
        type_,
        reason: reason.to_owned(),
        note,
        action: action.to_owned(),
        secondary: None,
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
            .map(|event| format!("{} {}", event.reason, event.note.unwrap_or_default()))
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
