//! What happens to nodes: crash and return, partition, lost and returned disks.

use std::process::Output;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::engine::Kind;
use crate::error::{Error, Result};
use crate::loopdev;
use crate::options::POOLS_DIR;
use crate::wait::wait_for;

impl Cluster {
    /// Ends a node at once, as a crash does. Its page cache is the machine's and survives.
    pub fn kill_node(&self, node: &str) -> Result<()> {
        let node = self.known(node)?;
        self.engine.docker(["kill", &node]).stdout().map(drop)
    }

    /// Starts a killed node; returns when its runtime answers and its network is
    /// set. Use [`Cluster::wait_node_ready`] to wait for its kubelet.
    pub fn start_node(&self, node: &str) -> Result<()> {
        let node = self.known(node)?;
        self.engine.docker(["start", &node]).stdout()?;
        wait_for(
            &format!("the runtime of {node}"),
            Duration::from_secs(120),
            || {
                let answer = self.node_exec(&node, ["ctr", "version"])?;
                Ok(answered(&answer))
            },
        )?;
        self.prepare_node(&node)
    }

    /// Waits until a node's kubelet has been heard of anew and the node is ready.
    ///
    /// A node that has just crashed still counts as ready for a while, so its lease
    /// must have been renewed since this call began (kubelets do so every 10 s).
    pub fn wait_node_ready(&self, node: &str) -> Result<()> {
        let node = self.known(node)?;
        let renewed = || {
            let path = "-o=jsonpath={.spec.renewTime}";
            self.kubectl(["-n", "kube-node-lease", "get", "lease", &node, path])
        };
        let before = renewed()?;
        wait_for(
            &format!("the kubelet of {node}"),
            Duration::from_secs(180),
            || {
                let now = renewed()?;
                Ok(if now == before {
                    Err(format!("last heard of at {now}"))
                } else {
                    Ok(())
                })
            },
        )?;
        self.kubectl([
            "wait",
            "--for=condition=Ready",
            "--timeout=180s",
            "node",
            &node,
        ])
        .map(drop)
    }

    /// Waits until the API server says that a node is not ready.
    pub fn wait_node_lost(&self, node: &str) -> Result<()> {
        let node = self.known(node)?;
        let condition = "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=Unknown";
        self.kubectl(["wait", condition, "--timeout=180s", "node", &node])
            .map(drop)
    }

    /// Takes a node off the network; everything on it runs on.
    pub fn partition(&self, node: &str) -> Result<()> {
        let node = self.known(node)?;
        self.engine
            .docker(["network", "disconnect", &self.instance.network(), &node])
            .stdout()
            .map(drop)
    }

    /// Puts a partitioned node back under its old address.
    pub fn heal(&self, node: &str) -> Result<()> {
        let name = self.known(node)?;
        let network = self.instance.network();
        let known = self.record.nodes.iter().find(|n| n.name == name);
        let address = known.map(|n| n.address.as_str()).ok_or_else(|| {
            Error::Unexpected(format!("the address of {name} was never recorded"))
        })?;
        self.engine
            .docker(["network", "connect", "--ip", address, &network, &name])
            .stdout()?;
        self.prepare_node(&name)
    }

    /// Unmounts a pool in its node, as when a disk is not there after a boot.
    ///
    /// Fails while volumes of it are in use there.
    pub fn unmount_pool(&self, node: &str, pool: &str) -> Result<()> {
        self.node_script(node, &unmount(&pool_path(pool)?))
            .map(drop)
    }

    /// Mounts a pool in its node again after [`Cluster::unmount_pool`].
    pub fn mount_pool(&self, node: &str, pool: &str) -> Result<()> {
        let path = pool_path(pool)?;
        let node = self.known(node)?;
        let file = self.layout.disk(&node, pool);
        let device = loopdev::of_file(&file)?.ok_or_else(|| {
            Error::Unexpected(format!("no loop device is attached to {}", file.display()))
        })?;
        let name = device.display();
        let number = device
            .to_str()
            .and_then(|d| d.strip_prefix("/dev/loop"))
            .ok_or_else(|| Error::Unexpected(format!("{name} is no loop device")))?;
        let disks = self.record.options.disks();
        let known = disks.iter().find(|(name, _)| name == pool);
        let fstype = known.map_or(self.record.options.filesystem, |(_, it)| *it);
        let fstype = fstype.name();
        let script =
            format!("[ -e {name} ] || mknod {name} b 7 {number}; mount -t {fstype} {name} {path}");
        self.node_script(&node, &script).map(drop)
    }

    /// Everything the nodes logged, written below the instance's directory by kind.
    pub fn export_logs(&self) -> Result<std::path::PathBuf> {
        let dir = self.layout.root().join("logs/export");
        crate::run::Run::new(&self.programs.kind)
            .args(["export", "logs", "--name", &self.instance.cluster()])
            .arg(&dir)
            .envs(&self.env())
            .stdout()?;
        Ok(dir)
    }

    /// A few lines for people: nodes, pools, where things are.
    pub fn status(&self) -> Result<String> {
        let engine = match self.record.engine {
            Kind::Machine => "the machine's".to_owned(),
            Kind::Private => format!("private, {}", self.layout.socket().display()),
        };
        let nodes = self.kubectl(["get", "nodes", "-o", "wide"])?;
        Ok(format!(
            "instance    {}\nengine      {engine}\nkubeconfig  {}\npools       {} on each worker, {} of {} GiB, at {POOLS_DIR}\n\n{nodes}",
            self.name(),
            self.kubeconfig().display(),
            self.record.options.pools,
            self.record.options.filesystem.name(),
            self.record.options.pool_bytes / crate::options::GIB,
        ))
    }
}

/// A pool's path in a node; the name must be one that the rig gives.
pub(crate) fn pool_path(pool: &str) -> Result<String> {
    let number = pool
        .strip_prefix("disk")
        .and_then(|n| n.parse::<usize>().ok());
    if number.is_none() {
        return Err(Error::Name {
            what: "pool",
            value: pool.to_owned(),
            rule: "pools are called disk0, disk1, ...",
        });
    }
    Ok(format!("{POOLS_DIR}/{pool}"))
}

fn answered(answer: &Output) -> std::result::Result<(), String> {
    if answer.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&answer.stderr).trim().to_owned())
}

/// Unmounts a pool. Whoever looks at it holds it for an instant, so this is tried again
/// for some seconds, as a person would.
fn unmount(path: &str) -> String {
    format!(
        "for n in $(seq 100); do umount {path} 2>/dev/null && exit 0; sleep 0.1; done; umount {path}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rigs_own_pool_names_reach_a_shell() {
        assert_eq!(pool_path("disk1").unwrap(), "/var/lib/berth/pools/disk1");
        for bad in ["disk", "disk1; rm -rf /", "../x", ""] {
            assert!(pool_path(bad).is_err(), "{bad}");
        }
    }
}
