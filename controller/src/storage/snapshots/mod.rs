//! Snapshots in the storage loop: what is known of them ([`state`]), what a change
//! touches ([`changes`]), from a look to a decision ([`reconcile`]), and the writes
//! ([`apply`]).

pub(super) mod apply;
mod changes;
mod reconcile;
pub(super) mod state;
pub(super) mod watch;
