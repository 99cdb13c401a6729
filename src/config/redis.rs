//! `[redis]`: where sessions of the mode `stored` are, and what replicas tell each other. Redis 6 or later, or Valkey.

use super::decode::{At, at, masked, parsed, span, string};
use super::parse;
use super::provider_secret::read_pem;
use super::read::{Entries, Reader};
use super::schema_text as like;
use super::table::table;
use super::value::HostPattern;
use crate::base::secret::Secret;
use percent_encoding::percent_decode_str;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// A Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Where it is.
    pub address: Address,
    /// `None`: the user `default`. Never without a password.
    pub username: Option<Arc<str>>,
    /// `None`: it asks for none.
    pub password: Option<Secret<String>>,
    /// Number of the database; default 0.
    pub database: u8,
    /// Time for one answer, and for a connection; default 250 ms.
    pub timeout: Duration,
    /// Certificates to trust instead of the system's, only with TLS; absolute or relative to the working directory.
    pub ca_file: Option<PathBuf>,
}

/// Where a Redis server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `redis://host:port`, `rediss://host:port`
    Tcp {
        /// Name or address literal, without brackets.
        host: Arc<str>,
        /// Default 6379.
        port: u16,
        /// `rediss://`
        tls: bool,
    },
    /// `unix:/path`
    Unix(PathBuf),
}

/// What a URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    address: Address,
    username: Option<Arc<str>>,
    password: Option<Secret<String>>,
    database: u8,
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct RedisKeys("redis", "`[redis]`") {
        /// redis://, or rediss:// with TLS: user and password, host, port and number of the database, redis://user:password@127.0.0.1:6379/0; or unix:/run/redis.sock, with ?db=0, user= and pass=. Special characters in them are written `%XX`.
        pub(super) url: At<Place> = required("redis://127.0.0.1:6379"), masked(at(parsed(place, "a URL such as \"redis://127.0.0.1:6379\"", "redis://placeholder.invalid").like(like::REDIS)));
        /// Time for one answer.
        pub(super) timeout: Duration = default("250ms"), span(10, 10_000);
        /// rediss://: certificates to trust, in PEM, instead of the system's.
        pub(super) ca_file: Option<At<String>> = optional("ca.pem"), at(string());
    }
}

impl RedisKeys {
    pub(super) fn build(self, entries: &Entries, reader: &Reader<'_>) -> Redis {
        let place = self.url.value;
        let ca_file = self
            .ca_file
            .filter(|path| !path.value.is_empty() || !path.known);
        if let Some(path) = &ca_file {
            if path.known {
                read_pem(path, "CERTIFICATE", reader);
            }
            if self.url.known && !matches!(place.address, Address::Tcp { tls: true, .. }) {
                let hint = "only `rediss://` speaks TLS";
                let message = "`ca_file` does nothing here";
                reader.warn("no-effect", &entries.key_place("ca_file"), message, hint);
            }
        }
        Redis {
            address: place.address,
            username: place.username,
            password: place.password,
            database: place.database,
            timeout: self.timeout,
            ca_file: ca_file.map(|path| reader.dir.join(&path.value)),
        }
    }
}

/// What to say of a URL whose parts cannot be told from each other.
const ESCAPE: &str =
    "in a password, `/`, `?`, `#`, `@` and `%` are written `%2F`, `%3F`, `%23`, `%40` and `%25`";

fn place(text: &str) -> Result<Place, String> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("visible ASCII characters; others are written `%XX`".into());
    }
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    let unix = starts(&["unix:/", "redis+unix:/"]);
    if !unix && !starts(&["redis://", "rediss://"]) {
        return Err("begin it with `redis://`, `rediss://` or `unix:/`".into());
    }
    let url = Url::parse(text).map_err(|error| format!("{error}; {ESCAPE}"))?;
    if url.fragment().is_some() {
        return Err(format!("leave out what follows `#`; {ESCAPE}"));
    }
    if unix { socket(&url) } else { host(&url) }
}

fn host(url: &Url) -> Result<Place, String> {
    if url.query().is_some() {
        return Err(format!("leave out what follows `?`; {ESCAPE}"));
    }
    let name = url.host_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| format!("it has no host; {ESCAPE}"))?;
    let Ok(HostPattern::Exact(name)) = parse::host(name) else {
        return Err(format!("what stands for the host is none; {ESCAPE}"));
    };
    let address = Address::Tcp {
        host: name.trim_matches(['[', ']']).into(),
        port: match url.port().unwrap_or(6379) {
            0 => return Err("no server has the port 0".into()),
            port => port,
        },
        tls: url.scheme() == "rediss",
    };
    let user = Some(url.username()).filter(|user| !user.is_empty());
    login(
        address,
        user.map(decoded).transpose()?,
        url.password().map(decoded).transpose()?,
        url.path().trim_start_matches('/'),
    )
}

fn socket(url: &Url) -> Result<Place, String> {
    if url.host_str().is_some_and(|host| !host.is_empty()) || url.path().len() < 2 {
        return Err("after `unix:` comes an absolute path".into());
    }
    let path = decoded(url.path())?;
    if path.contains('\0') {
        return Err("after `unix:` comes an absolute path".into());
    }
    let (mut user, mut password, mut database) = (None, None, String::new());
    for (name, value) in url.query_pairs() {
        match &*name {
            "db" => database = value.into_owned(),
            "user" => user = Some(value.into_owned()),
            "pass" => password = Some(value.into_owned()),
            _ => return Err("after `?` come `db`, `user` and `pass`".into()),
        }
    }
    login(
        Address::Unix(path.into()),
        user,
        password,
        database.as_str(),
    )
}

fn login(
    address: Address,
    user: Option<String>,
    password: Option<String>,
    database: &str,
) -> Result<Place, String> {
    let password = password.filter(|password| !password.is_empty());
    if user.is_some() && password.is_none() {
        return Err("a user needs a password: `redis://user:password@host`".into());
    }
    let database = match database {
        "" => 0,
        number => {
            let number = number.parse().ok();
            number.ok_or_else(|| {
                format!("a database has a number from 0 to 255, and nothing follows it; {ESCAPE}")
            })?
        }
    };
    Ok(Place {
        address,
        username: user.map(Into::into),
        password: password.map(Secret::new),
        database,
    })
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(std::borrow::Cow::into_owned)
        .map_err(|_| "what `%XX` stands for is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_a_login_and_a_database() {
        let tcp = |host: &str, port, tls| Address::Tcp {
            host: host.into(),
            port,
            tls,
        };
        let check = |text: &str, address: Address, login: (&str, &str), database: u8| {
            let got = place(text).unwrap();
            assert_eq!(got.address, address, "{text}");
            let password = got.password.as_ref().map(|p| p.expose().as_str());
            assert_eq!(
                (
                    got.username.as_deref().unwrap_or(""),
                    password.unwrap_or("")
                ),
                login,
                "{text}"
            );
            assert_eq!(got.database, database, "{text}");
        };
        check(
            "redis://localhost",
            tcp("localhost", 6379, false),
            ("", ""),
            0,
        );
        check(
            "redis://Redis_1:7000/",
            tcp("redis_1", 7000, false),
            ("", ""),
            0,
        );
        check(
            "redis://127.0.0.1/15",
            tcp("127.0.0.1", 6379, false),
            ("", ""),
            15,
        );
        check("rediss://[::1]:1/255", tcp("::1", 1, true), ("", ""), 255);
        check("redis://:p%40ss@h", tcp("h", 6379, false), ("", "p@ss"), 0);
        check(
            "redis://u:p%2Fs:x@h:1/2",
            tcp("h", 1, false),
            ("u", "p/s:x"),
            2,
        );
        let socket = || Address::Unix("/run/redis 1.sock".into());
        check("unix:/run/redis%201.sock", socket(), ("", ""), 0);
        check("unix:///run/redis%201.sock?db=3", socket(), ("", ""), 3);
        check(
            "redis+unix:/run/redis%201.sock?pass=p%26s&user=u",
            socket(),
            ("u", "p&s"),
            0,
        );
    }

    #[test]
    fn what_names_no_server_is_refused_and_never_repeated() {
        for text in [
            "",
            "hunter2",
            "127.0.0.1:6379",
            "http://hunter2",
            "REDIS://hunter2",
            "redis:hunter2",
            "redis://",
            "redis:///0",
            "redis://:hunter2@",
            "redis://hunter2@h",
            "redis://:hunter2#x@h",
            "redis://:hunter2/x@h",
            "redis://:hunter2?x@h",
            "redis://h:0",
            "redis://h:hunter2",
            "redis://h/hunter2",
            "redis://h/0/hunter2",
            "redis://h/256",
            "redis://h/-1",
            "redis://h?db=1",
            "redis://hunter2 x",
            "redis://:hunter2%ff@h",
            "redis://*.hunter2.com",
            "redis://a,hunter2",
            "unix:hunter2",
            "unix:/",
            "unix://hunter2/redis.sock",
            "unix:/a?hunter2=1",
            "unix:/a?db=hunter2",
            "unix:/a%00hunter2",
        ] {
            let hint = place(text).unwrap_err();
            assert!(
                !hint.contains("hunter2") && !hint.is_empty(),
                "{text}: {hint}"
            );
        }
    }

    #[test]
    fn a_password_is_in_no_debug_output() {
        let shown = format!("{:?}", place("redis://u:hunter2@h").unwrap());
        assert!(
            shown.contains("[secret]") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
