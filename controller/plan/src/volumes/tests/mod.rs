//! A small world of one claim, for the tests of what becomes of it.

mod growing;
mod hands;
mod lives;
mod manifests;

use std::collections::BTreeMap;

use super::*;
use crate::{grants::Grant, node::Node, room};
use berth_api::{Backend, ClaimRef, NodePool, PoolHealth, SetRef, VolumeMode};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

/// A small cluster: node n1 with pool p1 (10Gi, labelled), claim data-web-0.
struct World {
    claim: Option<PersistentVolumeClaim>,
    pv: Option<PersistentVolume>,
    volume: Option<Volume>,
    class: Class,
    grants: BTreeMap<String, Grant>,
    nodes: BTreeMap<String, Node>,
    peers: Peers,
    now: Timestamp,
}

const GI: u64 = 1 << 30;

impl World {
    fn new() -> Self {
        let grant = Grant {
            node: Some("n1".to_owned()),
            epoch: 1,
            standing: Standing::Granted,
            message: String::new(),
            report: Some(NodePool {
                id: Some("p1".to_owned()),
                path: "/pools/a".to_owned(),
                health: PoolHealth::Healthy,
                message: None,
                troubles: Vec::new(),
                filesystem: "btrfs".to_owned(),
                filesystem_uuid: None,
                backends: vec![Backend::Btrfs],
                capacity: Bytes(10 * GI),
                reserved: Bytes(0),
                reserved_by_volumes: None,
                room: None,
                free: Bytes(10 * GI),
                orphans: Vec::new(),
                volumes: 0,
            }),
            refused: Vec::new(),
        };
        let labels = [(names::pool_label("p1"), "present".to_owned())].into();
        let mut world = Self {
            claim: None,
            pv: None,
            volume: None,
            class: Class {
                name: "berth".to_owned(),
                immediate: false,
                reclaim: "Delete".to_owned(),
                mount_options: None,
                backend: None,
                sparse: false,
                topologies: Vec::new(),
            },
            grants: [("p1".to_owned(), grant)].into(),
            nodes: [(
                "n1".to_owned(),
                Node {
                    labels,
                    silent: None,
                },
            )]
            .into(),
            peers: Peers::Ready,
            now: Timestamp::UNIX_EPOCH,
        };
        world.claim(json!({}));
        world
    }

    fn claim(&mut self, patch: Value) {
        let mut claim = json!({
            "metadata": {
                "name": "data-web-0", "namespace": "ns", "uid": "u0",
                "annotations": {
                    names::STORAGE_PROVISIONER: berth_api::DRIVER,
                    names::SELECTED_NODE: "n1",
                },
            },
            "spec": {
                "accessModes": ["ReadWriteOncePod"],
                "storageClassName": "berth",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        });
        merge(&mut claim, patch);
        self.claim = Some(serde_json::from_value(claim).expect("a claim"));
    }

    fn volume(&mut self, phase: VolumePhase, exposed: bool) -> &mut Volume {
        let claim = self.claim.clone().expect("set before");
        let owner = SetRef {
            kind: "OrdinalSet".to_owned(),
            name: "web".to_owned(),
            ordinal: 0,
        };
        let spec = pv::placed(&claim, Some(owner), &self.class, "n1", "p1", None);
        let mut volume = pv::volume("pvc-u0", spec);
        volume.metadata.uid = Some("volume-uid".to_owned());
        if exposed {
            volume.spec.bound = volume.metadata.uid.clone();
            volume.spec.exposed = true;
        }
        volume.status = Some(VolumeStatus {
            phase,
            size: (phase == VolumePhase::Ready).then_some(Bytes(GI)),
            backend: Some(Backend::Btrfs),
            message: Some("says the agent".to_owned()),
            ..VolumeStatus::default()
        });
        self.volume.insert(volume)
    }

    /// The PV as it is made, bound, then changed.
    fn pv(&mut self, patch: Value) {
        let volume = self.volume.clone().expect("set before");
        let claim = self.claim.clone().expect("set before");
        let pv = pv::manifest(&volume, &claim, &self.class);
        let mut value = serde_json::to_value(pv).expect("a PV");
        merge(
            &mut value,
            json!({"metadata": {"uid": "pv-uid"}, "status": {"phase": "Bound"}}),
        );
        merge(&mut value, patch);
        self.pv = Some(serde_json::from_value(value).expect("a PV"));
    }

    fn decide(&self) -> Decision {
        let rooms = room::rooms(&self.grants, &self.volume, &BTreeMap::new());
        decide(&View {
            claim: self.claim.as_ref(),
            pod: None,
            pv: self.pv.as_ref(),
            volume: self.volume.as_ref(),
            class: Some(&self.class),
            grants: &self.grants,
            rooms: &rooms,
            nodes: &self.nodes,
            peers: &self.peers,
            now: self.now,
        })
    }

    fn check(&self, expected: Expect) {
        let decision = self.decide();
        let step = match decision.step {
            Step::Act(Action::Expose { mark, pv, .. }) => {
                format!(
                    "Expose mark={mark} {}",
                    pv.metadata.name.unwrap_or_default()
                )
            }
            Step::Act(Action::Adopt { volume, .. }) => {
                format!("Adopt {} on {}", volume.spec.pool, volume.spec.node)
            }
            Step::Act(action) => format!("{action:?}"),
            other => format!("{other:?}"),
        };
        let mut shown = step;
        if let Some(wait) = decision.wait {
            shown += &format!("\nwait: {wait}");
        }
        if let Some(notice) = decision.notice {
            let kind = if notice.warning { "Warning" } else { "Normal" };
            shown += &format!("\n{kind} {}: {}", notice.reason, notice.text);
        }
        expected.assert_eq(&shown);
    }

    fn standing(&mut self, standing: Standing) {
        self.grants.get_mut("p1").expect("p1").standing = standing;
    }
}

fn merge(value: &mut Value, patch: Value) {
    match (value, patch) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, from) in from {
                if from.is_null() {
                    into.remove(&key);
                    continue;
                }
                merge(into.entry(key).or_insert(Value::Null), from);
            }
        }
        (value, patch) => *value = patch,
    }
}
