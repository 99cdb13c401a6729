//! Where Redis is, and who we are there.

use std::io;

pub use crate::config::redis::{Address, Redis as Settings};

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
