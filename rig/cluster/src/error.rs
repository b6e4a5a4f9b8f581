//! What can go wrong with a cluster, in sentences that name the thing, what is
//! wrong with it and what to do.

use std::path::PathBuf;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the rig.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process works on this instance.
    #[error(
        "instance {instance} is held by {holder}; wait for it, stop it, or choose another name with --name"
    )]
    Held {
        /// The instance's id.
        instance: String,
        /// Process id and command line of the holder.
        holder: String,
    },
    /// `up` was asked for an instance that runs already.
    #[error("instance {0} is already up; `cargo cluster down --name {0}` removes it")]
    AlreadyUp(String),
    /// A running instance was asked for and there is none.
    #[error("instance {0} is not up; `cargo cluster up --name {0}` makes it")]
    NotUp(String),
    /// The machine lacks something; each line names one thing.
    #[error("this machine cannot run the cluster yet:\n{0}")]
    Preflight(String),
    /// A program could not be started or ended with a failure.
    #[error("{program} failed ({status}): {output}\n  command: {command}")]
    Command {
        /// The program's name.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
        /// The whole command line.
        command: String,
    },
    /// A file or directory operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried, for instance `cannot read`.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Sys {
        /// What was tried, on what.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A name is not usable.
    #[error("{what} {value:?} is not usable: {rule}")]
    Name {
        /// What kind of name.
        what: &'static str,
        /// The name given.
        value: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A condition did not come true in time.
    #[error("waited {seconds} s for {what} in vain: {last}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// What was seen last.
        last: String,
    },
    /// Something answered in a way that was not expected.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// An [`Error::Io`] on `path`.
    pub fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// An [`Error::Sys`] for a call described by `what`.
    pub fn sys<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Sys {
            what,
            source: source.into(),
        }
    }
}
