//! The decision about claims, in a small model of everything that takes part: scheduler,
//! kube-controller-manager, agents, kubelets, and this controller with its real decisions.

mod controller;
mod explore;
mod stories;
mod world;
