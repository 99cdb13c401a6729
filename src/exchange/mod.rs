//! The words of a request: who is at the other end, who calls, what we refuse. Used by every room above; knows none.

pub mod identity;
pub mod reject;

use std::net::IpAddr;

pub use identity::{Caller, Claims, Credential, Identity, Verified};
pub use reject::{Code, Reject};

/// Who is at the other end of the connection. Lives as long as the connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The socket's address; `None` on a unix socket.
    pub ip: Option<IpAddr>,
    /// Whether the operator's `trusted_proxies` name this peer: only then are its `X-Forwarded-*` believed.
    pub trusted: bool,
    /// Whether the connection is TLS.
    pub secure: bool,
    /// Its listener sends what did not come over TLS to https (`redirect_https`): to this port of ours, 0 when there is
    /// none.
    pub redirects_to: Option<u16>,
}
