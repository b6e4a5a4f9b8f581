//! What the controller and the agent both need of a Kubernetes client, once: calls
//! with a bound, watches that say why they begin anew, caches, events, the lease.
//!
//! Nothing here knows Berth's own kinds, and nothing here decides anything.

pub mod backoff;
pub mod cache;
pub mod call;
pub mod events;
pub mod lease;
pub mod process;
pub mod throttle;
pub mod watch;
pub mod write;

pub use backoff::Backoff;
pub use cache::{Cache, SharedCache, WholeCache};
pub use call::{CallError, bounded, bounded_by};
pub use throttle::{Urgency, WriteThrottle};
