//! The agent's Unix sockets: only root may connect, a stale socket of a former
//! agent is replaced, and a socket in use is not touched.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on the socket.
    #[error(
        "{} is in use: another agent, or another driver of this name, is serving it; stop it first",
        path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is a file of that name which is no socket.
    #[error("{} exists and is not a socket; it is left as it is, remove it first", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot make the socket {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Listens on `path`, making its directory where needed.
///
/// The socket gets its mode under a hidden name and is then renamed, so nobody
/// but root can ever open it, a former agent's socket is replaced in one step
/// (whoever watches the directory sees no removal), and the process's umask,
/// which other threads' files depend on, stays as it is.
///
/// # Errors
/// [`SocketError::InUse`] when somebody answers there.
pub fn listen(path: &Path) -> Result<UnixListenerStream, SocketError> {
    let failed = |source| SocketError::Io {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(failed(error)),
            Ok(_) => {
                return Err(SocketError::InUse {
                    path: path.to_owned(),
                });
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    fs::create_dir_all(directory).map_err(failed)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let hidden = directory.join(hidden);
    match fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden).map_err(failed)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&hidden, path).map_err(failed)?;
    Ok(UnixListenerStream::new(listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_what_is_stale_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new/a.sock");

        let first = listen(&path).expect("listens");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(listen(&path), Err(SocketError::InUse { .. })));
        drop(first);
        let second = listen(&path).expect("a stale socket is replaced");
        UnixStream::connect(&path).expect("somebody listens");
        drop(second);

        let file = directory.path().join("file");
        fs::File::create(&file).expect("makes a file");
        let refused = listen(&file).expect_err("no socket");
        assert!(
            matches!(refused, SocketError::NotASocket { .. }),
            "{refused}"
        );
        assert!(file.exists());

        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("links");
        assert!(matches!(listen(&link), Err(SocketError::NotASocket { .. })));
    }
}
