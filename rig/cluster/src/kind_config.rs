//! kind's configuration of a cluster, from plain options.

use std::fmt::Write;

use crate::options::Options;

/// Where the control plane has the audit's policy and log.
pub(crate) const AUDIT_DIR: &str = "/var/log/kubernetes-audit";

/// The log's name in that directory.
pub(crate) const AUDIT_LOG: &str = "audit.log";

/// The policy's name in that directory, and the policy: who wrote what, and whether it
/// was taken. Leases and heartbeats are written whatever else happens.
pub(crate) const AUDIT_POLICY: (&str, &str) = (
    "policy.yaml",
    "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
omitManagedFields: true
rules:
- level: None
  verbs: [get, list, watch]
- level: None
  resources:
  - {group: coordination.k8s.io, resources: [leases]}
  - {group: \"\", resources: [nodes, nodes/status]}
  - {group: authentication.k8s.io}
  - {group: authorization.k8s.io}
- level: Metadata
",
);

/// A mount of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeMount {
    /// On the host.
    pub host: String,
    /// In the node.
    pub node: String,
}

/// The configuration file. `mounts` holds one list per worker, `audit` the directory of
/// the control plane where the API server's audit goes.
///
/// Values are written as JSON, which YAML contains, so that none can break out of its place.
pub(crate) fn render(
    options: &Options,
    cluster: &str,
    image: &str,
    mounts: &[Vec<NodeMount>],
    audit: Option<&NodeMount>,
) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = String::from("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n");
    let mut line = |text: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{text}");
    };
    line(format!("name: {}", quote(cluster)));
    line("networking: {disableDefaultCNI: true}".to_owned());
    if !options.feature_gates.is_empty() {
        let gates: serde_json::Map<_, _> = options
            .feature_gates
            .iter()
            .map(|(name, on)| (name.clone(), (*on).into()))
            .collect();
        line(format!(
            "featureGates: {}",
            serde_json::Value::Object(gates)
        ));
    }
    line("nodes:".to_owned());
    line(format!(
        "- role: control-plane\n  image: {}{}",
        quote(image),
        extra_mounts(audit.map(std::slice::from_ref).unwrap_or_default())
    ));
    for list in mounts {
        line(format!(
            "- role: worker\n  image: {}{}",
            quote(image),
            extra_mounts(list)
        ));
    }
    line("kubeadmConfigPatches:".to_owned());
    line("- |\n  kind: KubeletConfiguration\n  failCgroupV1: false\n  localStorageCapacityIsolation: false".to_owned());
    let mut programs = Vec::new();
    if let Some(controllers) = &options.kcm_controllers {
        let arguments = vec![("controllers", with_joining(controllers))];
        programs.push(("controllerManager", arguments, ""));
    }
    if audit.is_some() {
        let file = |name: &str| format!("{AUDIT_DIR}/{name}");
        let arguments = vec![
            ("audit-policy-file", file(AUDIT_POLICY.0)),
            ("audit-log-path", file(AUDIT_LOG)),
        ];
        programs.push(("apiServer", arguments, "extraVolumes"));
    }
    if !programs.is_empty() {
        line("- |\n  kind: ClusterConfiguration".to_owned());
    }
    for (program, mut arguments, volumes) in programs {
        if !options.feature_gates.is_empty() {
            // The patch replaces kind's own list, so what that held is said again.
            let gates: Vec<_> = options
                .feature_gates
                .iter()
                .map(|(name, on)| format!("{name}={on}"))
                .collect();
            arguments.push(("feature-gates", gates.join(",")));
        }
        line(format!("  {program}:\n    extraArgs:"));
        for (name, value) in arguments {
            line(format!("    - {{name: {name}, value: {}}}", quote(&value)));
        }
        if !volumes.is_empty() {
            line(format!(
                "    {volumes}:\n    - {{name: audit, hostPath: {AUDIT_DIR}, mountPath: {AUDIT_DIR}, pathType: Directory}}"
            ));
        }
    }
    out
}

/// A node's mounts, as lines of its own after the others; nothing where there are none.
fn extra_mounts(list: &[NodeMount]) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let one = |mount: &NodeMount| {
        format!(
            "\n  - {{hostPath: {}, containerPath: {}}}",
            quote(&mount.host),
            quote(&mount.node)
        )
    };
    let all: String = list.iter().map(one).collect();
    match list {
        [] => all,
        _ => format!("\n  extraMounts:{all}"),
    }
}

/// The list with the controllers that nodes need to join, which `*` leaves out:
/// kubeadm names them in its own list, and this one takes that one's place.
pub(crate) fn with_joining(controllers: &str) -> String {
    let mut list: Vec<&str> = controllers.split(',').collect();
    for needed in ["bootstrapsigner", "tokencleaner"] {
        if !list.iter().any(|c| c.trim_start_matches('-') == needed) {
            list.push(needed);
        }
    }
    list.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_carry_their_pools() {
        let mounts = vec![
            vec![NodeMount {
                host: "/s/a \"b".to_owned(),
                node: "/var/lib/berth/pools/disk0".to_owned(),
            }],
            vec![],
        ];
        let text = render(
            &Options::default(),
            "berth-x",
            "berth-node:1",
            &mounts,
            None,
        );
        assert_eq!(text.matches("role: worker").count(), 2);
        assert_eq!(text.matches("extraMounts").count(), 1);
        assert!(text.contains(r#"hostPath: "/s/a \"b""#), "{text}");
        assert!(!text.contains("featureGates") && !text.contains("ClusterConfiguration"));
    }

    #[test]
    fn the_api_server_is_told_where_its_audit_goes() {
        let dir = NodeMount {
            host: "/s/audit".to_owned(),
            node: AUDIT_DIR.to_owned(),
        };
        let options = Options {
            feature_gates: [("Some".to_owned(), true)].into(),
            ..Options::default()
        };
        let text = render(&options, "c", "i", &[], Some(&dir));
        let log = format!("{{name: audit-log-path, value: \"{AUDIT_DIR}/{AUDIT_LOG}\"}}");
        assert!(text.contains(&log), "{text}");
        assert!(text.contains(r#"{name: feature-gates, value: "Some=true"}"#));
        let mount = format!("- {{hostPath: \"/s/audit\", containerPath: \"{AUDIT_DIR}\"}}");
        assert_eq!(text.matches(&mount).count(), 1, "{text}");
        assert!(!text.contains("controllerManager"));
    }

    #[test]
    fn nodes_can_join_whatever_controllers_run() {
        assert_eq!(with_joining("*"), "*,bootstrapsigner,tokencleaner");
        assert_eq!(
            with_joining("*,-tokencleaner"),
            "*,-tokencleaner,bootstrapsigner"
        );
    }

    #[test]
    fn controllers_and_gates_reach_the_controller_manager() {
        let options = Options {
            kcm_controllers: Some("*,-statefulset-controller".to_owned()),
            feature_gates: [("MaxUnavailableStatefulSet".to_owned(), true)].into(),
            ..Options::default()
        };
        let text = render(&options, "c", "i", &[], None);
        assert!(text.contains(r#"{name: controllers, value: "*,-statefulset-controller,bootstrapsigner,tokencleaner"}"#));
        assert!(text.contains(r#"{name: feature-gates, value: "MaxUnavailableStatefulSet=true"}"#));
        assert!(text.contains(r#"featureGates: {"MaxUnavailableStatefulSet":true}"#));
    }
}
