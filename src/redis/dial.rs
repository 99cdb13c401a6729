//! From an address to a connection that has answered: TCP, unix sockets, TLS, login, and a PING. The cryptography is
//! aws-lc-rs, passed by hand.

use super::settings::{Address, Settings, SetupError};
use super::word;
use crate::base::secret::Secret;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use socket2::{SockRef, TcpKeepalive};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// Commands that wait to be written. The rest waits outside, each with its deadline.
const UNWRITTEN_MAX: usize = 256;
/// How many addresses of one name are tried.
const ADDRESSES_MAX: usize = 8;
/// The keeper asks every few seconds; this is for a peer that vanishes while it does not.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Drives a connection until it is lost.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is connected to, ready to be tried again and again.
pub(super) struct Target {
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    username: Option<Arc<str>>,
    password: Option<Secret<String>>,
    database: u8,
}

/// Why an attempt failed. For the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// No socket, no handshake, or the end in the middle.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Redis does not let us in, or is not ready.
    #[error("it answered {0}")]
    Refused(Box<str>),
}

impl Target {
    pub(super) fn new(settings: &Settings) -> Result<Self, SetupError> {
        let tls = match &settings.address {
            Address::Tcp {
                host, tls: true, ..
            } => {
                let name = ServerName::try_from(host.to_string()).map_err(|_| SetupError::Host)?;
                let config = trust(settings.ca_file.as_deref())?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
            Address::Tcp { tls: false, .. } | Address::Unix(_) => None,
        };
        Ok(Self {
            address: settings.address.clone(),
            tls,
            username: settings.username.clone(),
            password: settings.password.clone(),
            database: settings.database,
        })
    }

    /// A connection that has answered. The caller bounds the whole; `patience` is only shared out between the addresses of
    /// a name.
    pub(super) async fn connect(
        &self,
        patience: Duration,
    ) -> Result<(MultiplexedConnection, Driver), DialError> {
        match &self.address {
            Address::Unix(path) => self.enter(UnixStream::connect(path).await?).await,
            Address::Tcp { host, port, .. } => {
                let stream = tcp(host, *port, patience).await?;
                match &self.tls {
                    None => self.enter(stream).await,
                    Some((tls, name)) => self.enter(tls.connect(name.clone(), stream).await?).await,
                }
            }
        }
    }

    /// Logs in, chooses the database, and asks whether anybody is there.
    async fn enter<S>(&self, stream: S) -> Result<(MultiplexedConnection, Driver), DialError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut info = RedisConnectionInfo::default()
            .set_db(self.database.into())
            .set_skip_set_lib_name();
        if let Some(password) = &self.password {
            info = info.set_password(password.expose());
        }
        if let Some(username) = &self.username {
            info = info.set_username(username);
        }
        // Deadlines are ours.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(UNWRITTEN_MAX);
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(&info, stream, config)
                .await
                .map_err(|error| refused(&error))?;
        let mut driver: Driver = Box::pin(driver);
        tokio::select! {
            answer = ping(&mut connection) => answer?,
            () = &mut driver => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
        Ok((connection, driver))
    }
}

/// Whether it answers, and would do so to a command: not while it loads its data or asks for a password.
pub(super) async fn ping(connection: &mut MultiplexedConnection) -> Result<(), DialError> {
    let answer = ::redis::cmd("PING").exec_async(connection).await;
    answer.map_err(|error| refused(&error))
}

/// Without the sentence, which might repeat the password.
fn refused(error: &RedisError) -> DialError {
    match error.code() {
        Some(code) => DialError::Refused(word(code)),
        None if error.is_io_error() => io::Error::other(error.category().to_owned()).into(),
        None => DialError::Refused(error.category().into()),
    }
}

fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(SetupError::Tls)?;
    let builder = match ca_file {
        None => builder.with_platform_verifier().map_err(SetupError::Tls)?,
        Some(path) => {
            let pem = fs::read(path).map_err(SetupError::CaUnreadable)?;
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|_| SetupError::CaUnusable)?;
                roots.add(certificate).map_err(|_| SetupError::CaUnusable)?;
            }
            if roots.is_empty() {
                return Err(SetupError::CaUnusable);
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(builder.with_no_client_auth())
}

/// One address of a name after the other, each with an equal share of the time that is left: one that swallows packets
/// cannot take all of it.
async fn tcp(host: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    let found: Vec<SocketAddr> = lookup_host((host, port))
        .await?
        .take(ADDRESSES_MAX)
        .collect();
    let end = Instant::now() + patience;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut left = found.len() as u32;
    for address in found {
        let share = end.saturating_duration_since(Instant::now()) / left;
        left -= 1;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(host: &str, ca_file: Option<&Path>) -> Result<Target, SetupError> {
        Target::new(&Settings {
            address: Address::Tcp {
                host: host.into(),
                port: 6379,
                tls: true,
            },
            username: None,
            password: None,
            database: 0,
            timeout: Duration::from_millis(250),
            ca_file: ca_file.map(Path::to_owned),
        })
    }

    #[test]
    fn what_cannot_be_trusted_is_found_before_anything_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let unreadable = with("h", Some(&file));
        assert!(matches!(unreadable, Err(SetupError::CaUnreadable(_))));
        for text in [
            "",
            "nothing",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(&file, text).unwrap();
            let unusable = with("h", Some(&file));
            assert!(matches!(unusable, Err(SetupError::CaUnusable)), "{text}");
        }
        fs::write(&file, include_str!("../../tests/vectors/tls/app.test.pem")).unwrap();
        for host in ["h", "127.0.0.1", "::1"] {
            assert!(with(host, Some(&file)).is_ok(), "{host}");
        }
        assert!(matches!(with("a b", Some(&file)), Err(SetupError::Host)));
    }
}
