//! How this program is started for another of its roles, see [`take_role`](crate::take_role).

use crate::error::{Error, Result};

/// This program's own file, also after a build has put another in its place.
pub(crate) const SELF: &str = "/proc/self/exe";

/// The argument that asks for the engine's first process.
pub(crate) const ENGINE: &str = "__berth-engine";

/// The argument that asks for its inner half.
pub(crate) const INNER: &str = "inner";

/// Set for a program that was started for another role: if it gets as far as
/// starting an engine itself, its `main` lacks [`take_role`].
pub(crate) const MARK: &str = "BERTH_CLUSTER_ROLE";

/// Refuses to start an engine in a program that should have taken a role.
pub(crate) fn check() -> Result<()> {
    if std::env::var_os(MARK).is_some() {
        return Err(Error::Unexpected(
            "this program makes clusters but does not call berth_cluster::take_role() first in main"
                .to_owned(),
        ));
    }
    Ok(())
}
