//! How this machine asks other servers for something of its own: the configured address and no other. No redirects, no
//! proxy from the environment, no plain text beyond this machine unless allowed, no link-local address (where clouds keep
//! their credentials), a deadline for the whole and a bound on the body. Not for the requests of clients: those go
//! through connections of our own.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// Longest time for a connection; less where the whole may take less.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a connection is kept that nobody uses: less than what stands in front of a server usually keeps it.
const IDLE: Duration = Duration::from_secs(20);

/// On what terms a server is asked.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// For one exchange, from the look-up of the name to the last byte.
    pub deadline: Duration,
    /// Certificates to trust instead of the system's, in PEM.
    pub ca_file: Option<&'a Path>,
    /// Whether plain http may leave this machine.
    pub plain_http: bool,
    /// Connections kept while nobody uses them.
    pub idle_max: usize,
}

/// Why a server cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file of certificates.
    #[error("`ca_file` cannot be read")]
    CaUnreadable(#[source] std::io::Error),
    /// The certificates, the file's or the machine's.
    #[error("no TLS client can be made")]
    Tls(#[source] reqwest::Error),
    /// The address, for this reason.
    #[error("{0}")]
    Address(&'static str),
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It ended too early or too late.
    #[error("the answer broke off")]
    Broken(#[source] reqwest::Error),
    /// It has more bytes than it may have.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// A client for `url` and what lies below it.
pub fn client(url: &Url, terms: &Terms<'_>) -> Result<reqwest::Client, ClientError> {
    match url.scheme() {
        "https" => {}
        "http" if terms.plain_http || is_loopback(url) => {}
        "http" => {
            return Err(ClientError::Address(
                "plain http is only for loopback, or with `allow_insecure_http`",
            ));
        }
        _ => return Err(ClientError::Address("neither https nor http")),
    }
    let literal = match url.host() {
        Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
        Some(Host::Domain(_)) => None,
        None => return Err(ClientError::Address("no host")),
    };
    if literal.is_some_and(is_link_local) {
        return Err(ClientError::Address("a link-local address"));
    }
    let mut builder = reqwest::Client::builder()
        .https_only(url.scheme() == "https")
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(Arc::new(NoLinkLocal))
        .connect_timeout(CONNECT.min(terms.deadline))
        .timeout(terms.deadline)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(terms.idle_max)
        .user_agent(concat!("tollhouse/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = terms.ca_file {
        let pem = std::fs::read(path).map_err(ClientError::CaUnreadable)?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(ClientError::Tls)?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(ClientError::Tls)
}

/// The body of an answer, of at most `bytes_max`; what is larger is not read to its end.
pub async fn body(mut response: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(BodyError::TooLarge(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        // RFC 6761 §6.3: this name and those below it are the machine's own.
        Some(Host::Domain(name)) => {
            name.eq_ignore_ascii_case("localhost")
                || name.to_ascii_lowercase().ends_with(".localhost")
        }
        None => false,
    }
}

/// RFC 3927 and RFC 4291 §2.5.6, also as an IPv4-mapped address.
fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The system's resolver, without link-local answers.
struct NoLinkLocal;

impl Resolve for NoLinkLocal {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await?
                .filter(|address| !is_link_local(address.ip()))
                .collect();
            if found.is_empty() {
                return Err("the name has no address that may be asked".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_known_in_every_spelling() {
        for (address, link_local) in [
            ("169.254.169.254", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("::ffff:169.254.169.254", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("fc00::1", false),
        ] {
            assert_eq!(is_link_local(address.parse().unwrap()), link_local);
        }
    }

    #[test]
    fn loopback_is_known_by_address_and_name() {
        for (url, loopback) in [
            ("http://127.0.0.1:1/", true),
            ("http://127.8.8.8/", true),
            ("http://[::1]/", true),
            ("http://localhost:3000/", true),
            ("http://auth.localhost/", true),
            ("http://localhost.example.com/", false),
            ("http://127.0.0.1.example.com/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), loopback, "{url}");
        }
    }
}
