//! The program itself: the daemon is killed and started again under a mounted
//! volume, and people use the command line beside it. Needs root and loop devices.

mod common;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use berth_csi::{
    csi::{
        NodeGetInfoRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
        node_client::NodeClient, volume_capability::access_mode::Mode,
    },
    registration::{InfoRequest, RegistrationStatus, registration_client::RegistrationClient},
};
use berth_provisioner::testing::TestNode;
use common::{Agent, Machine, capability, connect, node_client};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_berth-agent");

/// The daemon, with an API server that nobody can reach: kubelet must be served
/// all the same. Killed with the test.
struct Daemon {
    child: Child,
}

impl Daemon {
    fn start(node: &TestNode) -> Self {
        let kubeconfig = node.root().join("../kubeconfig");
        let text = "{apiVersion: v1, kind: Config, current-context: c, \
             contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u}], \
             clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}";
        std::io::Write::write_all(
            &mut fs::File::create(&kubeconfig).expect("made"),
            text.as_bytes(),
        )
        .expect("written");
        let child = Command::new(PROGRAM)
            .arg("run")
            .args(["--node-name", common::NODE])
            .args(["--shared-pool", "shared=1Gi"])
            .args(["--listen-address", "127.0.0.1:0"])
            .arg("--root")
            .arg(node.root())
            .arg("--kubelet-dir")
            .arg(node.kubelet())
            .env("KUBECONFIG", &kubeconfig)
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        Self { child }
    }

    /// Waits until it answers on a socket; the former daemon's may still be there.
    async fn until_listening(&mut self, socket: &Path) {
        loop {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the daemon ended: {ended:?}");
            if tokio::net::UnixStream::connect(socket).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("a child");
    }

    /// Stops it as kubelet does, and gives its exit code.
    async fn terminate(self) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGTERM,
        )
        .expect("signalled");
        self.ended().await
    }

    /// Waits for its end elsewhere: clients of the test's own have to answer while
    /// it closes their connections.
    async fn ended(mut self) -> Option<i32> {
        tokio::task::spawn_blocking(move || self.child.wait())
            .await
            .expect("no panic")
            .expect("a child")
            .code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cli(node: &TestNode, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .env("BERTH_ROOT", node.root())
        .env("BERTH_KUBELET_DIR", node.kubelet())
        .output()
        .expect("runs")
}

fn json(node: &TestNode, arguments: &[&str]) -> Value {
    let output = cli(node, &[arguments, &["--output", "json"]].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn the_daemon_is_killed_and_started_again_under_a_mounted_volume() {
    let machine = Machine::new();
    let agent = Agent::start(&machine).await;
    agent.create(&machine, "v1", true).await;
    agent.stop().await;

    let registration = berth_agent::registration::socket(&machine.node.kubelet());
    let mut daemon = Daemon::start(&machine.node);
    daemon.until_listening(&registration).await;
    let mut client = node_client(&machine).await;
    client
        .node_stage_volume(NodeStageVolumeRequest {
            volume_id: "v1".to_owned(),
            staging_target_path: machine.staging("v1"),
            volume_capability: capability(Mode::SingleNodeSingleWriter),
            ..NodeStageVolumeRequest::default()
        })
        .await
        .expect("stages");
    let publish = NodePublishVolumeRequest {
        volume_id: "v1".to_owned(),
        staging_target_path: machine.staging("v1"),
        target_path: machine.target("pod-a", "v1"),
        volume_capability: capability(Mode::SingleNodeSingleWriter),
        ..NodePublishVolumeRequest::default()
    };
    client
        .node_publish_volume(publish.clone())
        .await
        .expect("publishes");
    let file = Path::new(&publish.target_path).join("file");
    fs::File::create(&file).expect("writable");

    // A second agent is refused while the first one lives, and changes nothing.
    let second = cli(
        &machine.node,
        &[
            "run",
            "--node-name",
            "n2",
            "--listen-address",
            "127.0.0.1:0",
        ],
    );
    assert_eq!(second.status.code(), Some(2));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use by another agent"), "{said}");
    // The API has not told yet which pools this node had: none is made.
    assert!(!machine.node.pool_dir("shared").exists());

    daemon.kill();
    assert!(file.exists(), "mounted without an agent");
    let mut daemon = Daemon::start(&machine.node);
    daemon.until_listening(&registration).await;
    let mut client = node_client(&machine).await;
    client
        .node_publish_volume(publish)
        .await
        .expect("publishing again changes nothing");
    assert!(file.exists());
    let info = client
        .node_get_info(NodeGetInfoRequest {})
        .await
        .expect("answers")
        .into_inner();
    assert_eq!(info.node_id, common::NODE);

    // The copy on the host is this program.
    let copy = machine.node.root().join("bin/berth-agent");
    let size = |path: &Path| fs::metadata(path).expect("there").len();
    assert_eq!(size(&copy), size(Path::new(PROGRAM)));

    assert_eq!(daemon.terminate().await, Some(0));
    assert!(file.exists(), "volumes stay mounted");
    assert!(registration.exists(), "kubelet goes on knowing the driver");

    // A refused registration ends the program, so that the next start tries anew.
    let mut daemon = Daemon::start(&machine.node);
    daemon.until_listening(&registration).await;
    let mut kubelet = RegistrationClient::new(connect(&registration).await);
    kubelet.get_info(InfoRequest {}).await.expect("answers");
    let _ = kubelet
        .notify_registration_status(RegistrationStatus {
            plugin_registered: false,
            error: "refused".to_owned(),
        })
        .await;
    assert_eq!(daemon.ended().await, Some(2));
}

#[tokio::test]
async fn people_make_pools_and_look_at_volumes_beside_the_agent() {
    let machine = Machine::new();
    let node = &machine.node;
    let _second = node.disk("disk1", 1 << 30);
    let agent = Agent::start(&machine).await;

    let pools = json(node, &["pools"]);
    let health = |pools: &Value| -> Vec<String> {
        let pools = pools.as_array().expect("a list");
        pools
            .iter()
            .map(|pool| pool["health"]["state"].as_str().expect("text").to_owned())
            .collect()
    };
    assert_eq!(health(&pools), ["healthy", "uninitialized"]);
    let made = json(node, &["pools", "init", "--all", "--capacity", "512Mi"]);
    assert_eq!(made[0]["dir"], "disk1");
    assert_eq!(made[0]["capacity"], 512 << 20);
    assert_eq!(health(&json(node, &["pools"])), ["healthy", "healthy"]);
    // The running agent sees it at its next look.
    let seen = agent.disks.rescan().await.expect("looks");
    assert_eq!(seen.len(), 2);
    let again = cli(node, &["pools", "init", "disk1"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    let none = cli(node, &["pools", "init", "--all"]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");

    let report = agent.create(&machine, "v1", true).await;
    let volumes = json(node, &["volumes"]);
    assert_eq!(volumes[0]["id"], "v1");
    assert_eq!(volumes[0]["set"]["ordinal"], 0);
    let table = String::from_utf8(cli(node, &["volumes"]).stdout).expect("text");
    let path = report.path.to_str().expect("text");
    assert!(table.starts_with("SET"), "{table}");
    assert!(
        table.contains("shop/data-v1") && table.contains(path),
        "{table}"
    );
    for name in ["v1", "shop/data-v1"] {
        assert_eq!(json(node, &["inspect", name])["id"], "v1");
    }
    assert_eq!(cli(node, &["inspect", "v2"]).status.code(), Some(2));

    for kubelet in [node.kubelet(), node.root().join("no kubelet here")] {
        let kubelet = kubelet.to_str().expect("text");
        let clean = cli(node, &["check", "--kubelet-dir", kubelet]);
        assert_eq!(clean.status.code(), Some(0), "{clean:?}");
    }
    fs::create_dir(node.pool_dir("disk0").join("volumes/notes")).expect("made");
    let found = cli(node, &["check"]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(String::from_utf8_lossy(&found.stdout).contains("volumes/notes"));
    assert!(node.pool_dir("disk0").join("volumes/notes").exists());
    agent.stop().await;
}

#[tokio::test]
async fn a_standalone_agent_needs_no_api_server_and_is_alone_on_its_root() {
    let machine = Machine::new();
    let socket = machine.node.root().with_file_name("csi.sock");
    let run = |socket: &Path| {
        let mut command = Command::new(PROGRAM);
        command
            .args(["run", "--standalone", "--listen-address", "127.0.0.1:0"])
            .arg("--csi-socket")
            .arg(socket)
            .env("BERTH_ROOT", machine.node.root())
            .env("BERTH_KUBELET_DIR", machine.node.kubelet())
            .env_remove("NODE_NAME")
            .env("KUBECONFIG", "/nothing/here");
        command
    };
    let child = run(&socket).stderr(Stdio::null()).spawn().expect("starts");
    let mut daemon = Daemon { child };
    daemon.until_listening(&socket).await;
    let mut client = NodeClient::new(connect(&socket).await);
    let info = client.node_get_info(NodeGetInfoRequest {}).await;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("reads");
    assert_eq!(info.expect("answers").into_inner().node_id, host.trim());
    drop(client);

    // Another one on the same root ends, though it would listen elsewhere.
    let other = machine.node.root().with_file_name("other.sock");
    let second = run(&other).output().expect("runs");
    assert_eq!(second.status.code(), Some(2), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use by another agent"), "{said}");
    assert!(!other.exists());

    // Without --standalone a node has to be named.
    let nameless = Command::new(PROGRAM)
        .arg("run")
        .env_remove("NODE_NAME")
        .output()
        .expect("runs");
    assert_eq!(nameless.status.code(), Some(2));
    let said = String::from_utf8_lossy(&nameless.stderr).into_owned();
    assert!(said.contains("--node-name"), "{said}");

    assert_eq!(daemon.terminate().await, Some(0));
    assert!(
        !machine.node.root().join("bin").exists(),
        "no copy of the program"
    );
    let registration = berth_agent::registration::socket(&machine.node.kubelet());
    assert!(!registration.exists(), "kubelet is not told");
}
