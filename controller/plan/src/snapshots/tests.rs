use super::*;
use berth_api::{DRIVER, SnapshotStatus, names::content as word};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

const UID: &str = "0a1b2c3d-0000-4000-8000-000000000001";

/// A small cluster: node n1 with pool p1, volume pvc-1 there, class berth.
struct World {
    contents: Vec<VolumeSnapshotContent>,
    snapshot: Option<Snapshot>,
    volume: Option<Volume>,
    classes: BTreeMap<String, BTreeMap<String, String>>,
    grants: BTreeMap<String, Grant>,
}

fn content(name: &str, uid: &str, change: Value) -> VolumeSnapshotContent {
    let mut value = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": name, "uid": uid, "finalizers": [word::FINALIZER]},
        "spec": {
            "driver": DRIVER,
            "deletionPolicy": "Delete",
            "source": {"volumeHandle": "pvc-1"},
            "sourceVolumeMode": "Filesystem",
            "volumeSnapshotClassName": "berth",
            "volumeSnapshotRef": {"namespace": "shop", "name": "monday", "uid": "vs-1"},
        },
    });
    merge(&mut value, change);
    serde_json::from_value(value).expect("a content")
}

/// RFC 7396.
fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                match value {
                    Value::Null => drop(into.remove(&key)),
                    value => merge(into.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (into, change) => *into = change,
    }
}

/// A content that the snapshot-controller wants gone.
fn leaving() -> Value {
    json!({"metadata": {
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {word::BEING_DELETED: "yes"},
    }})
}

impl World {
    fn new() -> Self {
        let grant = Grant {
            node: Some("n1".to_owned()),
            epoch: 1,
            standing: Standing::Granted,
            message: String::new(),
            report: None,
            refused: Vec::new(),
        };
        let volume = json!({
            "apiVersion": "berth.dev/v1alpha1",
            "kind": "Volume",
            "metadata": {"name": "pvc-1"},
            "spec": {
                "pool": "p1", "node": "n1", "size": "1Gi",
                "claim": {"namespace": "shop", "name": "data", "uid": "1"},
            },
            "status": {"phase": "Ready"},
        });
        Self {
            contents: vec![content("c", UID, json!({}))],
            snapshot: None,
            volume: Some(serde_json::from_value(volume).expect("a volume")),
            classes: [("berth".to_owned(), BTreeMap::new())].into(),
            grants: [("p1".to_owned(), grant)].into(),
        }
    }

    fn change(&mut self, change: Value) {
        let mut value = serde_json::to_value(&self.contents[0]).expect("JSON");
        merge(&mut value, change);
        self.contents[0] = serde_json::from_value(value).expect("a content");
    }

    fn report(&mut self, phase: SnapshotPhase, message: Option<&str>) {
        let snapshot = self.snapshot.as_mut().expect("there");
        let old = snapshot.status.take().unwrap_or_default();
        let taken = phase == SnapshotPhase::Ready;
        snapshot.status = Some(SnapshotStatus {
            phase,
            message: message.map(str::to_owned),
            created: match taken {
                true => serde_json::from_value(json!("2026-01-02T03:04:05Z")).expect("a time"),
                false => old.created,
            },
            size: taken.then_some(berth_api::Bytes(1 << 30)).or(old.size),
            ..SnapshotStatus::default()
        });
    }

    fn decide(&self) -> Option<Action> {
        let name = names::snapshot_name(UID);
        let contents: Vec<_> = self.contents.iter().collect();
        decide(&View {
            name: &name,
            snapshot: self.snapshot.as_ref(),
            contents: &contents,
            volume: self.volume.as_ref(),
            classes: &self.classes,
            grants: &self.grants,
        })
    }

    fn shows(&self, expected: Expect) {
        let text = match self.decide() {
            None => "Nothing".to_owned(),
            Some(Action::Create(snapshot)) => {
                let spec = &snapshot.spec;
                format!(
                    "create {} in {} on {}, adopt {}",
                    spec.volume, spec.pool, spec.node, spec.adopt
                )
            }
            Some(Action::Publish {
                content, status, ..
            }) => {
                format!(
                    "publish {content:?} {}",
                    serde_json::to_value(status).expect("JSON")
                )
            }
            Some(Action::Fail { content, message }) => format!("fail {content:?}: {message}"),
            Some(action) => format!("{action:?}"),
        };
        expected.assert_eq(&text);
    }

    /// Does the next write as the shell and the API server would.
    fn step(&mut self) -> &'static str {
        let Some(action) = self.decide() else {
            return "nothing";
        };
        match action {
            Action::Create(snapshot) => {
                assert_eq!(snapshot.metadata.name, Some(names::snapshot_name(UID)));
                self.snapshot = Some(*snapshot);
                "create"
            }
            Action::Publish {
                mark,
                pool,
                volume,
                status,
                ..
            } => {
                let snapshot = self.snapshot.as_mut().expect("there");
                assert_eq!(mark, !snapshot.is_exposed());
                snapshot.spec.exposed = true;
                let notes = json!({word::POOL: pool, word::VOLUME: volume});
                let mut status = serde_json::to_value(&*status).expect("JSON");
                status["error"] = Value::Null;
                self.change(json!({"metadata": {"annotations": notes}, "status": status}));
                "publish"
            }
            Action::Fail { message, .. } => {
                let error = json!({"message": message});
                self.change(json!({"status": {"error": error, "readyToUse": false}}));
                "fail"
            }
            Action::Settle { .. } => {
                self.change(json!({"metadata": {"annotations": {word::BEING_CREATED: null}}}));
                "settle"
            }
            Action::MoveTo { node, .. } => {
                self.snapshot.as_mut().expect("there").spec.node = node;
                "move"
            }
            Action::Erase { .. } => {
                self.snapshot.as_mut().expect("there").spec.state = VolumeState::Deleted;
                "erase"
            }
            Action::Unpublish { .. } => {
                self.change(json!({"status": {"snapshotHandle": null, "readyToUse": null}}));
                "unpublish"
            }
            Action::Drop { .. } => {
                self.snapshot = None;
                "drop"
            }
            Action::Release { others, .. } => {
                assert!(!others.iter().any(|f| f == word::FINALIZER), "{others:?}");
                self.contents.remove(0);
                "release"
            }
        }
    }

    /// Writes until nothing is due.
    fn run(&mut self) -> Vec<&'static str> {
        let mut steps = Vec::new();
        while steps.last() != Some(&"nothing") {
            assert!(steps.len() < 20, "{steps:?}");
            steps.push(self.step());
        }
        steps.pop();
        steps
    }

    /// A world in which the snapshot is published.
    fn published() -> Self {
        let mut world = Self::new();
        assert_eq!(world.run(), ["create"]);
        world.report(SnapshotPhase::Ready, None);
        assert_eq!(world.run(), ["publish"]);
        world
    }
}

#[test]
fn a_snapshot_is_taken_published_and_erased() {
    let mut world = World::new();
    world.shows(expect!["create pvc-1 in p1 on n1, adopt false"]);
    assert_eq!(world.run(), ["create"]);
    world.report(SnapshotPhase::Ready, None);
    world.shows(expect![[
        r#"publish c {"creationTime":1767323045000000000,"readyToUse":true,"restoreSize":1073741824,"snapshotHandle":"snap-0a1b2c3d-0000-4000-8000-000000000001"}"#
    ]]);
    assert_eq!(world.run(), ["publish"]);
    world.volume = None;
    world.shows(expect!["Nothing"]);

    world.change(leaving());
    world.shows(expect![[r#"Erase { snapshot: snap-0a1b2c3d-0000-4000-8000-000000000001, proof: DeletedContent("c", "0a1b2c3d-0000-4000-8000-000000000001") }"#]]);
    assert_eq!(world.run(), ["erase"], "and then it waits for the agent");
    world.report(SnapshotPhase::Deleted, None);
    assert_eq!(world.run(), ["unpublish", "drop", "release"]);
}

#[test]
fn retain_keeps_the_snapshot() {
    let mut world = World::published();
    world.change(leaving());
    world.change(json!({"spec": {"deletionPolicy": "Retain"}}));
    assert_eq!(world.run(), ["release"]);
    assert!(world.snapshot.is_some());

    // A person names it again.
    let again = json!({"spec": {"source": {
        "volumeHandle": null, "snapshotHandle": names::snapshot_name(UID),
    }, "volumeSnapshotClassName": null}});
    world.contents.push(content("again", "other", again));
    assert_eq!(world.run(), ["publish"]);
    world.change(leaving());
    assert_eq!(world.run(), ["erase"]);
}

#[test]
fn what_is_not_let_go_is_kept() {
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let mut world = World::published();
    world.change(deleted.clone());
    world.shows(expect!["Nothing"]);
    // A sidecar was in the middle of it; that is settled first.
    world.change(leaving());
    world.change(json!({"metadata": {"annotations": {word::BEING_CREATED: "yes"}}}));
    assert_eq!(world.run(), ["settle", "erase"]);

    // Another content names the snapshot: it stays for that one.
    let mut world = World::published();
    let other = json!({"spec": {"source": {
        "volumeHandle": null, "snapshotHandle": names::snapshot_name(UID),
    }}});
    world
        .contents
        .push(content("other", "other", other.clone()));
    world.change(leaving());
    assert_eq!(world.run(), ["release", "publish"]);

    // One that was never answered has nothing to erase.
    let mut world = World::published();
    world.contents = vec![content("other", "other", other)];
    world.change(deleted);
    world.change(json!({"spec": {"volumeSnapshotRef": {"uid": ""}}}));
    assert_eq!(world.run(), ["release"]);
    assert!(world.snapshot.is_some());

    // Nothing was taken yet.
    let mut world = World::new();
    world.change(leaving());
    assert_eq!(world.run(), ["release"]);
    // Nobody else's finalizer is waited for.
    let mut world = World::new();
    world.change(leaving());
    world.change(json!({"metadata": {"finalizers": []}}));
    world.shows(expect!["Nothing"]);
}

#[test]
fn a_snapshot_that_vanished_is_made_again() {
    let mut world = World::published();
    (world.snapshot, world.volume) = (None, None);
    world.shows(expect!["create pvc-1 in p1 on n1, adopt true"]);
    world.change(leaving());
    assert_eq!(world.run(), ["create", "erase"]);

    let mut world = World::published();
    world.snapshot = None;
    world.grants.clear();
    world.shows(expect![
        "fail c: no node reports the pool of snapshot snap-0a1b2c3d-0000-4000-8000-000000000001; bring the disk or its node back"
    ]);
    world.change(leaving());
    world.shows(expect!["Nothing"]);
}

#[test]
fn disks_move_and_are_lost() {
    let mut world = World::published();
    let grant = world.grants.get_mut("p1").expect("there");
    grant.node = Some("n2".to_owned());
    assert_eq!(world.run(), ["move"]);
    let grant = world.grants.get_mut("p1").expect("there");
    (grant.node, grant.standing) = (None, Standing::DeclaredLost);
    world.shows(expect!["Nothing"]);
    world.change(leaving());
    assert_eq!(world.run(), ["erase", "unpublish", "drop", "release"]);
}

#[test]
fn what_was_never_published_is_erased() {
    let mut world = World::new();
    world.run();
    world.contents.clear();
    world.shows(expect![[r#"Erase { snapshot: snap-0a1b2c3d-0000-4000-8000-000000000001, proof: NeverPublished("c", "0a1b2c3d-0000-4000-8000-000000000001") }"#]]);
    assert_eq!(world.run(), ["erase"]);
    world.report(SnapshotPhase::Deleted, None);
    assert_eq!(world.run(), ["drop"]);

    let mut world = World::published();
    world.contents.clear();
    world.shows(expect!["Nothing"]);
}

#[test]
fn what_is_wrong_is_published_once() {
    let check = |change: &dyn Fn(&mut World), expected: Expect| {
        let mut world = World::new();
        change(&mut world);
        world.shows(expected);
        assert_eq!(world.run(), ["fail"]);
    };
    check(
        &|w| w.volume = None,
        expect!["fail c: there is no Volume pvc-1 to take a snapshot of"],
    );
    check(
        &|w| w.volume.as_mut().expect("there").spec.claim.namespace = "victim".to_owned(),
        expect![
            "fail c: volume pvc-1 was made for a claim of another namespace, so no snapshot is taken of it here"
        ],
    );
    check(
        &|w| w.volume.as_mut().expect("there").status = None,
        expect!["fail c: volume pvc-1 is not ready, so no snapshot can be taken of it"],
    );
    check(
        &|w| w.grants.clear(),
        expect![
            "fail c: no node reports pool p1, which holds volume pvc-1; bring the disk or its node back"
        ],
    );
    check(
        &|w| w.classes.clear(),
        expect!["fail c: there is no VolumeSnapshotClass berth; create it"],
    );
    check(
        &|w| {
            let given = [
                ("csi.storage.k8s.io/snapshotter-secret-name", "s"),
                ("incremental", "true"),
            ];
            let given = given.map(|(k, v)| (k.to_owned(), v.to_owned()));
            w.classes.insert("berth".to_owned(), given.into());
        },
        expect![[
            r#"fail c: parameter "incremental" of VolumeSnapshotClass berth is not known; snapshots have no parameters"#
        ]],
    );
    check(
        &|w| w.change(json!({"metadata": {"annotations": {word::GROUP_MEMBER: "g"}}})),
        expect!["fail c: group snapshots are not supported; take a VolumeSnapshot of each claim"],
    );
    check(
        &|w| w.change(json!({"spec": {"source": {"volumeHandle": null, "snapshotHandle": "x"}}})),
        expect![
            "fail c: there is no Snapshot snap-0a1b2c3d-0000-4000-8000-000000000001: name one that `kubectl get bsnap` shows"
        ],
    );

    // The agent's word, before and after it was ready.
    let mut world = World::new();
    world.run();
    world.report(SnapshotPhase::Failed, Some("full"));
    world.shows(expect!["fail c: pool p1 on n1: full"]);
    assert_eq!(world.run(), ["fail"]);
    world.report(SnapshotPhase::Ready, None);
    assert_eq!(world.run(), ["publish"]);
    world.report(SnapshotPhase::Failed, Some("no record"));
    world.shows(expect!["fail c: pool p1 on n1: no record"]);
}

#[test]
fn only_contents_of_this_driver_have_a_handle() {
    let of = |change: Value| handle(&content("c", "u", change));
    assert_eq!(of(json!({})).as_deref(), Some("snap-u"));
    assert_eq!(of(json!({"spec": {"driver": "other.example"}})), None);
    let source = json!({"volumeHandle": null, "snapshotHandle": "snap-v"});
    assert_eq!(
        of(json!({"spec": {"source": source}})).as_deref(),
        Some("snap-v")
    );
    assert_eq!(
        of(json!({"spec": {"source": {"volumeHandle": null}}})),
        None
    );
}
