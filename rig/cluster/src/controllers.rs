//! Which of Kubernetes' own controllers run: kube-controller-manager's flags on a
//! cluster that runs, read from its process and changed by its manifest.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::kind_config::with_joining;
use crate::wait::wait_for;

/// The static pod's manifest on the control plane; kubelet runs what stands there.
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-controller-manager.yaml";

/// How long a new process may take to start and to lead: its predecessor's lease
/// runs for 15 s after its end.
const PATIENCE: Duration = Duration::from_secs(180);

impl Cluster {
    /// The command line of the kube-controller-manager that runs, from its process.
    pub fn controller_manager_flags(&self) -> Result<Vec<String>> {
        // The kernel keeps 15 bytes of a program's name.
        let script = "tr '\\0' '\\n' < /proc/$(pgrep -o -x kube-controller)/cmdline";
        let text = self.node_script(&self.control_plane(), script)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Has kube-controller-manager run with these `--controllers`, as at
    /// [`crate::Options::kcm_controllers`]; returns when the new process leads.
    ///
    /// # Errors
    /// When its manifest has no such flag, or the new process does not come to lead.
    pub fn set_controllers(&self, controllers: &str) -> Result<()> {
        let wanted = flag(controllers);
        let node = self.control_plane();
        let manifest = self.node_script(&node, &format!("cat {MANIFEST}"))?;
        let changed = with_controllers(&manifest, controllers).ok_or_else(|| {
            Error::Unexpected(format!(
                "{MANIFEST} of {node} has no --controllers to change"
            ))
        })?;
        let before = self.leader()?;
        if changed == manifest && self.controller_manager_flags()?.contains(&wanted) {
            return Ok(());
        }
        // kubelet must never read half a manifest, nor a second one beside it.
        let write = format!(
            "umask 077; cat > /etc/kubernetes/kcm.new; mv /etc/kubernetes/kcm.new {MANIFEST}"
        );
        self.engine
            .docker(["exec", "-i", &node, "sh", "-ec", &write])
            .feed(changed.as_bytes())?;
        wait_for("kube-controller-manager to lead anew", PATIENCE, || {
            let leader = match self.leader() {
                Ok(leader) if leader == before => return Ok(Err(format!("{leader} leads"))),
                Ok(leader) => leader,
                Err(e) => return Ok(Err(e.to_string())),
            };
            // Between two processes there is none to read.
            Ok(match self.controller_manager_flags() {
                Ok(flags) if flags.contains(&wanted) => Ok(()),
                Ok(flags) => Err(format!("{leader} leads with {}", flags.join(" "))),
                Err(e) => Err(e.to_string()),
            })
        })
    }

    /// Who holds kube-controller-manager's lease; each process has a name of its own.
    fn leader(&self) -> Result<String> {
        self.kubectl([
            "-n",
            "kube-system",
            "get",
            "lease",
            "kube-controller-manager",
            "-o=jsonpath={.spec.holderIdentity}",
        ])
    }
}

fn flag(controllers: &str) -> String {
    format!("--controllers={}", with_joining(controllers))
}

/// The manifest with another list of controllers, if it has one to change.
fn with_controllers(manifest: &str, controllers: &str) -> Option<String> {
    let mut found = false;
    let mut lines: Vec<_> = manifest.lines().map(str::to_owned).collect();
    for line in &mut lines {
        if let Some(at) = line.find("- --controllers=") {
            line.truncate(at);
            line.push_str("- ");
            line.push_str(&flag(controllers));
            found = true;
        }
    }
    found.then(|| lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_list_of_controllers_changes() {
        let manifest = "spec:\n  - command:\n    - kube-controller-manager\n    - --controllers=*,a\n    - --v=2\n";
        let off = with_controllers(manifest, "*,-b").unwrap();
        assert_eq!(
            off,
            "spec:\n  - command:\n    - kube-controller-manager\n    - --controllers=*,-b,bootstrapsigner,tokencleaner\n    - --v=2\n"
        );
        assert_eq!(
            with_controllers(&off, "*,-b").as_deref(),
            Some(off.as_str())
        );
        assert_eq!(with_controllers("spec: {}\n", "*"), None);
    }
}
