//! What the tests of the agent share: a node with a real disk, the agent's
//! services on real sockets, and clients as kubelet is one.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod api;

use std::path::{Path, PathBuf};

use berth_agent::{
    csi::server,
    disks::Disks,
    metrics::{Metrics, Operation},
    readiness::Readiness,
    run,
};
use berth_csi::csi::{
    VolumeCapability,
    controller_client::ControllerClient,
    identity_client::IdentityClient,
    node_client::NodeClient,
    volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
};
use berth_provisioner::{
    Backend, ClaimRef, InitOptions, PoolId, Provisioner, SetRef, VolumeMode, VolumeReport,
    VolumeSpec, init_pool,
    testing::{LoopPool, TestNode},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub const NODE: &str = "node-1";

/// Connects to a Unix socket.
pub async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await
        .expect("the agent listens")
}

/// A node with one btrfs of 1 GiB that is a pool.
pub struct Machine {
    pub node: TestNode,
    pub disk: LoopPool,
    pub pool: PoolId,
}

impl Machine {
    pub fn new() -> Self {
        let node = TestNode::new();
        let disk = node.disk("disk0", 1 << 30);
        let pool = init_pool(&node.config(), "disk0", &InitOptions::default()).expect("a pool");
        Self { node, disk, pool }
    }

    pub fn socket(&self) -> PathBuf {
        self.node.kubelet().join("plugins/csi.berth.dev/csi.sock")
    }

    /// Kubelet makes staging directories itself.
    pub fn staging(&self, id: &str) -> String {
        let path = self
            .node
            .kubelet()
            .join("plugins/kubernetes.io/csi/csi.berth.dev")
            .join(id)
            .join("globalmount");
        std::fs::create_dir_all(&path).expect("made");
        path.to_str().expect("text").to_owned()
    }

    pub fn target(&self, pod: &str, id: &str) -> String {
        let path = self.node.target(pod, id);
        path.to_str().expect("text").to_owned()
    }
}

/// A running agent without its API side.
pub struct Agent {
    pub disks: Disks,
    pub changes: mpsc::Receiver<String>,
    token: CancellationToken,
    server: JoinHandle<anyhow::Result<()>>,
}

impl Agent {
    pub async fn start(machine: &Machine) -> Self {
        let config = machine.node.config();
        let provisioner = tokio::task::spawn_blocking(move || Provisioner::open(config))
            .await
            .expect("no panic")
            .expect("opens");
        let metrics = Metrics::new(&mut berth_telemetry::registry());
        let (disks, changes) = Disks::new(NODE, provisioner, metrics);
        let readiness = Readiness::default();
        readiness.set_pools_open();
        let token = CancellationToken::new();
        let incoming = server::listen(&machine.socket()).expect("listens");
        let server = tokio::spawn(run::serve_csi(
            incoming,
            disks.clone(),
            None,
            readiness,
            token.clone(),
        ));
        Self {
            disks,
            changes,
            token,
            server,
        }
    }

    /// Stops as on SIGTERM, and releases the disks.
    pub async fn stop(self) {
        self.token.cancel();
        self.server.await.expect("no panic").expect("ends well");
        drop(self.changes);
        tokio::task::spawn_blocking(|| drop(self.disks))
            .await
            .expect("no panic");
    }

    pub async fn create(&self, machine: &Machine, id: &str, set: bool) -> VolumeReport {
        let pool = machine.pool.clone();
        let want = VolumeSpec {
            id: id.to_owned(),
            size: 64 << 20,
            claim: Some(ClaimRef {
                namespace: "shop".to_owned(),
                name: format!("data-{id}"),
                // As of a claim of the cluster: not the volume's id.
                uid: format!("uid-{id}"),
            }),
            set: set.then(|| SetRef {
                kind: "OrdinalSet".to_owned(),
                name: "web".to_owned(),
                ordinal: 0,
            }),
            // Its files can be read without a mount.
            backend: Some(Backend::Btrfs),
            mode: VolumeMode::Filesystem,
            source: None,
            sparse: false,
            incarnation: None,
            expect_existing: false,
        };
        self.disks
            .operate(Operation::Create, id, move |disk| disk.create(&pool, &want))
            .await
            .expect("there is room")
    }
}

pub async fn node_client(machine: &Machine) -> NodeClient<Channel> {
    NodeClient::new(connect(&machine.socket()).await)
}

pub async fn controller_client(machine: &Machine) -> ControllerClient<Channel> {
    ControllerClient::new(connect(&machine.socket()).await)
}

pub async fn identity_client(machine: &Machine) -> IdentityClient<Channel> {
    IdentityClient::new(connect(&machine.socket()).await)
}

pub fn capability(mode: Mode) -> Option<VolumeCapability> {
    Some(VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    })
}
