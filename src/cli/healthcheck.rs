//! `tollhouse healthcheck`: asks the admin socket of a running gateway whether it is ready.

use super::{File, Outcome, fail, load};
use crate::config::value::ListenAddr;
use clap::Args;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A container runtime gives a check a few seconds.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    #[command(flatten)]
    file: File,
    /// The admin address; default: that of the configuration, or 127.0.0.1:9901
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

impl Healthcheck {
    pub(super) fn execute(self) -> io::Result<Outcome> {
        let address = match self.admin {
            Some(address) => ListenAddr::Tcp(address),
            // Secrets are not needed to find the address, and may not be there in the checking process.
            None => match load::load(&self.file, true) {
                Ok(loaded) => match loaded.config.admin.probes.or(loaded.config.admin.listen) {
                    Some(address) => address,
                    None => return fail("admin.listen is off; nothing to ask"),
                },
                Err(load::LoadError::Nowhere) => {
                    ListenAddr::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)))
                }
                Err(error) => return super::run::report(&error),
            },
        };
        match ask(&address) {
            Ok(200) => {
                writeln!(io::stdout(), "ready")?;
                Ok(Outcome::Fine)
            }
            Ok(status) => fail(format!("not ready: /readyz answered {status}")),
            Err(error) => fail(format!("no answer from the admin socket: {error}")),
        }
    }
}

fn ask(address: &ListenAddr) -> io::Result<u16> {
    match address {
        ListenAddr::Tcp(address) => {
            let address = SocketAddr::new(reachable(address.ip()), address.port());
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            status(stream)
        }
        ListenAddr::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            status(stream)
        }
    }
}

/// A gateway that listens everywhere is asked on loopback.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn status(mut stream: impl Read + Write) -> io::Result<u16> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    stream.take(4096).read_to_end(&mut head)?;
    let text = String::from_utf8_lossy(&head);
    text.split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::other("the answer is not HTTP"))
}
