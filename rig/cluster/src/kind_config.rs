//! kind's configuration of a cluster, from plain options.

use std::fmt::Write;

use crate::options::Options;

/// A mount of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeMount {
    /// On the host.
    pub host: String,
    /// In the node.
    pub node: String,
}

/// The configuration file. `mounts` holds one list per worker.
///
/// Values are written as JSON, which YAML contains, so that none can break out of its place.
pub(crate) fn render(
    options: &Options,
    cluster: &str,
    image: &str,
    mounts: &[Vec<NodeMount>],
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
        "- {{role: control-plane, image: {}}}",
        quote(image)
    ));
    for list in mounts {
        line(format!("- role: worker\n  image: {}", quote(image)));
        if !list.is_empty() {
            line("  extraMounts:".to_owned());
        }
        for NodeMount { host, node } in list {
            line(format!(
                "  - {{hostPath: {}, containerPath: {}}}",
                quote(host),
                quote(node)
            ));
        }
    }
    line("kubeadmConfigPatches:".to_owned());
    line("- |\n  kind: KubeletConfiguration\n  failCgroupV1: false\n  localStorageCapacityIsolation: false".to_owned());
    let mut arguments = Vec::new();
    if let Some(controllers) = &options.kcm_controllers {
        arguments.push(("controllers", with_joining(controllers)));
    }
    if !arguments.is_empty() {
        if !options.feature_gates.is_empty() {
            // The patch replaces kind's own list, so what that held is said again.
            let gates: Vec<_> = options
                .feature_gates
                .iter()
                .map(|(name, on)| format!("{name}={on}"))
                .collect();
            arguments.push(("feature-gates", gates.join(",")));
        }
        line("- |\n  kind: ClusterConfiguration\n  controllerManager:\n    extraArgs:".to_owned());
        for (name, value) in arguments {
            line(format!("    - {{name: {name}, value: {}}}", quote(&value)));
        }
    }
    out
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
        let text = render(&Options::default(), "berth-x", "berth-node:1", &mounts);
        assert_eq!(text.matches("role: worker").count(), 2);
        assert_eq!(text.matches("extraMounts").count(), 1);
        assert!(text.contains(r#"hostPath: "/s/a \"b""#), "{text}");
        assert!(!text.contains("featureGates") && !text.contains("ClusterConfiguration"));
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
        let text = render(&options, "c", "i", &[]);
        assert!(text.contains(r#"{name: controllers, value: "*,-statefulset-controller,bootstrapsigner,tokencleaner"}"#));
        assert!(text.contains(r#"{name: feature-gates, value: "MaxUnavailableStatefulSet=true"}"#));
        assert!(text.contains(r#"featureGates: {"MaxUnavailableStatefulSet":true}"#));
    }
}
