//! A control plane: plain processes on loopback, with certificates and tokens of one run.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::symlink,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use berth_cluster::programs::ControlPlanePrograms;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Namespace, Node, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::{
    audit::Writes,
    contender::Contender,
    objects::NAMESPACE,
    process::Process,
    setup::{self, Addresses},
    state::State,
};

/// How long a program may take until it answers. Far more than it needs, so that a machine
/// that is busy with something else is no reason to give up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long all is left alone once a contender leads, so that its caches are filled before
/// it is given anything to do.
const SETTLE: Duration = Duration::from_secs(2);

/// A running control plane with nodes and one contender. Dropping it ends every process
/// and removes its files.
pub struct Plane {
    /// The contender's process; `None` while it is not to run.
    pub contender: Option<Process>,
    others: Vec<Process>,
    // After the processes, so that they end before their files go.
    state: State,
    programs: Programs,
    how: Contender,
    client: Client,
}

/// Kubernetes' programs by their names, which is how the one binary knows what to be.
#[derive(Debug)]
struct Programs {
    dir: PathBuf,
}

impl Programs {
    fn link(state: &State, programs: &ControlPlanePrograms) -> Result<Self> {
        let dir = state.dir().join("bin");
        std::fs::create_dir(&dir).context("cannot make a directory")?;
        for name in [
            "kube-apiserver",
            "kube-scheduler",
            "kube-controller-manager",
        ] {
            symlink(&programs.kubernetes, dir.join(name)).context("cannot make a link")?;
        }
        Ok(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// A free port of loopback. It can be taken by another before it is used; then the program
/// that wanted it ends and says so.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

impl Plane {
    /// Starts everything but the contender, with so many nodes, all of them ready.
    ///
    /// # Errors
    /// A program cannot be started, or ends.
    pub async fn start(
        programs: &ControlPlanePrograms,
        how: Contender,
        nodes: usize,
    ) -> Result<Self> {
        let state = State::make()?;
        let kubernetes = Programs::link(&state, programs)?;
        let addresses = Addresses {
            api: free_address()?,
            etcd: free_address()?,
            etcd_peer: free_address()?,
        };
        setup::write_files(&state, &addresses, how.side)?;
        let etcd = setup::etcd(&state, &programs.etcd, &addresses);
        let api_server = kubernetes.path("kube-apiserver");
        let api_server = setup::api_server(&state, &api_server, &addresses);
        let others = vec![
            Process::start(&state, "etcd", etcd)?,
            Process::start(&state, "kube-apiserver", api_server)?,
        ];
        let client = client(&state).await?;
        let mut plane = Self {
            contender: None,
            others,
            state,
            programs: kubernetes,
            how,
            client,
        };
        plane.wait_for_api().await?;
        plane.prepare(nodes).await?;
        plane.start_others(programs)?;
        plane.wait_for_nodes(nodes).await?;
        Ok(plane)
    }

    /// A client that nothing limits.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The contender's process.
    ///
    /// # Errors
    /// It is not running.
    pub fn contender(&self) -> Result<&Process> {
        self.contender.as_ref().context("no controller is running")
    }

    /// Processor seconds of each process but the contender, by name.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn others_cpu(&self) -> Result<Vec<(String, f64)>> {
        let usage = |p: &Process| Ok((p.name().to_owned(), p.usage()?.cpu));
        self.others.iter().map(usage).collect()
    }

    /// Fails where a process has ended by itself.
    ///
    /// # Errors
    /// One has.
    pub fn check(&mut self) -> Result<()> {
        let all = self.others.iter_mut().chain(&mut self.contender);
        for process in all {
            process.check()?;
        }
        Ok(())
    }

    /// Starts the contender; it does not lead yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_contender(&mut self) -> Result<()> {
        let kubeconfig = self.state.dir().join("contender.kubeconfig");
        let manager = self.programs.path("kube-controller-manager");
        let command = self.how.command(&manager, &kubeconfig, free_address()?);
        let name = format!("contender-{}", self.how.side.name());
        self.contender = Some(Process::start(&self.state, &name, command)?);
        Ok(())
    }

    /// Ends the contender, and its lease with it, so that the next one need not wait.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn stop_contender(&mut self) -> Result<()> {
        self.contender = None;
        let (namespace, name) = self.how.side.lease();
        let leases: Api<Lease> = Api::namespaced(self.client(), namespace);
        leases.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until the contender leads and its caches are filled.
    ///
    /// # Errors
    /// It ends, or never leads.
    pub async fn wait_for_contender(&mut self) -> Result<()> {
        let (client, lease) = (self.client(), self.how.side.lease());
        self.until("the controller to lead", async || {
            leads(&client, lease).await
        })
        .await?;
        tokio::time::sleep(SETTLE).await;
        self.check()
    }

    /// Whether the contender leads.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn contender_leads(&self) -> Result<bool> {
        leads(&self.client, self.how.side.lease()).await
    }

    /// How long the audit log is now: writes from here on are counted from here.
    ///
    /// # Errors
    /// There is none.
    pub fn audit_position(&self) -> Result<u64> {
        Ok(std::fs::metadata(self.audit_log())?.len())
    }

    /// The writes since a position of the audit log.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn writes_since(&self, position: u64) -> Result<Writes> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = std::fs::File::open(self.audit_log()).context("no audit log")?;
        file.seek(SeekFrom::Start(position))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(Writes::count(&text))
    }

    /// Keeps the files of the control plane; answers where they are.
    pub fn keep(self) -> PathBuf {
        let Self {
            contender,
            others,
            state,
            ..
        } = self;
        drop((contender, others));
        state.keep()
    }

    fn audit_log(&self) -> PathBuf {
        self.state.dir().join("audit.log")
    }

    /// Looks until `look` says that it is so.
    async fn until(&mut self, what: &str, look: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.check()?;
            match look().await {
                Ok(true) => return Ok(()),
                Err(error) if begun.elapsed() > PATIENCE => {
                    return Err(error.context(what.to_owned()));
                }
                _ if begun.elapsed() > PATIENCE => bail!("waited in vain for {what}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn wait_for_api(&mut self) -> Result<()> {
        let client = self.client();
        self.until("the API server to be ready", async || {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await? == "ok")
        })
        .await
    }

    /// Namespaces, definitions and nodes.
    async fn prepare(&mut self, nodes: usize) -> Result<()> {
        let (client, post) = (self.client(), PostParams::default());
        let namespaces: Api<Namespace> = Api::all(client.clone());
        for name in [NAMESPACE, "berth-system"] {
            let namespace = json!({"metadata": {"name": name}});
            namespaces
                .create(&post, &serde_json::from_value(namespace)?)
                .await?;
        }
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in berth_api::crds::all() {
            definitions.create(&post, &definition).await?;
        }
        self.until("Berth's kinds to be served", async || {
            let found = definitions.list(&ListParams::default()).await?;
            let served = |definition: CustomResourceDefinition| {
                let conditions = definition.status.and_then(|status| status.conditions);
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|c| c.type_ == "Established" && c.status == "True")
            };
            Ok(found.items.into_iter().all(served))
        })
        .await?;
        let api: Api<Node> = Api::all(client);
        let made = stream::iter((0..nodes).map(node)).map(|node| {
            let (api, post) = (&api, &post);
            async move { anyhow::Ok(api.create(post, &serde_json::from_value(node)?).await?) }
        });
        let made: Vec<Node> = made.buffer_unordered(16).try_collect().await?;
        ensure!(made.len() == nodes, "not every node was made");
        Ok(())
    }

    fn start_others(&mut self, programs: &ControlPlanePrograms) -> Result<()> {
        let (state, limits) = (&self.state, self.how.limits);
        let scheduler = self.programs.path("kube-scheduler");
        let scheduler = setup::scheduler(state, &scheduler, limits);
        let manager = self.programs.path("kube-controller-manager");
        let manager = setup::rest_of_controllers(state, &manager, limits);
        let kwok = setup::kwok(state, &programs.kwok, &programs.kwok_stages);
        for (name, command) in [
            ("kube-scheduler", scheduler),
            ("kube-controller-manager", manager),
            ("kwok", kwok),
        ] {
            let process = Process::start(&self.state, name, command)?;
            self.others.push(process);
        }
        Ok(())
    }

    async fn wait_for_nodes(&mut self, nodes: usize) -> Result<()> {
        let api: Api<Node> = Api::all(self.client());
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), NAMESPACE);
        self.until("the nodes to be ready", async || {
            let found = api.list(&ListParams::default()).await?;
            let is_usable = |node: &Node| {
                let conditions = node
                    .status
                    .iter()
                    .flat_map(|s| s.conditions.iter().flatten());
                let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
                conditions
                    .into_iter()
                    .any(|c| c.type_ == "Ready" && c.status == "True")
                    && taints.count() == 0
            };
            let usable = found.items.iter().filter(|node| is_usable(node)).count();
            // Pods are refused before their namespace has its account.
            Ok(usable == nodes && accounts.get_opt("default").await?.is_some())
        })
        .await
    }
}

async fn client(state: &State) -> Result<Client> {
    let file = state.dir().join("bench.kubeconfig");
    let kubeconfig = Kubeconfig::read_from(&file).context("cannot read the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Whether somebody holds a lease.
async fn leads(client: &Client, (namespace, name): (&str, &str)) -> Result<bool> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let spec = leases.get_opt(name).await?.and_then(|lease| lease.spec);
    let holder = spec.and_then(|spec| spec.holder_identity);
    Ok(holder.is_some_and(|holder| !holder.is_empty()))
}

fn node(number: usize) -> Value {
    let name = format!("node-{number}");
    json!({"metadata": {
        "name": name,
        "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
    }})
}
