//! Where Redis is, and who we are there.

use crate::base::secret::Secret;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it is.
    pub address: Address,
    /// `None`: the user `default`. Never without a password.
    pub username: Option<Arc<str>>,
    /// `None`: it asks for none.
    pub password: Option<Secret<String>>,
    /// Number of the database.
    pub database: u8,
    /// Longest time for one command, the wait for a connection included.
    pub timeout: Duration,
    /// Certificates to trust instead of the system's, in PEM; only with TLS.
    pub ca_file: Option<PathBuf>,
}

/// Where a Redis server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host, by name or address.
    Tcp {
        /// Without brackets.
        host: Arc<str>,
        /// Its port.
        port: u16,
        /// Whether TLS is spoken, with a certificate for `host`.
        tls: bool,
    },
    /// A socket file.
    Unix(PathBuf),
}

/// Why no connection can even be tried.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file of certificates.
    #[error("the `ca_file` of Redis cannot be read")]
    CaUnreadable(#[source] io::Error),
    /// It holds no certificate in PEM, or one that cannot be trusted.
    #[error("the `ca_file` of Redis holds no certificate that can be trusted")]
    CaUnusable,
    /// The machine's own certificates.
    #[error("no TLS client can be made for Redis")]
    Tls(#[source] rustls::Error),
    /// No certificate can be for it.
    #[error("the host of Redis is no name that TLS can check")]
    Host,
}
