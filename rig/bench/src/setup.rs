//! What a control plane is started with: keys, tokens, kubeconfigs, command lines.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};

use crate::{
    audit::{self, CONTENDER},
    contender::{Limits, Side},
    state::State,
};

/// The users of the control plane beside the contender: the name of their files, the user,
/// its groups. The users are those of a real cluster, since the API server's fairness goes
/// by them.
const USERS: [(&str, &str, &[&str]); 4] = [
    ("bench", "bench", &["system:masters"]),
    ("rest", "system:kube-controller-manager", &[]),
    ("scheduler", "system:kube-scheduler", &[]),
    ("kwok", "system:node:kwok", &["system:nodes"]),
];

/// kwok's own limits are far above what pods need, so that the nodes are never what is
/// waited for: by default it plays four pods at a time. Where it has a file, it completes
/// nothing in it, so what must not be 0 stands here too.
const KWOK: &str = r#"{
  "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
  "kind": "KwokConfiguration",
  "options": {
    "podPlayStageParallelism": 32,
    "nodePlayStageParallelism": 16,
    "nodeLeaseParallelism": 4,
    "podsOnNodeSyncParallelism": 4
  }
}"#;

/// Where the processes of a control plane listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) api: SocketAddr,
    pub(crate) etcd: SocketAddr,
    pub(crate) etcd_peer: SocketAddr,
}

/// Writes every file that the processes read.
pub(crate) fn write_files(state: &State, addresses: &Addresses, side: Side) -> Result<()> {
    certificates(state)?;
    state.write("audit-policy.yaml", audit::POLICY)?;
    state.write("kwok.yaml", KWOK)?;
    let (user, groups) = side.user();
    let contender: Vec<&str> = groups.iter().copied().chain([CONTENDER]).collect();
    let contender = ("contender", user, contender.as_slice());
    let mut tokens = String::new();
    for (name, user, groups) in USERS.into_iter().chain([contender]) {
        let token = KeyPair::generate().context("no randomness")?;
        // A public key is as hard to guess as anything, and no secret of another use.
        let token: String = token.public_key_raw()[1..33]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        tokens += &format!("{token},{user},{name},\"{}\"\n", groups.join(","));
        let config = kubeconfig(state.dir(), addresses.api, &token);
        state.write(&format!("{name}.kubeconfig"), config.to_string())?;
    }
    state.write("tokens.csv", tokens)?;
    Ok(())
}

/// An authority, the API server's certificate, and the key of service accounts.
fn certificates(state: &State) -> Result<()> {
    let make = || -> std::result::Result<_, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::new([])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_text = authority.self_signed(&key)?.pem();
        let issuer = Issuer::new(authority, key);
        let server_key = KeyPair::generate()?;
        let mut server = CertificateParams::new(["localhost".to_owned()])?;
        let loopback = SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
        server.subject_alt_names.push(loopback);
        let server = server.signed_by(&server_key, &issuer)?.pem();
        Ok((authority_text, server, server_key, KeyPair::generate()?))
    };
    let (authority, server, server_key, accounts) = make().context("cannot make certificates")?;
    state.write("ca.crt", authority)?;
    state.write("server.crt", server)?;
    state.write("server.key", server_key.serialize_pem())?;
    state.write("accounts.key", accounts.serialize_pem())?;
    state.write("accounts.pub", accounts.public_key_pem())?;
    Ok(())
}

fn kubeconfig(dir: &Path, api: SocketAddr, token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {
            "server": format!("https://{api}"),
            "certificate-authority": dir.join("ca.crt"),
        }}],
        "users": [{"name": "bench", "user": {"token": token}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    })
}

/// etcd, which syncs nothing to the disk: what is measured is not the disk.
pub(crate) fn etcd(state: &State, program: &Path, addresses: &Addresses) -> Command {
    let Addresses {
        etcd, etcd_peer, ..
    } = addresses;
    let mut command = Command::new(program);
    command
        .arg("--data-dir")
        .arg(state.dir().join("etcd"))
        .args(["--name=bench", "--unsafe-no-fsync", "--log-level=error"])
        .args(["--quota-backend-bytes=8589934592"])
        .arg(format!("--listen-client-urls=http://{etcd}"))
        .arg(format!("--advertise-client-urls=http://{etcd}"))
        .arg(format!("--listen-peer-urls=http://{etcd_peer}"))
        .arg(format!("--initial-advertise-peer-urls=http://{etcd_peer}"))
        .arg(format!("--initial-cluster=bench=http://{etcd_peer}"));
    command
}

/// The API server, with everything at its defaults but who may do what.
pub(crate) fn api_server(state: &State, program: &Path, addresses: &Addresses) -> Command {
    let file = |flag: &str, name: &str| format!("--{flag}={}", state.dir().join(name).display());
    let Addresses { api, etcd, .. } = addresses;
    let mut command = Command::new(program);
    command
        .arg(format!("--etcd-servers=http://{etcd}"))
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
        .arg(format!("--secure-port={}", api.port()))
        .args([
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=AlwaysAllow",
            "--feature-gates=MaxUnavailableStatefulSet=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--endpoint-reconciler-type=none",
        ])
        .arg(file("tls-cert-file", "server.crt"))
        .arg(file("tls-private-key-file", "server.key"))
        .arg(file("token-auth-file", "tokens.csv"))
        .arg(file("service-account-signing-key-file", "accounts.key"))
        .arg(file("service-account-key-file", "accounts.pub"))
        .arg(file("audit-policy-file", "audit-policy.yaml"))
        .arg(file("audit-log-path", "audit.log"))
        .arg("--audit-log-maxsize=100000");
    command
}

/// The scheduler.
pub(crate) fn scheduler(state: &State, program: &Path, limits: Limits) -> Command {
    let mut command = Command::new(program);
    command
        .arg("--kubeconfig")
        .arg(state.dir().join("scheduler.kubeconfig"))
        .args(["--leader-elect=false", "--secure-port=0"])
        .args(limits.flags());
    command
}

/// kube-controller-manager with everything but the StatefulSet controller.
pub(crate) fn rest_of_controllers(state: &State, program: &Path, limits: Limits) -> Command {
    let mut command = Command::new(program);
    command
        .arg("--kubeconfig")
        .arg(state.dir().join("rest.kubeconfig"))
        .arg("--controllers=*,-statefulset-controller")
        .args(["--leader-elect=false", "--secure-port=0", "--root-ca-file"])
        .arg(state.dir().join("ca.crt"))
        .args(limits.flags());
    command
}

/// kwok, which plays every node and the pods on it.
pub(crate) fn kwok(state: &State, program: &Path, stages: &[impl AsRef<Path>]) -> Command {
    let mut command = Command::new(program);
    command
        .arg("--kubeconfig")
        .arg(state.dir().join("kwok.kubeconfig"))
        .args([
            "--manage-all-nodes=true",
            "--node-lease-duration-seconds=40",
        ])
        .args(["--node-ip=127.0.0.1", "--v=ERROR", "--config"])
        .arg(state.dir().join("kwok.yaml"));
    for stage in stages {
        command.arg("--config").arg(stage.as_ref());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_finds_its_files_and_only_the_contender_is_marked() {
        let state = State::make().expect("a directory");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let addresses = Addresses {
            api: address,
            etcd: address,
            etcd_peer: address,
        };
        write_files(&state, &addresses, Side::Berth).expect("written");
        let tokens = std::fs::read_to_string(state.dir().join("tokens.csv")).expect("there");
        let marked: Vec<_> = tokens.lines().filter(|l| l.contains(CONTENDER)).collect();
        assert_eq!((tokens.lines().count(), marked.len()), (5, 1), "{tokens}");
        for line in tokens.lines() {
            let fields: Vec<_> = line.splitn(4, ',').collect();
            let config = format!("{}.kubeconfig", fields[2]);
            let config = std::fs::read_to_string(state.dir().join(config)).expect("there");
            assert!(config.contains(fields[0]), "{line}");
        }
        let command = api_server(&state, "x".as_ref(), &addresses);
        let files = command.get_args().filter_map(|word| {
            let word = word.to_str()?;
            let (flag, file) = word.split_once('=')?;
            (flag.ends_with("-file")).then(|| file.to_owned())
        });
        let files: Vec<_> = files.collect();
        assert_eq!(files.len(), 6);
        assert!(files.iter().all(|f| Path::new(f).is_file()), "{files:?}");
    }
}
