//! `[[listeners]]`: doors that say more than an address. `server.listen` is the short form of one.

use super::decode::{At, at, flag, list, nested, parsed, word};
use super::parse;
use super::read::{Entries, Reader};
use super::schema_text as like;
use super::server::Server;
use super::table::{Table as _, table};
use super::value::ListenAddr;
use crate::base::certificate::{self, CertificateError, PEM_BYTES_MAX};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A door: where, and what is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: ListenAddr,
    /// Certificates by SNI; the first is shown to clients that name nobody, or nobody we know. Empty: no TLS.
    pub tls: Vec<TlsPair>,
    /// HTTP/2 with prior knowledge beside HTTP/1.1 (RFC 9113 §3.3); never with TLS, where ALPN decides.
    pub h2c: bool,
    /// Every request that did not come over TLS is answered with 308 to https.
    pub redirect_https: bool,
}

/// A certificate and its key. Both were there and fitted together when the file was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPair {
    /// PEM, the server's own certificate first.
    pub cert: PathBuf,
    /// PEM, not encrypted.
    pub key: PathBuf,
}

impl Listener {
    /// A door of `server.listen`: HTTP/1.1 in the clear.
    pub(super) fn plain(address: ListenAddr) -> Self {
        Self {
            address,
            tls: Vec::new(),
            h2c: false,
            redirect_https: false,
        }
    }
}

/// Every door of a file. `server.listen` has a default only where there is no `[[listeners]]`: who opens a door for TLS
/// does not expect another one beside it.
pub(super) fn all(
    server: &Server,
    entries: &Entries,
    given: &[&Entries],
    reader: &Reader<'_>,
) -> Vec<Listener> {
    if server.listen.is_empty() && given.is_empty() {
        let hint = "name at least one address, or leave the key out";
        reader.error(
            "empty-list",
            &entries.value_place("listen"),
            "`listen` is empty",
            hint,
        );
    }
    let short = server.listen.iter().cloned().map(Listener::plain);
    let short = short.filter(|_| given.is_empty() || entries.has("listen"));
    let long = given
        .iter()
        .filter_map(|own| ListenerKeys::read(own, reader)?.build(own, reader));
    short.chain(long).collect()
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct ListenerKeys("listeners", "a listener") {
        /// Where to listen: an address and port, or `unix:` and a path.
        pub(super) address: ListenAddr = required("0.0.0.0:8443"), parsed(parse::listen, "an address such as \"0.0.0.0:8443\"", "127.0.0.1:8443").like(like::LISTEN);
        /// TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1: certificates and keys in PEM, chosen by the name a client asks for, the first for all others. Read again when the files change. Absent: no TLS.
        pub(super) tls: Option<Vec<(TlsKeys, Entries)>> = optional([{ cert = "cert.pem", key = "key.pem" }]), list(nested::<TlsKeys>());
        /// Accept HTTP/2 with prior knowledge beside HTTP/1.1, without TLS.
        pub(super) h2c: bool = default(false), flag();
        /// Answer every request that did not come over TLS with 308 to https.
        pub(super) redirect_https: bool = default(false), flag();
    }
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct TlsKeys("listeners.tls", "a certificate of `tls`") {
        /// The certificate in PEM and those that vouch for it, the server's own first. Relative to this file.
        pub(super) cert: At<String> = required("cert.pem"), at(word());
        /// Its private key in PEM, not encrypted.
        pub(super) key: At<String> = required("key.pem"), at(word());
    }
}

impl ListenerKeys {
    pub(super) fn build(self, entries: &Entries, reader: &Reader<'_>) -> Option<Listener> {
        if self.tls.as_ref().is_some_and(Vec::is_empty) {
            let hint = "name a certificate and its key, or leave `tls` out";
            reader.error(
                "empty-list",
                &entries.value_place("tls"),
                "`tls` is empty",
                hint,
            );
        }
        if self.tls.is_some() {
            for (key, given, hint) in [
                (
                    "h2c",
                    self.h2c,
                    "with TLS, HTTP/2 needs no setting: ALPN chooses it",
                ),
                (
                    "redirect_https",
                    self.redirect_https,
                    "what comes over TLS need not be sent there; set it on the listener without TLS",
                ),
            ] {
                if given {
                    let message = format!("a listener has both `tls` and `{key}`");
                    reader.error("contradiction", &entries.key_place(key), message, hint);
                }
            }
        }
        let tls = self.tls.unwrap_or_default();
        let read: Vec<Option<TlsPair>> = tls.iter().map(|(keys, _)| keys.build(reader)).collect();
        Some(Listener {
            address: self.address,
            tls: read.into_iter().collect::<Option<_>>()?,
            h2c: self.h2c,
            redirect_https: self.redirect_https,
        })
    }
}

impl TlsKeys {
    /// Reads both files, so that what does not fit is told before anything is bound.
    fn build(&self, reader: &Reader<'_>) -> Option<TlsPair> {
        let pair = TlsPair {
            cert: reader.dir.join(&self.cert.value),
            key: reader.dir.join(&self.key.value),
        };
        if !self.cert.known || !self.key.known {
            return Some(pair);
        }
        let text = |file: &At<String>| match reader.file(Path::new(&file.value), PEM_BYTES_MAX) {
            Ok(text) => Some(text),
            Err(why) => {
                let message = format!("`{}` {why}", file.shown);
                reader.error("unreadable-file", &file.place, message, "");
                None
            }
        };
        let (cert, key) = (text(&self.cert), text(&self.key));
        let (cert, key) = (cert?, key?);
        match certificate::read(cert.as_bytes(), key.as_bytes()) {
            Ok(read) => {
                if let Err(error) = read.check_time(unix_now()) {
                    let hint = "clients will refuse it; renew it, the gateway takes the new one over by itself";
                    reader.warn(
                        "certificate-out-of-time",
                        &self.cert.place,
                        error.to_string(),
                        hint,
                    );
                }
                Some(pair)
            }
            Err(error) => {
                let (place, hint) = match error {
                    CertificateError::NoKey => (
                        &self.key.place,
                        "it should hold a block such as `-----BEGIN PRIVATE KEY-----`",
                    ),
                    CertificateError::Mismatch => (
                        &self.key.place,
                        "give the key that the certificate was issued for",
                    ),
                    CertificateError::NoCertificate => (
                        &self.cert.place,
                        "it should hold a block `-----BEGIN CERTIFICATE-----`",
                    ),
                    CertificateError::TooMany
                    | CertificateError::Unusable(_)
                    | CertificateError::Expired
                    | CertificateError::NotYet => (&self.cert.place, ""),
                };
                reader.error("bad-certificate", place, error.to_string(), hint);
                None
            }
        }
    }
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
