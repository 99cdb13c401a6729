//! Where a person reaches the demo's gateway. Everything that depends on that address is derived here: the issuer of
//! the tokens, the names that are answered to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Names that always lead to this machine.
const LOCAL_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// A loopback address as a person types it: `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`. Port 0 is any free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    named_localhost: bool,
    address: SocketAddr,
}

/// It is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// No address, or no port.
    #[error("expected an address of this machine and a port, such as 127.0.0.1:8081")]
    Shape,
    /// Others could reach it.
    #[error(
        "the demo listens on loopback only, since its provider is for development; try 127.0.0.1:8081"
    )]
    NotLoopback,
}

impl Listen {
    /// Where the gateway binds. `localhost` is 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        let mut other = self.clone();
        other.address.set_port(port);
        other
    }

    /// `http://127.0.0.1:8080`: what a person opens, and what an application calls the project's URL.
    pub fn url(&self) -> String {
        // Without the port where it is the scheme's own, as browsers and issuers write it.
        match self.address.port() {
            80 => format!("http://{}", self.host()),
            port => format!("http://{}:{port}", self.host()),
        }
    }

    /// `iss` of the tokens.
    pub(super) fn issuer(&self) -> String {
        format!("{}/auth/v1", self.url())
    }

    /// What may stand in `Host`.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = LOCAL_NAMES.map(String::from).to_vec();
        let own = self.host();
        if !names.contains(&own) {
            names.insert(0, own);
        }
        names
    }

    fn host(&self) -> String {
        match self.address.ip() {
            _ if self.named_localhost => String::from("localhost"),
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let named = text
            .rsplit_once(':')
            .filter(|(name, _)| name.eq_ignore_ascii_case("localhost"));
        let address = match named {
            Some((_, port)) => {
                let port = port.parse().map_err(|_| ListenError::Shape)?;
                SocketAddr::from((Ipv4Addr::LOCALHOST, port))
            }
            None => text.parse().map_err(|_| ListenError::Shape)?,
        };
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback);
        }
        Ok(Self {
            named_localhost: named.is_some(),
            address,
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host(), self.address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_the_address_is_derived_from_it() {
        let check = |text: &str, binds: &str, url: &str| {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.to_string(), text.to_lowercase());
            assert_eq!(listen.address().to_string(), binds);
            assert_eq!(listen.url(), url);
            assert_eq!(listen.issuer(), format!("{url}/auth/v1"));
            assert!(listen.names().contains(&listen.host()));
            assert!(listen.names().contains(&String::from("localhost")));
        };
        check("127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1:8080");
        check("127.0.0.2:9000", "127.0.0.2:9000", "http://127.0.0.2:9000");
        check("LocalHost:8080", "127.0.0.1:8080", "http://localhost:8080");
        check("[::1]:8080", "[::1]:8080", "http://[::1]:8080");
        check("127.0.0.1:80", "127.0.0.1:80", "http://127.0.0.1");
    }

    #[test]
    fn only_loopback_with_a_port_is_an_address_of_the_demo() {
        let check = |text: &str, expected: ListenError| {
            assert_eq!(text.parse::<Listen>(), Err(expected), "{text}");
        };
        for text in [
            "",
            "8080",
            ":8080",
            "localhost",
            "127.0.0.1",
            "localhost:x",
            "localhost:70000",
            "::1:80",
            "here:80",
        ] {
            check(text, ListenError::Shape);
        }
        for text in ["0.0.0.0:8080", "[::]:8080", "192.168.1.2:8080"] {
            check(text, ListenError::NotLoopback);
        }
    }

    #[test]
    fn a_free_port_can_be_filled_in() {
        let listen: Listen = "localhost:0".parse().unwrap();
        assert_eq!(listen.with_port(81).url(), "http://localhost:81");
    }
}
