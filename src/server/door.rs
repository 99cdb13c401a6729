//! What is spoken at one address: a `[[listeners]]` entry made live.

use super::tls::{Certificates, TlsError};
use crate::config::listener::Listener;
use crate::config::value::ListenAddr;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// How connections to one address begin.
#[derive(Clone)]
pub(super) struct Door {
    /// With TLS.
    pub(super) tls: Option<TlsAcceptor>,
    /// Without TLS: HTTP/2 beside HTTP/1.1.
    pub(super) h2c: bool,
    /// What did not come over TLS is sent to https, at this port of ours; 0: we have none.
    pub(super) redirects_to: Option<u16>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("tls", &self.tls.is_some())
            .field("h2c", &self.h2c)
            .field("redirects_to", &self.redirects_to)
            .finish()
    }
}

impl Door {
    /// The doors of a configuration, in its order, and the certificates that are shown at them.
    pub(super) fn all(
        listeners: &[Listener],
    ) -> Result<(Vec<Self>, Vec<Arc<Certificates>>), TlsError> {
        let tls_port = listeners
            .iter()
            .filter(|listener| !listener.tls.is_empty())
            .find_map(|listener| match &listener.address {
                ListenAddr::Tcp(address) => Some(address.port()),
                ListenAddr::Unix(_) => None,
            });
        let mut shown = Vec::new();
        let mut doors = Vec::new();
        for listener in listeners {
            let tls = if listener.tls.is_empty() {
                None
            } else {
                let certificates = Certificates::read(&listener.tls)?;
                shown.push(certificates.clone());
                Some(TlsAcceptor::from(super::tls::server(certificates)?))
            };
            doors.push(Self {
                tls,
                h2c: listener.h2c,
                redirects_to: listener.redirect_https.then(|| tls_port.unwrap_or(0)),
            });
        }
        Ok((doors, shown))
    }
}
