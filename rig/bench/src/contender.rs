//! The two controllers that are compared, each a process of its own, so that processor time
//! and memory are those of the one job: upstream's in a kube-controller-manager with nothing
//! else in it, Berth's with the loop of its volumes beside, which has nothing to do here.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;

use crate::objects::Kind;

/// A controller, and the kind of set that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Side {
    /// Kubernetes' own controller, StatefulSets.
    Upstream,
    /// Berth, OrdinalSets.
    Berth,
    /// Berth in native mode, StatefulSets.
    Native,
}

impl Side {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Berth => "berth",
            Self::Native => "native",
        }
    }

    /// The kind of set that it works on.
    pub fn kind(self) -> Kind {
        match self {
            Self::Upstream | Self::Native => Kind::StatefulSet,
            Self::Berth => Kind::OrdinalSet,
        }
    }

    /// Namespace and name of the lease that it leads by.
    pub fn lease(self) -> (&'static str, &'static str) {
        match self {
            Self::Upstream => ("kube-system", "statefulset-controller"),
            Self::Berth | Self::Native => ("berth-system", "berth-controller"),
        }
    }

    /// Its user, as in a cluster: the API server's fairness goes by it.
    pub fn user(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Upstream => ("system:kube-controller-manager", &[]),
            Self::Berth | Self::Native => (
                "system:serviceaccount:berth-system:berth-controller",
                &[
                    "system:serviceaccounts",
                    "system:serviceaccounts:berth-system",
                ],
            ),
        }
    }
}

/// How much the controllers and the scheduler may ask of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Limits {
    /// What they ship with: 20 calls a second for each of kube-controller-manager's
    /// controllers, 50 for the scheduler. Berth has no limit of its own.
    Default,
    /// So many that none is reached.
    Raised,
}

impl Limits {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Raised => "raised",
        }
    }

    /// The flags of kube-scheduler and kube-controller-manager.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Default => &[],
            Self::Raised => &["--kube-api-qps=5000", "--kube-api-burst=10000"],
        }
    }
}

/// How a contender is started.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Which one.
    pub side: Side,
    /// Limits of the whole control plane.
    pub limits: Limits,
    /// Berth's controller, built for release.
    pub controller: PathBuf,
}

impl Contender {
    /// The command, with a kubeconfig of the contender's own user.
    /// `kube_controller_manager` is the program of that name.
    pub fn command(
        &self,
        kube_controller_manager: &Path,
        kubeconfig: &Path,
        health: SocketAddr,
    ) -> Command {
        let (_, lease) = self.side.lease();
        match self.side {
            Side::Upstream => {
                let mut command = Command::new(kube_controller_manager);
                command
                    .arg("--kubeconfig")
                    .arg(kubeconfig)
                    .args(["--controllers=statefulset-controller", "--secure-port=0"])
                    .arg(format!("--leader-elect-resource-name={lease}"))
                    .arg("--feature-gates=MaxUnavailableStatefulSet=true")
                    .args(self.limits.flags());
                command
            }
            Side::Berth | Side::Native => {
                let mut command = Command::new(&self.controller);
                command
                    .arg("run")
                    .arg(format!("--listen-address={health}"))
                    .arg("--identity=bench")
                    .env("KUBECONFIG", kubeconfig);
                if self.side == Side::Native {
                    command.arg("--native-statefulsets");
                }
                command
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_differ_between_limits() {
        let words = |side: Side, limits: Limits| -> Vec<String> {
            let contender = Contender {
                side,
                limits,
                controller: "berth-controller".into(),
            };
            let health = SocketAddr::from(([127, 0, 0, 1], 1));
            let command = contender.command("kcm".as_ref(), "config".as_ref(), health);
            let words = command.get_args();
            words.map(|w| w.to_string_lossy().into_owned()).collect()
        };
        let more = words(Side::Upstream, Limits::Raised).len();
        assert_eq!(more, words(Side::Upstream, Limits::Default).len() + 2);
        for side in [Side::Berth, Side::Native] {
            assert_eq!(words(side, Limits::Raised), words(side, Limits::Default));
        }
        assert_ne!(
            words(Side::Berth, Limits::Raised),
            words(Side::Native, Limits::Raised)
        );
    }
}
