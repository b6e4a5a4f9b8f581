//! Every decision of the controller, as pure functions from a view to a plan.
//!
//! Nothing here reads a clock, a random number or the network, and nothing is
//! kept in a hash map: one view gives one plan, always. Bad input becomes a
//! reason in the plan, never an error.

pub mod capacity;
pub mod claims;
pub mod grants;
pub mod node;
pub mod place;
pub mod pools;
pub mod room;
pub mod set;
pub mod snapshots;
pub mod target;
pub mod volumes;
