//! A disk that lets no write through, under a running agent: calls on the other disk are
//! served, calls on this one are answered, and another agent takes over although a call of
//! the first one cannot be ended. Needs root, loop devices and fsfreeze.

mod common;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    time::Duration,
};

use berth_agent::{disks::Failure, lanes::Lane, metrics::Operation};
use berth_csi::csi::{
    CapacityRange, CreateVolumeRequest, DeleteVolumeRequest, ListVolumesRequest, ProbeRequest,
    controller_client::ControllerClient, volume_capability::access_mode::Mode,
};
use berth_provisioner::{InitOptions, init_pool, testing::TestNode};
use common::{Agent, Machine, capability, connect};
use tonic::{Code, transport::Channel};

/// As many calls as a node has volumes wait for one disk: few of them take a thread, and
/// those on the other disk are served.
#[tokio::test]
async fn five_hundred_calls_on_one_disk_leave_the_others_served() {
    let machine = Machine::new();
    let _other = machine.node.disk("disk1", 1 << 30);
    let init = init_pool(&machine.node.config(), "disk1", &InitOptions::default());
    let other = init.expect("a pool");
    let agent = Agent::start(&machine).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let (release, gate) = channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let calls: Vec<_> = (0..500)
        .map(|n| {
            let (disks, pool) = (agent.disks.clone(), machine.pool.clone());
            let (begun, gate) = (begun.clone(), gate.clone());
            tokio::spawn(async move {
                let work = move |_: &_| {
                    begun.fetch_add(1, Ordering::SeqCst);
                    // Until the other side is dropped.
                    let _ = gate.lock().expect("no panic").recv();
                    Ok(())
                };
                let (lane, id) = (Lane::Work, format!("stuck-{n}"));
                let operation = Operation::Publish;
                disks
                    .operate_in(Some(&pool), lane, operation, &id, work)
                    .await
            })
        })
        .collect();
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for n in 0..20 {
        let id = format!("v{n}");
        let (pool, want) = (other.clone(), want(&id));
        let work = move |disk: &berth_provisioner::Provisioner| disk.create(&pool, &want);
        let (lane, operation) = (Lane::Work, Operation::Create);
        let made = agent
            .disks
            .operate_in(Some(&other), lane, operation, &id, work);
        made.await.expect("is served");
        let find = {
            let id = id.clone();
            move |disk: &berth_provisioner::Provisioner| disk.find(&id)
        };
        let found = agent.disks.read_of(&id, find).await.expect("is served");
        assert!(found.is_some());
        let erased = agent.disks.operate(Operation::Erase, &id, {
            let id = id.clone();
            move |disk| disk.delete(&id)
        });
        erased.await.expect("is served");
    }
    assert_eq!(agent.disks.rescan().await.expect("looks").len(), 2);
    let stuck = begun.load(Ordering::SeqCst);
    assert!((1..=8).contains(&stuck), "{stuck} threads wait");
    drop(release);
    for call in calls {
        let answer = call.await.expect("no panic");
        assert!(
            matches!(answer, Ok(()) | Err(Failure::Crowded { .. })),
            "{answer:?}"
        );
    }
    agent.stop().await;
}

fn want(id: &str) -> berth_provisioner::VolumeSpec {
    berth_provisioner::VolumeSpec {
        id: id.to_owned(),
        size: 16 << 20,
        claim: None,
        set: None,
        backend: None,
        mode: berth_provisioner::VolumeMode::Filesystem,
        source: None,
        sparse: false,
        incarnation: None,
        expect_existing: false,
    }
}

/// A filesystem that is frozen, and thawed whatever happens to the test.
struct Frozen(PathBuf);

impl Frozen {
    fn new(at: PathBuf) -> Self {
        freeze("-f", &at);
        Self(at)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        freeze("-u", &self.0);
    }
}

fn freeze(how: &str, at: &Path) {
    let done = Command::new("fsfreeze").arg(how).arg(at).status();
    assert!(done.expect("fsfreeze runs").success(), "fsfreeze {how}");
}

/// A standalone agent, killed with the test.
struct Daemon(Child);

impl Daemon {
    fn start(node: &TestNode, socket: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_berth-agent"))
            .args(["run", "--standalone", "--listen-address", "127.0.0.1:0"])
            .arg("--csi-socket")
            .arg(socket)
            .env("BERTH_ROOT", node.root())
            .env("BERTH_KUBELET_DIR", node.kubelet())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("starts"))
    }

    /// Waits for a client of it; starts it anew as kubelet does, as long as it ends.
    async fn client(&mut self, node: &TestNode, socket: &Path) -> ControllerClient<Channel> {
        loop {
            if self.0.try_wait().expect("a child").is_some() {
                *self = Self::start(node, socket);
            }
            // The one before may still listen, and is about to end.
            let stream = tokio::net::UnixStream::connect(socket).await;
            let listener = stream.and_then(|stream| stream.peer_cred());
            let pid = i32::try_from(self.0.id()).ok();
            if listener.is_ok_and(|listener| listener.pid() == pid) {
                return ControllerClient::new(connect(socket).await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.0.id()).expect("a pid");
        let signal = nix::sys::signal::Signal::SIGTERM;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signalled");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn request(name: &str) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: 16 << 20,
            limit_bytes: 0,
        }),
        volume_capabilities: capability(Mode::SingleNodeWriter).into_iter().collect(),
        ..CreateVolumeRequest::default()
    }
}

async fn create(client: &mut ControllerClient<Channel>, name: &str) -> Result<String, Code> {
    let answer = client.create_volume(request(name)).await;
    answer
        .map(|answer| answer.into_inner().volume.expect("a volume").volume_id)
        .map_err(|status| status.code())
}

#[tokio::test]
async fn an_agent_is_replaced_while_a_call_of_it_waits_for_a_frozen_disk() {
    let node = TestNode::new();
    // The emptiest pool gets the volume.
    for (disk, size) in [("disk0", 2 << 30), ("disk1", 1 << 30)] {
        node.disk(disk, size);
        init_pool(&node.config(), disk, &InitOptions::default()).expect("a pool");
    }
    let socket = node.root().with_file_name("csi.sock");
    let mut first = Daemon::start(&node, &socket);
    let mut client = first.client(&node, &socket).await;
    let kept = create(&mut client, "kept").await.expect("is made");

    // Dropped before the daemons, which could not end else.
    let mut second;
    let frozen = Frozen::new(node.pool_dir("disk0"));
    // The caller is not left waiting.
    assert_eq!(create(&mut client, "caught").await, Err(Code::Unavailable));
    let other = create(&mut client, "other")
        .await
        .expect("on the other disk");
    let erase = DeleteVolumeRequest {
        volume_id: kept.clone(),
        ..DeleteVolumeRequest::default()
    };
    let refused = client.delete_volume(erase.clone()).await;
    assert_eq!(
        refused.map_err(|it| it.code()).err(),
        Some(Code::Unavailable)
    );
    let list = client.list_volumes(ListVolumesRequest::default()).await;
    assert!(list.expect("from memory").into_inner().entries.len() >= 2);

    first.terminate();
    drop(client);
    second = Daemon::start(&node, &socket);
    let mut client = second.client(&node, &socket).await;
    // What may lie on the frozen disk is not said to be gone.
    let refused = client.delete_volume(erase.clone()).await;
    assert_eq!(
        refused.map_err(|it| it.code()).err(),
        Some(Code::Unavailable)
    );
    let mut identity = berth_csi::csi::identity_client::IdentityClient::new(connect(&socket).await);
    identity.probe(ProbeRequest {}).await.expect("is served");

    drop(frozen);
    let ended = tokio::task::spawn_blocking(move || first.0.wait()).await;
    assert_eq!(ended.expect("no panic").expect("a child").code(), Some(0));
    // Each is there once, whatever the caught call came to.
    let caught = until_made(&mut client, "caught").await;
    for id in [&kept, &other, &caught] {
        let erase = DeleteVolumeRequest {
            volume_id: id.clone(),
            ..DeleteVolumeRequest::default()
        };
        client.delete_volume(erase).await.expect("is erased");
    }
    let left = client.list_volumes(ListVolumesRequest::default()).await;
    assert!(left.expect("answers").into_inner().entries.is_empty());
    second.terminate();
    let ended = tokio::task::spawn_blocking(move || second.0.wait()).await;
    assert_eq!(ended.expect("no panic").expect("a child").code(), Some(0));
}

async fn until_made(client: &mut ControllerClient<Channel>, name: &str) -> String {
    loop {
        match create(client, name).await {
            Ok(id) => return id,
            Err(code) => assert_eq!(code, Code::Unavailable),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
