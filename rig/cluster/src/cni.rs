//! The pods' network: one subnet per node behind point-to-point links, and a
//! route on each node to every other node's subnet.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where a node's runtime looks for its network configuration.
pub(crate) const CONFLIST: &str = "/etc/cni/net.d/10-berth-rig.conflist";

/// A node as the network sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// Its name.
    pub name: String,
    /// Its own address.
    pub address: String,
    /// Its pods' subnet.
    pub pods: String,
}

/// The nodes in the API server's list, or what is still missing.
pub(crate) fn nodes(list: &Value) -> Result<Vec<Node>, String> {
    let items = list["items"].as_array().ok_or("the answer has no items")?;
    items.iter().map(node).collect()
}

fn node(object: &Value) -> Result<Node, String> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let pods = object["spec"]["podCIDR"]
        .as_str()
        .ok_or_else(|| format!("{name} has no pod subnet yet"))?;
    let address = object["status"]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|a| a["type"] == "InternalIP")
        .and_then(|a| a["address"].as_str())
        .ok_or_else(|| format!("{name} has no address yet"))?;
    Ok(Node {
        name: name.to_owned(),
        address: address.to_owned(),
        pods: pods.to_owned(),
    })
}

/// A node's network configuration.
pub(crate) fn conflist(node: &Node) -> String {
    json!({
        "cniVersion": "0.4.0",
        "name": "berth-rig",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    // On the node's /run: leases of pods that a crash ended end with it.
                    "dataDir": "/run/cni-ipam-state",
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": node.pods}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

/// The script that sets, on `name`, the routes to every other node.
pub(crate) fn routes(name: &str, nodes: &[Node]) -> String {
    nodes
        .iter()
        .filter(|n| n.name != name)
        .map(|n| format!("ip route replace {} via {}\n", n.pods, n.address))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<Node> {
        let list = json!({"items": [
            {"metadata": {"name": "a"}, "spec": {"podCIDR": "10.244.0.0/24"},
             "status": {"addresses": [{"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "10.64.0.2"}]}},
            {"metadata": {"name": "b"}, "spec": {"podCIDR": "10.244.1.0/24"},
             "status": {"addresses": [{"type": "InternalIP", "address": "10.64.0.3"}]}}]});
        nodes(&list).unwrap()
    }

    #[test]
    fn routes_lead_to_the_others() {
        assert_eq!(
            routes("a", &two()),
            "ip route replace 10.244.1.0/24 via 10.64.0.3\n"
        );
    }

    #[test]
    fn a_node_without_a_subnet_is_waited_for() {
        let list = json!({"items": [{"metadata": {"name": "a"}, "spec": {}, "status": {}}]});
        assert!(nodes(&list).unwrap_err().contains("a has no pod subnet"));
    }

    #[test]
    fn pods_get_addresses_of_their_node() {
        assert!(conflist(&two()[1]).contains(r#"[[{"subnet":"10.244.1.0/24"}]]"#));
    }
}
