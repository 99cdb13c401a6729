//! How a key set is fetched: one GET, to the configured address and no other. No redirects, no proxy from the environment,
//! no plain text beyond this machine unless allowed, no link-local address (where clouds keep their credentials), a
//! deadline for the whole and a bound on the body.

use crate::config::provider::Provider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// Largest key set, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 256 * 1024;

const CONNECT: Duration = Duration::from_secs(2);

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// No answer: network, TLS, deadline.
    #[error("no answer from the key set's address")]
    Unreachable(#[source] reqwest::Error),
    /// An answer, but not 200.
    #[error("the key set's address answered {0}")]
    Status(u16),
    /// More bytes than a key set may have.
    #[error("the key set is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    /// Not a key set, or one without a single key that can be used.
    #[error("the answer is not a key set with a usable key")]
    Unusable,
}

/// Why keys cannot even be asked for: the configuration is wrong.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `ca_file` cannot be read.
    #[error("provider `{provider}`: `ca_file` cannot be read")]
    CaUnreadable {
        /// Whose.
        provider: Arc<str>,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `ca_file`, or the machine's own certificates, give no client.
    #[error("provider `{provider}`: no TLS client can be made")]
    Tls {
        /// Whose.
        provider: Arc<str>,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A key of the configuration cannot be used.
    #[error("provider `{provider}`: {what}: {why}")]
    Key {
        /// Whose.
        provider: Arc<str>,
        /// Which key of the configuration.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The address may not be asked.
    #[error("provider `{provider}`: `{url}`: {why}")]
    Address {
        /// Whose.
        provider: Arc<str>,
        /// Which address.
        url: Url,
        /// Why not.
        why: &'static str,
    },
}

/// Fetches one key set.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: reqwest::Client,
    url: Url,
}

impl Fetcher {
    /// Prepares to fetch `url` for `provider`.
    pub(super) fn new(provider: &Provider, url: &Url) -> Result<Self, SetupError> {
        let wrong = |why| SetupError::Address {
            provider: provider.name.clone(),
            url: url.clone(),
            why,
        };
        match url.scheme() {
            "https" => {}
            "http" if provider.allow_insecure_http || is_loopback(url) => {}
            "http" => {
                return Err(wrong(
                    "plain http is only for loopback, or with `allow_insecure_http`",
                ));
            }
            _ => return Err(wrong("neither https nor http")),
        }
        let literal = match url.host() {
            Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
            Some(Host::Domain(_)) => None,
            None => return Err(wrong("no host")),
        };
        if literal.is_some_and(is_link_local) {
            return Err(wrong("a link-local address"));
        }
        let mut builder = reqwest::Client::builder()
            .https_only(url.scheme() == "https")
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(NoLinkLocal))
            .connect_timeout(CONNECT.min(provider.http_timeout))
            .timeout(provider.http_timeout)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("tollhouse/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &provider.ca_file {
            let pem = std::fs::read(path).map_err(|source| SetupError::CaUnreadable {
                provider: provider.name.clone(),
                source,
            })?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|source| tls(provider, source))?;
            builder = builder.tls_certs_only(certificates);
        }
        Ok(Self {
            client: builder.build().map_err(|source| tls(provider, source))?,
            url: url.clone(),
        })
    }

    /// The body of a 200.
    pub(super) async fn get(&self) -> Result<Vec<u8>, FetchError> {
        let request = self.client.get(self.url.clone());
        let mut response = request
            .header(http::header::ACCEPT, "application/json")
            .send()
            .await
            .map_err(FetchError::Unreachable)?;
        if response.status() != http::StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(FetchError::Unreachable)? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn tls(provider: &Provider, source: reqwest::Error) -> SetupError {
    SetupError::Tls {
        provider: provider.name.clone(),
        source,
    }
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
