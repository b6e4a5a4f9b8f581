//! The steps by which a cluster comes to be: disks, engine, nodes, network.

use std::path::Path;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::components::Go;
use crate::engine::{self, Engine, Kind, PoolMount};
use crate::error::{Error, Result};
use crate::kind_config::{self, NodeMount};
use crate::names::{Subnet, free_subnet, networks_in_routes};
use crate::options::{Filesystem, POOLS_DIR};
use crate::paths::{make_dir, write};
use crate::run::Run;
use crate::wait::wait_for;
use crate::{cni, engine_init, limits, node_image, progress};

/// How long nodes may take to register and to become ready.
const NODES_PATIENCE: Duration = Duration::from_secs(240);

impl Cluster {
    /// Makes all of it; the record and the directory are written first.
    pub(crate) fn make(&mut self, go: &Go) -> Result<()> {
        make_dir(&self.layout.root().join("logs"))?;
        self.save_record()?;
        limits::raise()?;
        let pools = progress::step("making the workers' disks", || self.make_disks())?;
        let routes = Run::new("ip")
            .args(["-4", "route", "show", "table", "all"])
            .stdout()?;
        let subnet = free_subnet(self.instance.slot(), &networks_in_routes(&routes))
            .ok_or_else(|| Error::Unexpected("no free subnet below 10.64.0.0/10".to_owned()))?;
        progress::step("starting the engine", || {
            self.start_engine(go, pools, subnet)
        })?;
        progress::step("creating the nodes (kind)", || self.create_nodes())?;
        progress::step("connecting the pods' networks", || self.connect(subnet))?;
        progress::step("waiting for nodes and name service", || self.wait_ready())?;
        self.record.ready = true;
        self.save_record()
    }

    fn make_disks(&self) -> Result<Vec<PoolMount>> {
        let options = &self.record.options;
        let mut pools = Vec::new();
        for worker in &self.record.workers {
            for (disk, filesystem) in options.disks() {
                let file = self.layout.disk(worker, &disk);
                make_disk(&file, options.pool_bytes, filesystem)?;
                let target = self.layout.pool(worker, &disk);
                make_dir(&target)?;
                pools.push(PoolMount {
                    file,
                    target,
                    fstype: filesystem.name().to_owned(),
                });
            }
        }
        Ok(pools)
    }

    fn start_engine(&self, go: &Go, pools: Vec<PoolMount>, subnet: Subnet) -> Result<()> {
        match self.record.engine {
            Kind::Machine => pools.iter().try_for_each(engine_init::mount_pool)?,
            Kind::Private => {
                let data_root = self.layout.data_root();
                clone_tree(&node_image::prepared(go).join("docker"), &data_root)?;
                let link = self.instance.link();
                let cgroup = self.instance.cgroup();
                let link = Some((link.as_str(), subnet));
                engine::start_private(&self.layout, &data_root, &cgroup, pools, link)?;
            }
        }
        self.engine
            .docker([
                "network",
                "create",
                "-d=bridge",
                "--subnet",
                &subnet.nodes(),
            ])
            .args(["-o", "com.docker.network.bridge.enable_ip_masquerade=true"])
            .arg(self.instance.network())
            .stdout()
            .map(drop)
    }

    fn create_nodes(&self) -> Result<()> {
        let mounts: Vec<Vec<NodeMount>> = self
            .record
            .workers
            .iter()
            .map(|worker| {
                let disks = self.record.options.disks();
                disks
                    .iter()
                    .map(|(disk, _)| NodeMount {
                        host: self.layout.pool(worker, disk).display().to_string(),
                        node: format!("{POOLS_DIR}/{disk}"),
                    })
                    .collect()
            })
            .collect();
        let cluster = self.instance.cluster();
        let config = self.layout.root().join("kind.yaml");
        let audit = self
            .audit_log()
            .map(|log| self.make_audit(&log))
            .transpose()?;
        let text = kind_config::render(
            &self.record.options,
            &cluster,
            &self.record.image,
            &mounts,
            audit.as_ref(),
        );
        write(&config, text)?;
        // kind must not go on making nodes when this process is killed.
        Run::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.programs.kind)
            .args(["create", "cluster", "--retain", "--config"])
            .arg(&config)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .envs(&self.env())
            .logged(&self.layout.log("kind"))
    }

    /// The directory where the API server finds its audit policy and puts the log.
    fn make_audit(&self, log: &Path) -> Result<NodeMount> {
        let dir = log.parent().unwrap_or(log);
        make_dir(dir)?;
        write(
            &dir.join(kind_config::AUDIT_POLICY.0),
            kind_config::AUDIT_POLICY.1,
        )?;
        Ok(NodeMount {
            host: dir.display().to_string(),
            node: kind_config::AUDIT_DIR.to_owned(),
        })
    }

    fn connect(&mut self, subnet: Subnet) -> Result<()> {
        if self.record.engine == Kind::Private {
            self.reach_api_server(subnet)?;
        }
        let wanted = self.record.workers.len() + 1;
        self.record.nodes = wait_for("the nodes to register", NODES_PATIENCE, || {
            let list = self.kubectl(["get", "nodes", "-o", "json"])?;
            let list = serde_json::from_str(&list)
                .map_err(|e| Error::Unexpected(format!("kubectl printed no JSON: {e}")))?;
            Ok(cni::nodes(&list).and_then(|nodes| match nodes.len() {
                n if n == wanted => Ok(nodes),
                n => Err(format!("{n} of {wanted} registered")),
            }))
        })?;
        for node in &self.record.nodes {
            let mut copy = self.engine.docker(["exec", "-i", &node.name, "sh", "-c"]);
            copy = copy.arg(format!(
                "mkdir -p /etc/cni/net.d && cat > {}",
                cni::CONFLIST
            ));
            copy.feed(cni::conflist(node).as_bytes())?;
            self.prepare_node(&node.name)?;
        }
        self.save_record()
    }

    /// kind publishes the API server on its engine's localhost; a private engine's
    /// is not ours, so the kubeconfig names the control plane's own address.
    fn reach_api_server(&self, subnet: Subnet) -> Result<()> {
        let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let control_plane = self.control_plane();
        let address = self
            .engine
            .docker(["inspect", "-f", template, control_plane.as_str()])
            .stdout()?;
        let address = address.trim();
        if address.is_empty() {
            return Err(Error::Unexpected(format!(
                "{control_plane} has no address in {}",
                subnet.nodes()
            )));
        }
        self.kubectl([
            "config",
            "set-cluster",
            &format!("kind-{}", self.instance.cluster()),
            &format!("--server=https://{address}:6443"),
        ])
        .map(drop)
    }

    /// What a node needs again after each of its starts.
    pub(crate) fn prepare_node(&self, name: &str) -> Result<()> {
        let routes = cni::routes(name, &self.record.nodes);
        // A node's /dev is a copy of its engine's at its start; volumes may need more loop devices.
        let loops =
            "for n in $(seq 0 63); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done\n";
        self.node_script(name, &format!("{routes}{loops}"))
            .map(drop)
    }

    fn wait_ready(&self) -> Result<()> {
        let patience = format!("--timeout={}s", NODES_PATIENCE.as_secs());
        self.kubectl(["wait", "--for=condition=Ready", "nodes", "--all", &patience])?;
        self.kubectl([
            "-n",
            "kube-system",
            "rollout",
            "status",
            "deployment/coredns",
            &patience,
        ])
        .map(drop)
    }
}

/// A sparse file with a fresh filesystem.
fn make_disk(file: &Path, bytes: u64, filesystem: Filesystem) -> Result<()> {
    write(file, "")?;
    std::fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|f| f.set_len(bytes))
        .map_err(Error::io("cannot size", file))?;
    Run::new(filesystem.make()[0])
        .args(&filesystem.make()[1..])
        .arg(file)
        .envs(Engine::machine().env())
        .stdout()
        .map(drop)
}

/// Copies a prepared data root. Layers are never written to, so their files are
/// shared by hard links; the metadata beside them is copied.
fn clone_tree(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    make_dir(to)?;
    let device = |p: &Path| std::fs::metadata(p).map(|m| m.dev());
    let same = matches!((device(from), device(to)), (Ok(a), Ok(b)) if a == b);
    let listing = std::fs::read_dir(from).map_err(Error::io("cannot list", from))?;
    for entry in listing.flatten() {
        let layers = entry.file_name() == "overlay2";
        let how = if layers && same { "-al" } else { "-a" };
        Run::new("cp").arg(how).arg(entry.path()).arg(to).stdout()?;
    }
    Ok(())
}
