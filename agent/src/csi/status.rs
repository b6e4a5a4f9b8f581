//! The one table from what went wrong on the disk to what CSI calls it.
//!
//! Codes are the ones of the CSI specification. INTERNAL is not among them for
//! anything that may have left something behind: callers forget such an
//! operation, while UNAVAILABLE and ABORTED make them ask again.

use berth_provisioner::Error;
use tonic::{Code, Status};

use crate::disks::Failure;

/// The gRPC code of an error.
pub fn code(error: &Error) -> Code {
    match error {
        Error::InvalidArgument { .. } | Error::Unsupported { .. } => Code::InvalidArgument,
        Error::NoRoom { .. } => Code::ResourceExhausted,
        // "Published at this target already, and incompatible."
        Error::AlreadyExists { .. } | Error::TargetConflict { .. } => Code::AlreadyExists,
        // For the node service an erased volume is one that does not exist.
        Error::UnknownVolume { .. } | Error::UnknownSnapshot { .. } | Error::Tombstoned { .. } => {
            Code::NotFound
        }
        Error::TooSmall { .. } => Code::OutOfRange,
        Error::ForeignSource { .. } | Error::ForeignPod { .. } => Code::PermissionDenied,
        Error::Lost { .. } => Code::DataLoss,
        // Refused before anything was done; a person or another pod has to act.
        Error::PoolMissing { .. }
        | Error::Uninitialized { .. }
        | Error::LostMount { .. }
        | Error::ReadOnly { .. }
        | Error::DamagedPool { .. }
        | Error::Damaged { .. }
        | Error::InitRefused { .. }
        | Error::Published { .. }
        | Error::NotStaged { .. }
        | Error::NotCopied { .. } => Code::FailedPrecondition,
        // May be half done: ask again.
        Error::Busy { .. }
        | Error::Io { .. }
        | Error::Locked { .. }
        | Error::InspectOnly
        // Nothing was done, and it may go in a moment.
        | Error::Unresponsive { .. }
        | Error::NotOpenYet { .. }
        | Error::Copied { .. }
        | Error::Stopping => Code::Unavailable,
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Busy { .. } => Self::aborted(failure.to_string()),
            Failure::Silent { .. } | Failure::Crowded { .. } | Failure::Stopped(_) => {
                Self::unavailable(failure.to_string())
            }
            Failure::Disk(error) => Self::new(code(&error), error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_provisioner::{Backend, PoolId};

    use super::*;

    #[test]
    fn codes_are_the_specifications() {
        let id = || "v".to_owned();
        let why = || "w".to_owned();
        let path = || std::path::PathBuf::from("/p");
        let pool = || PoolId::new("p-1").expect("valid");
        let table = [
            (
                Error::InvalidArgument {
                    what: "x",
                    value: id(),
                    why: why(),
                },
                Code::InvalidArgument,
            ),
            (
                Error::Unsupported {
                    backend: Backend::Image,
                    why: why(),
                },
                Code::InvalidArgument,
            ),
            (
                Error::NoRoom {
                    pool: pool(),
                    needed: 2,
                    room: 1,
                },
                Code::ResourceExhausted,
            ),
            (
                Error::AlreadyExists {
                    id: id(),
                    difference: why(),
                },
                Code::AlreadyExists,
            ),
            (
                Error::TargetConflict {
                    target: path(),
                    why: why(),
                },
                Code::AlreadyExists,
            ),
            (Error::UnknownVolume { id: id() }, Code::NotFound),
            (Error::UnknownSnapshot { id: id() }, Code::NotFound),
            (
                Error::TooSmall {
                    source_id: id(),
                    size: 1,
                    needed: 2,
                },
                Code::OutOfRange,
            ),
            (Error::ForeignSource { id: id() }, Code::PermissionDenied),
            (
                Error::ForeignPod {
                    id: id(),
                    pod: "shop/db-0".to_owned(),
                },
                Code::PermissionDenied,
            ),
            (
                Error::Tombstoned {
                    id: id(),
                    erased: why(),
                },
                Code::NotFound,
            ),
            (
                Error::Lost {
                    id: id(),
                    why: why(),
                },
                Code::DataLoss,
            ),
            (
                Error::PoolMissing { pool: pool() },
                Code::FailedPrecondition,
            ),
            (
                Error::Uninitialized { path: path() },
                Code::FailedPrecondition,
            ),
            (
                Error::LostMount {
                    path: path(),
                    why: why(),
                },
                Code::FailedPrecondition,
            ),
            (Error::ReadOnly { path: path() }, Code::FailedPrecondition),
            (
                Error::DamagedPool {
                    path: path(),
                    why: why(),
                },
                Code::FailedPrecondition,
            ),
            (
                Error::Damaged {
                    id: id(),
                    why: why(),
                },
                Code::FailedPrecondition,
            ),
            (
                Error::InitRefused {
                    path: path(),
                    why: why(),
                },
                Code::FailedPrecondition,
            ),
            (
                Error::Published {
                    id: id(),
                    by: why(),
                },
                Code::FailedPrecondition,
            ),
            (
                Error::NotStaged {
                    id: id(),
                    staging: path(),
                },
                Code::FailedPrecondition,
            ),
            (Error::Busy { target: path() }, Code::Unavailable),
            (Error::Locked { path: path() }, Code::Unavailable),
            (Error::InspectOnly, Code::Unavailable),
            (
                Error::Unresponsive {
                    path: path(),
                    why: why(),
                },
                Code::Unavailable,
            ),
            (
                Error::NotOpenYet {
                    id: id(),
                    dirs: why(),
                },
                Code::Unavailable,
            ),
            (
                Error::NotCopied {
                    id: id(),
                    why: why(),
                },
                Code::FailedPrecondition,
            ),
            (Error::Copied { id: id() }, Code::Unavailable),
            (Error::Stopping, Code::Unavailable),
            (
                Error::Io {
                    action: "d",
                    path: path(),
                    cause: std::io::ErrorKind::Other.into(),
                },
                Code::Unavailable,
            ),
        ];
        for (error, expected) in table {
            let text = error.to_string();
            assert_eq!(code(&error), expected, "{error:?}");
            let status = Status::from(Failure::Disk(error));
            assert_eq!((status.code(), status.message()), (expected, text.as_str()));
        }
        let busy = Status::from(Failure::Busy { id: id() });
        assert_eq!(busy.code(), Code::Aborted);
        for failure in [
            Failure::Silent { pool: pool() },
            Failure::Crowded { what: why() },
            Failure::Stopped(why()),
        ] {
            assert_eq!(Status::from(failure).code(), Code::Unavailable);
        }
    }
}
