//! The controller: watches the cluster, asks `berth-plan` what to do, and does it.
//!
//! Decisions are pure and live in `berth-plan`; here are the thin shells: one
//! loop for storage ([`storage`]), one for sets ([`set`]), and the frame that
//! runs them while this replica leads ([`run`]).

pub mod cli;
pub mod context;
pub mod metrics;
pub mod run;
pub mod set;
pub mod storage;

pub use berth_kube::events;
