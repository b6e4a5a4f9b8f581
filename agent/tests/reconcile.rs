//! The reconcilers against a real btrfs and a small API server. Needs root and
//! loop devices.

mod common;

use std::{fs, path::PathBuf};

use berth_agent::{metrics::Operation, readiness::Readiness, reconcile};
use common::{Agent, Machine, NODE, api::ApiServer};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// An agent with both of its sides.
struct Whole {
    agent: Agent,
    token: CancellationToken,
    tasks: JoinHandle<()>,
}

impl Whole {
    async fn start(machine: &Machine, api: &ApiServer) -> Self {
        let mut agent = Agent::start(machine).await;
        let (_, empty) = tokio::sync::mpsc::channel(1);
        let changes = std::mem::replace(&mut agent.changes, empty);
        let token = CancellationToken::new();
        let (client, node) = (api.client(), agent.disks.clone());
        let known = reconcile::node_storage::known(client.clone(), NODE)
            .await
            .expect("the server answers");
        node.read(move |disk| disk.remember(known))
            .await
            .expect("no panic");
        let stop = token.clone();
        let (store, writer) = kube::runtime::reflector::store();
        let objects = (store.clone(), writer);
        let tasks = tokio::spawn(async move {
            let (api, disks, end) = (client.clone(), node.clone(), stop.clone());
            let volumes = reconcile::volumes::run(api, disks, changes, objects, end);
            let snapshots = reconcile::snapshots::run(client.clone(), node.clone(), stop.clone());
            let readiness = Readiness::default();
            let storage = reconcile::node_storage::run(client, node, store, readiness, stop);
            tokio::join!(volumes, snapshots, storage);
        });
        Self {
            agent,
            token,
            tasks,
        }
    }

    /// Something happened to the pools.
    async fn nudge(&self) {
        self.agent
            .disks
            .operate(Operation::Publish, "none", |_| Ok(()))
            .await
            .expect("does nothing");
    }

    async fn stop(self) {
        self.token.cancel();
        self.tasks.await.expect("no panic");
        self.agent.stop().await;
    }
}

fn volume(machine: &Machine, name: &str, size: &str) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Volume",
        "metadata": {"name": name},
        "spec": {
            "pool": machine.pool.as_str(),
            "node": NODE,
            "size": size,
            // Its files can be read without a mount.
            "backend": "btrfs",
            "claim": {"namespace": "shop", "name": format!("data-{name}"), "uid": name},
        },
    })
}

fn deleted(machine: &Machine, name: &str, size: &str) -> Value {
    let mut volume = volume(machine, name, size);
    volume["spec"]["state"] = json!("Deleted");
    volume
}

fn phase(wanted: &'static str) -> impl Fn(&Value) -> bool {
    move |object| object["status"]["phase"] == wanted
}

fn path(volume: &Value) -> PathBuf {
    volume["status"]["path"]
        .as_str()
        .expect("has a path")
        .into()
}

#[tokio::test]
async fn a_volume_lives_is_forgotten_adopted_erased_and_not_made_again() {
    let machine = Machine::new();
    let api = ApiServer::new();
    let whole = Whole::start(&machine, &api).await;

    api.put("volumes", volume(&machine, "v1", "64Mi"));
    let ready = api.until("volumes", "v1", phase("Ready")).await;
    assert_eq!(ready["status"]["size"], "64Mi");
    assert_eq!(ready["status"]["backend"], "btrfs");
    assert_eq!(ready["status"]["observedGeneration"], 1);
    let file = path(&ready).join("file");
    fs::File::create(&file).expect("writable");

    // The object vanishes: nothing happens to the data. A volume on another node
    // is none of ours.
    api.remove("volumes", "v1");
    let mut elsewhere = volume(&machine, "v2", "64Mi");
    elsewhere["spec"]["node"] = json!("node-2");
    api.put("volumes", elsewhere);
    // Work that comes after both has been done.
    api.put("volumes", volume(&machine, "v3", "1Mi"));
    let small = api.until("volumes", "v3", phase("Ready")).await;
    assert_ne!(small["status"]["size"], "1Mi", "rounded up, and said so");
    assert!(file.exists());
    assert!(
        api.get("volumes", "v2")
            .expect("there")
            .get("status")
            .is_none()
    );

    // Made again by the controller, without a status: adopted, with its data.
    api.put("volumes", volume(&machine, "v1", "64Mi"));
    let adopted = api.until("volumes", "v1", phase("Ready")).await;
    assert_eq!(path(&adopted), path(&ready));
    assert!(file.exists());

    // Grown.
    api.put("volumes", volume(&machine, "v1", "128Mi"));
    api.until("volumes", "v1", |v| v["status"]["size"] == "128Mi")
        .await;

    // Erased on purpose, and not made again under this id.
    api.put("volumes", deleted(&machine, "v1", "128Mi"));
    api.until("volumes", "v1", phase("Deleted")).await;
    assert!(!file.exists());
    api.remove("volumes", "v1");
    api.put("volumes", volume(&machine, "v1", "64Mi"));
    let lost = api.until("volumes", "v1", phase("Lost")).await;
    let message = lost["status"]["message"].as_str().expect("says why");
    assert!(message.contains("erased on purpose"), "{message}");
    assert!(!path_exists(&machine, "v1"));

    // What never was is not adopted, and what is too large is answered.
    let mut adopt = volume(&machine, "v4", "64Mi");
    adopt["spec"]["adopt"] = json!(true);
    api.put("volumes", adopt);
    api.until("volumes", "v4", phase("Lost")).await;
    assert!(!path_exists(&machine, "v4"));
    api.put("volumes", volume(&machine, "v5", "1Ti"));
    api.until("volumes", "v5", phase("NoRoom")).await;
    api.put("volumes", deleted(&machine, "v5", "1Ti"));
    api.until("volumes", "v5", phase("Deleted")).await;

    whole.stop().await;
    let events = api.events();
    for reason in ["ProvisioningSucceeded", "Erased", "DataLost", "NoRoom"] {
        assert!(
            events.iter().any(|event| event == reason),
            "{reason}: {events:?}"
        );
    }
}

fn snapshot(machine: &Machine, name: &str, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Snapshot",
        "metadata": {"name": name},
        "spec": {
            "pool": machine.pool.as_str(),
            "node": NODE,
            "volume": "v1",
            "content": {"name": "c", "uid": name, "namespace": "shop", "snapshot": "s"},
        },
    });
    for (key, value) in spec.as_object().expect("an object") {
        object["spec"][key] = value.clone();
    }
    object
}

#[tokio::test]
async fn a_snapshot_is_taken_once_adopted_and_erased() {
    let machine = Machine::new();
    let api = ApiServer::new();
    let whole = Whole::start(&machine, &api).await;
    let snapshots = machine.node.pool_dir("disk0").join("snapshots");

    // Its volume is not there yet: it fails, and is tried again.
    api.put("snapshots", snapshot(&machine, "s1", &json!({})));
    let early = api.until("snapshots", "s1", phase("Failed")).await;
    let message = early["status"]["message"].as_str().expect("says why");
    assert!(message.contains("no pool on this node holds"), "{message}");
    api.put("volumes", volume(&machine, "v1", "64Mi"));
    let ready = api.until("volumes", "v1", phase("Ready")).await;
    let file = path(&ready).join("file");
    fs::write(&file, "old").expect("writable");
    let taken = api.until("snapshots", "s1", phase("Ready")).await;
    assert_eq!(taken["status"]["size"], "64Mi");
    assert_eq!(taken["status"]["mode"], "Filesystem");
    assert!(taken["status"]["created"].is_string());

    // One that is taken keeps what was there then. An object that vanishes erases
    // nothing, and made again finds it.
    api.put("snapshots", snapshot(&machine, "s2", &json!({})));
    let second = api.until("snapshots", "s2", phase("Ready")).await;
    fs::write(&file, "new").expect("writable");
    let kept = snapshots.join("s2/data/file");
    assert_eq!(fs::read_to_string(&kept).expect("there"), "old");
    api.remove("snapshots", "s2");
    let adopt = json!({"adopt": true});
    api.put("snapshots", snapshot(&machine, "s2", &adopt));
    let again = api.until("snapshots", "s2", phase("Ready")).await;
    assert_eq!(again["status"]["created"], second["status"]["created"]);
    assert_eq!(fs::read_to_string(&kept).expect("there"), "old");

    // Erased on purpose only.
    let deleted = json!({"adopt": true, "state": "Deleted"});
    api.put("snapshots", snapshot(&machine, "s2", &deleted));
    api.until("snapshots", "s2", phase("Deleted")).await;
    assert!(!snapshots.join("s2").exists());

    // Gone behind our back: said, and no other taken in its place.
    let node = &whole.agent.disks;
    node.operate(Operation::EraseSnapshot, "s1", |disk| {
        disk.delete_snapshot("s1")
    })
    .await
    .expect("erased");
    api.put("snapshots", snapshot(&machine, "s1", &json!({})));
    let missed = api.until("snapshots", "s1", phase("Failed")).await;
    let message = missed["status"]["message"].as_str().expect("says why");
    assert!(message.contains("none is taken in its place"), "{message}");
    api.put("snapshots", snapshot(&machine, "s3", &adopt));
    api.until("snapshots", "s3", phase("Failed")).await;
    // On another node.
    let elsewhere = json!({"node": "node-2"});
    api.put("snapshots", snapshot(&machine, "s4", &elsewhere));
    // Work that comes after it has been done.
    api.put("snapshots", snapshot(&machine, "s5", &json!({})));
    api.until("snapshots", "s5", phase("Ready")).await;
    let there = |name: &str| snapshots.join(name).exists();
    assert_eq!(
        ["s1", "s3", "s4", "s5"].map(there),
        [false, false, false, true]
    );
    whole.stop().await;
    let events = api.events();
    for reason in ["SnapshotTaken", "SnapshotFailed", "Unhealthy", "Erased"] {
        assert!(
            events.iter().any(|event| event == reason),
            "{reason}: {events:?}"
        );
    }
}

fn path_exists(machine: &Machine, id: &str) -> bool {
    machine
        .node
        .pool_dir("disk0")
        .join("volumes")
        .join(id)
        .exists()
}

#[tokio::test]
async fn a_mounted_volume_is_reported_and_erased_only_afterwards() {
    let machine = Machine::new();
    let api = ApiServer::new();
    let whole = Whole::start(&machine, &api).await;
    api.put("volumes", volume(&machine, "v1", "64Mi"));
    api.until("volumes", "v1", phase("Ready")).await;

    let node = &whole.agent.disks;
    let target = machine.node.target("pod-a", "v1");
    let publish = berth_provisioner::Publish {
        id: "v1".to_owned(),
        target: target.clone(),
        staging: None,
        mode: berth_provisioner::VolumeMode::Filesystem,
        readonly: false,
        flags: Vec::new(),
        pod_uid: "pod-a".to_owned(),
        pod: String::new(),
        single_writer: false,
    };
    node.operate(Operation::Publish, "v1", move |disk| disk.publish(&publish))
        .await
        .expect("mounts");
    let published = |count| {
        move |volume: &Value| {
            let pods = volume["status"]["published"].as_array();
            pods.map_or(0, Vec::len) == count
        }
    };
    let mounted = api.until("volumes", "v1", published(1)).await;
    assert_eq!(mounted["status"]["published"][0]["podUid"], "pod-a");

    api.put("volumes", deleted(&machine, "v1", "64Mi"));
    let waits = api
        .until("volumes", "v1", |volume| {
            volume["status"]["message"].is_string()
        })
        .await;
    assert_eq!(waits["status"]["phase"], "Ready");
    let message = waits["status"]["message"].as_str().expect("says why");
    assert!(message.contains("pod pod-a has it mounted"), "{message}");
    assert!(path(&waits).exists());

    node.operate(Operation::Unpublish, "v1", move |disk| {
        disk.unpublish("v1", &target)
    })
    .await
    .expect("unmounts");
    let gone = api.until("volumes", "v1", phase("Deleted")).await;
    assert!(published(0)(&gone));
    whole.stop().await;
}

#[tokio::test]
async fn pools_are_reported_and_a_lost_mount_outlives_a_restart() {
    let machine = Machine::new();
    let api = ApiServer::new();
    let whole = Whole::start(&machine, &api).await;
    let health = |wanted: &'static str| {
        move |object: &Value| object["status"]["pools"][0]["health"] == wanted
    };
    let first = api.until("nodestorages", NODE, health("Healthy")).await;
    assert_eq!(first["status"]["pools"][0]["id"], machine.pool.as_str());
    api.put("volumes", volume(&machine, "v1", "64Mi"));
    api.until("volumes", "v1", phase("Ready")).await;
    api.until("nodestorages", NODE, |object| {
        object["status"]["pools"][0]["reserved"] == "64Mi"
    })
    .await;

    let directory = machine.node.pool_dir("disk0");
    machine.disk.unmount(&directory);
    whole.nudge().await;
    api.until("nodestorages", NODE, health("LostMount")).await;
    whole.stop().await;

    // A new agent has never seen the disk.
    let whole = Whole::start(&machine, &api).await;
    whole.nudge().await;
    api.put("volumes", volume(&machine, "v2", "64Mi"));
    let refused = api.until("volumes", "v2", phase("Failed")).await;
    assert!(refused["status"].get("path").is_none());
    let unusable = api.until("volumes", "v1", phase("Failed")).await;
    assert!(
        unusable["status"]["path"].is_string(),
        "what was made stays known"
    );
    assert!(health("LostMount")(
        &api.get("nodestorages", NODE).expect("there")
    ));
    let left = fs::read_dir(&directory).expect("there").count();
    assert_eq!(left, 0, "nothing is written under an empty mount point");

    // A person deletes the object: it is made again, and goes on remembering.
    api.remove("nodestorages", NODE);
    api.until("nodestorages", NODE, health("LostMount")).await;

    machine.disk.mount(&directory, "");
    whole.nudge().await;
    api.until("nodestorages", NODE, health("Healthy")).await;
    for id in ["v1", "v2"] {
        api.until("volumes", id, phase("Ready")).await;
    }

    // Looking again and again writes nothing.
    let writes = api.writes("nodestorages", NODE);
    for _ in 0..5 {
        whole.nudge().await;
    }
    whole.stop().await;
    assert!(api.writes("nodestorages", NODE) <= writes + 1);
}
