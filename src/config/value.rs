//! Values parsed at the door: what has one of these types cannot be wrong alone.

use http::HeaderName;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `"60/min"`, `"10/s"`, `"60/5m"`: a count in a span, both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In what span.
    pub per: Duration,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// `127.0.0.1:8080`
    Tcp(SocketAddr),
    /// `unix:/run/tollhouse.sock`
    Unix(PathBuf),
}

/// Scheme, host and port, as RFC 6454 §6.2 writes them: lower case, default ports left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(pub Arc<str>);

/// `server.trusted_proxies`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Networks, `"private"` spelled out.
    pub nets: Vec<IpNet>,
    /// Peers on a unix socket.
    pub unix: bool,
}

impl TrustedProxies {
    /// Whether an address is one of them; IPv4-mapped addresses count as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.nets.iter().any(|net| net.contains(&ip))
    }
}

/// One segment of a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Exactly this text (canonical: unreserved characters decoded).
    Literal(Arc<str>),
    /// `{name}`: any one non-empty segment.
    Param(Arc<str>),
}

/// `/exact`, `/users/{id}/role`, `/api/*` (the prefix itself and all below), `/*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    /// As written.
    pub text: Arc<str>,
    /// Between the slashes. `/` has none.
    pub segments: Vec<Segment>,
    /// Ends in `/*`.
    pub prefix: bool,
}

/// `app.example.com`, `*.example.com`, `{tenant}.example.com`. Lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This name only.
    Exact(Arc<str>),
    /// One or more labels before this suffix (`.example.com`).
    Wildcard {
        /// With its leading dot.
        suffix: Arc<str>,
    },
    /// Exactly one label before the suffix, kept under a name.
    Capture {
        /// The name.
        name: Arc<str>,
        /// With its leading dot.
        suffix: Arc<str>,
    },
}

/// A path into the claims: `app_metadata.role`. At least one step, each non-empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimPath(pub Vec<Arc<str>>);

/// What an identity header carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityValue {
    /// A claim, by path; `sub` is the user id.
    Claim(ClaimPath),
    /// `@roles`
    Roles,
    /// `@scopes`
    Scopes,
    /// `@provider`
    Provider,
    /// `@credential`
    Credential,
    /// `@api_key_id`
    ApiKeyId,
}

/// One part of a limiter's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitBy {
    /// The client's address, IPv6 by /64.
    Ip,
    /// The verified user.
    User,
    /// The verified API key.
    ApiKey,
    /// A verified claim.
    Claim(ClaimPath),
    /// A header; together with the address unless the peer is trusted.
    Header(HeaderName),
    /// The account that somebody tries to log in to. Only built in: no word of a file stands for it.
    Account,
}

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `http://host:port`
    Http {
        /// Name or address literal, without brackets.
        host: Arc<str>,
        /// Port.
        port: u16,
    },
    /// `https://host:port`
    Https {
        /// Name or address literal, without brackets.
        host: Arc<str>,
        /// Port.
        port: u16,
    },
    /// `unix:/path`
    Unix(PathBuf),
}
