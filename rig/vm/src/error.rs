//! What can go wrong with a guest.

use std::path::PathBuf;
use std::time::Duration;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the rig; a program that failed in the guest is an [`crate::Outcome`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine lacks something; each line names one thing.
    #[error("this machine cannot run the guest yet:\n{0}")]
    Preflight(String),
    /// What the cluster rig shares: its cache, commands and installations.
    #[error(transparent)]
    Shared(#[from] berth_cluster::Error),
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried, for instance `cannot read`.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The guest did not end in time and was ended.
    #[error("the guest was ended after {} s, its limit\n{trace}", after.as_secs())]
    Timeout {
        /// The limit.
        after: Duration,
        /// The end of the kernel's messages, where the rest is, and the command.
        trace: String,
    },
    /// The guest ended before its program did: a panic of its kernel, or qemu failed.
    #[error("the guest ended without its program's exit code ({status})\n{trace}")]
    NoAnswer {
        /// How qemu ended.
        status: String,
        /// The end of the kernel's messages, where the rest is, and the command.
        trace: String,
    },
    /// Something is not as it has to be.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// An [`Error::Io`] on `path`.
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
