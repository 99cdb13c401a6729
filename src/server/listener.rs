//! Sockets to listen on. Every worker has its own on the same TCP port (`SO_REUSEPORT`), so that the kernel spreads
//! connections; a unix socket is shared by duplicating its descriptor.

use crate::config::value::ListenAddr;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A bound listener, before a runtime has it.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error(
        "{0} is in use by another process; stop it, choose another `server.listen`, or set `server.takeover = true` for a rolling restart on one port"
    )]
    InUse(SocketAddr),
    /// A unix socket at which somebody answers.
    #[error("{} is in use by another process", .0.display())]
    SocketInUse(PathBuf),
    /// Something that is no socket lies at the path.
    #[error("{} is there already and is no socket; remove it, or choose another path", .0.display())]
    NoSocket(PathBuf),
    /// Anything else.
    #[error("cannot listen on {address}")]
    Io {
        /// As written.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl BindError {
    /// The admin socket.
    pub(super) fn admin(address: &ListenAddr, source: io::Error) -> Self {
        let address = match address {
            ListenAddr::Tcp(address) => format!("admin address {address}"),
            ListenAddr::Unix(path) => format!("admin socket {}", path.display()),
        };
        Self::Io { address, source }
    }
}

/// Binds an address once for each worker. The address that comes back has the port that the system chose for port 0.
pub(super) fn bind(
    address: &ListenAddr,
    workers: usize,
    takeover: bool,
) -> Result<(Vec<Bound>, ListenAddr), BindError> {
    match address {
        ListenAddr::Tcp(address) => tcp(*address, workers, takeover),
        ListenAddr::Unix(path) => unix(path.clone(), workers),
    }
}

fn tcp(
    address: SocketAddr,
    workers: usize,
    takeover: bool,
) -> Result<(Vec<Bound>, ListenAddr), BindError> {
    let failed = |source| BindError::Io {
        address: address.to_string(),
        source,
    };
    if !takeover && address.port() != 0 {
        // With SO_REUSEPORT a second process would quietly take half of the connections: ask without it first.
        match socket(address, false) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(BindError::InUse(address));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let first = socket(address, true).map_err(failed)?;
    let bound_to = first.local_addr().map_err(failed)?;
    let mut all = vec![Bound::Tcp(first)];
    for _ in 1..workers {
        all.push(Bound::Tcp(socket(bound_to, true).map_err(failed)?));
    }
    Ok((all, ListenAddr::Tcp(bound_to)))
}

pub(super) fn socket(address: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit it. A client that has vanished without a word is found out in two minutes: nothing else
    // would end its WebSocket.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn unix(path: PathBuf, workers: usize) -> Result<(Vec<Bound>, ListenAddr), BindError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse if is_socket(&path) => BindError::SocketInUse(path.clone()),
        io::ErrorKind::AddrInUse => BindError::NoSocket(path.clone()),
        _ => BindError::Io {
            address: path.display().to_string(),
            source,
        },
    };
    let first = unix_socket(&path).map_err(failed)?;
    let mut all = Vec::new();
    for _ in 1..workers {
        all.push(Bound::Unix(first.try_clone().map_err(failed)?));
    }
    all.push(Bound::Unix(first));
    Ok((all, ListenAddr::Unix(path)))
}

/// Binds a unix socket in place of one at which nobody answers any more, which is what a process that was killed leaves
/// behind. Anything else at that path is not ours to remove: bind says what is wrong.
pub(super) fn unix_socket(path: &Path) -> io::Result<UnixListener> {
    if is_socket(path)
        && let Err(error) = std::os::unix::net::UnixStream::connect(path)
        && error.kind() == io::ErrorKind::ConnectionRefused
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// A socket file of ours: removed at the end, unless another process has put its own in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    /// Of an address that was just bound; `None` for ports.
    pub(super) fn of(address: &ListenAddr) -> Option<Self> {
        let ListenAddr::Unix(path) = address else {
            return None;
        };
        let inode = std::fs::symlink_metadata(path).ok()?.ino();
        Some(Self {
            path: path.clone(),
            inode,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_an_error_unless_takeover() {
        let (first, address) =
            bind(&ListenAddr::Tcp(([127, 0, 0, 1], 0).into()), 2, false).unwrap();
        assert_eq!(first.len(), 2);
        assert!(matches!(bind(&address, 1, false), Err(BindError::InUse(_))));
        assert!(bind(&address, 1, true).is_ok());
    }

    #[test]
    fn accepted_connections_are_asked_whether_they_are_still_there() {
        let (mut bound, address) =
            bind(&ListenAddr::Tcp(([127, 0, 0, 1], 0).into()), 1, false).unwrap();
        let (ListenAddr::Tcp(address), Some(Bound::Tcp(listener))) = (address, bound.pop()) else {
            panic!("a port");
        };
        let _client = std::net::TcpStream::connect(address).unwrap();
        listener.set_nonblocking(false).unwrap();
        let accepted = Socket::from(listener.accept().unwrap().0);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap().as_secs(), 60);
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 6);
    }

    #[test]
    fn a_unix_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let address = ListenAddr::Unix(folder.path().join("s"));
        let (live, _) = bind(&address, 2, false).unwrap();
        assert!(matches!(
            bind(&address, 1, false),
            Err(BindError::SocketInUse(_))
        ));
        drop(live);
        let file = folder.path().join("data");
        std::fs::write(&file, "precious").unwrap();
        assert!(bind(&ListenAddr::Unix(file.clone()), 1, false).is_err());
        assert_eq!(
            std::fs::read(&file).unwrap(),
            b"precious",
            "no socket, not ours"
        );
        assert!(bind(&address, 1, false).is_ok());
    }
}
