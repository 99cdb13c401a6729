//! TLS towards clients: which certificate is shown to whom, and how certificates are renewed without a restart. TLS 1.2
//! and 1.3, nothing older, by rustls and aws-lc-rs.

use crate::base::certificate::{self, CertificateError, PEM_BYTES_MAX};
use crate::config::listener::TlsPair;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often the files are looked at. A look costs a few system calls; unlike events it also works on network and
/// overlay file systems, and where a whole folder is swapped by a link (Kubernetes).
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("`{}` cannot be read", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A certificate and its key.
    #[error("`{}` and its key cannot be used", .path.display())]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: CertificateError,
    },
    /// rustls does not take the settings.
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
}

/// Settings for a listener that shows these certificates: HTTP/2 and HTTP/1.1 by ALPN.
pub(super) fn server(certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets that no server has to remember: clients come back without a whole handshake.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// The certificates of one listener.
#[derive(Debug)]
pub(super) struct Certificates {
    files: Vec<TlsPair>,
    shown: ArcSwap<Shown>,
    /// What was last found at the files, and what was wrong with it.
    seen: Mutex<Vec<Seen>>,
}

/// What a handshake sees.
#[derive(Debug)]
struct Shown {
    /// In the order of the file; the first is for clients that ask for nobody we know.
    all: Vec<Arc<CertifiedKey>>,
    /// Index by DNS name, lower case; `*.example.com` as it stands.
    by_name: HashMap<Box<str>, usize>,
}

/// One pair of files as it was last looked at.
#[derive(Clone, Debug, Default)]
struct Seen {
    prints: Option<[Print; 2]>,
    names: Vec<Box<str>>,
    trouble: Option<String>,
}

/// Tells a file from what was at its path before: device, inode, size, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print(u64, u64, u64, i64, i64);

impl Print {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self(
            found.dev(),
            found.ino(),
            found.size(),
            found.mtime(),
            found.mtime_nsec(),
        ))
    }
}

impl Certificates {
    /// Reads all of them; one that cannot be used is an error, as at any start.
    pub(super) fn read(files: &[TlsPair]) -> Result<Arc<Self>, TlsError> {
        let mut seen = Vec::new();
        let mut keys = Vec::new();
        for pair in files {
            let prints = prints(pair)?;
            let read = read(pair)?;
            keys.push(Arc::new(read.key));
            seen.push(Seen {
                prints: Some(prints),
                names: read.names,
                trouble: None,
            });
        }
        Ok(Arc::new(Self {
            files: files.to_vec(),
            shown: ArcSwap::from_pointee(Shown::new(keys, &seen)),
            seen: Mutex::new(seen),
        }))
    }

    /// Looks at the files for as long as the process runs.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let this = self.clone();
            // A file system that hangs keeps its own thread, not the control runtime.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Takes over what has changed. A pair that does not fit leaves the one before in place, and is tried again: between
    /// the writing of the two files they never fit.
    fn look(&self) {
        // Not locked while files are read: only this task writes it.
        let mut all = self.seen.lock().clone();
        let mut keys = self.shown.load().all.clone();
        let mut renewed = false;
        for ((pair, seen), key) in self.files.iter().zip(&mut all).zip(&mut keys) {
            let found = prints(pair);
            if let (Ok(prints), None) = (&found, &seen.trouble)
                && seen.prints == Some(*prints)
            {
                continue;
            }
            let path = pair.cert.display();
            match found.and_then(|prints| Ok((prints, read(pair)?))) {
                Ok((prints, read)) => {
                    if seen.prints != Some(prints) {
                        tracing::info!(certificate = %path, "certificate renewed");
                        *key = Arc::new(read.key);
                        seen.names = read.names;
                        renewed = true;
                    }
                    seen.prints = Some(prints);
                    seen.trouble = None;
                }
                Err(error) => {
                    let trouble = crate::base::cause::chain(&error);
                    if seen.trouble.as_ref() != Some(&trouble) {
                        tracing::error!(certificate = %path, reason = trouble, "certificate not renewed; the one before is still shown");
                    }
                    seen.trouble = Some(trouble);
                }
            }
        }
        if renewed {
            self.shown.store(Arc::new(Shown::new(keys, &all)));
        }
        *self.seen.lock() = all;
    }

    /// What is wrong with files that have changed, for `/readyz`.
    pub(super) fn troubles(&self) -> Vec<String> {
        let seen = self.seen.lock();
        let troubled = self.files.iter().zip(seen.iter());
        troubled
            .filter(|(_, seen)| seen.trouble.is_some())
            .map(|(pair, _)| format!("the certificate {} cannot be renewed", pair.cert.display()))
            .collect()
    }
}

impl Shown {
    fn new(all: Vec<Arc<CertifiedKey>>, seen: &[Seen]) -> Self {
        let mut by_name = HashMap::new();
        for (at, seen) in seen.iter().enumerate() {
            for name in &seen.names {
                by_name.entry(name.clone()).or_insert(at);
            }
        }
        Self { all, by_name }
    }

    /// The one for this name: its own, then that of a wildcard for its first label (RFC 9525 §6.3), else the first.
    fn for_name(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let found = name.map(str::to_ascii_lowercase).and_then(|name| {
            self.by_name.get(&*name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.by_name.get(&*format!("*.{parent}"))
            })
        });
        self.all.get(found.copied().unwrap_or(0))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown.load().for_name(hello.server_name()).cloned()
    }
}

fn prints(pair: &TlsPair) -> Result<[Print; 2], TlsError> {
    let print = |path: &PathBuf| {
        Print::of(path).map_err(|source| TlsError::File {
            path: path.clone(),
            source,
        })
    };
    Ok([print(&pair.cert)?, print(&pair.key)?])
}

fn read(pair: &TlsPair) -> Result<certificate::Certificate, TlsError> {
    let (chain, key) = (bytes_of(&pair.cert)?, bytes_of(&pair.key)?);
    certificate::read(&chain, &key).map_err(|source| TlsError::Certificate {
        path: pair.cert.clone(),
        source,
    })
}

fn bytes_of(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, TlsError> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(PEM_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .and_then(|count| match count {
            0..=PEM_BYTES_MAX => Ok(()),
            _ => Err(io::Error::other("it is larger than 1 MiB")),
        })
        .map_err(|source| TlsError::File {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn vector(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/vectors/tls")
            .join(name)
    }

    fn vectors(name: &str) -> TlsPair {
        TlsPair {
            cert: vector(&format!("{name}.pem")),
            key: vector(&format!("{name}-key.pem")),
        }
    }

    fn shown(certificates: &Certificates, name: Option<&str>) -> Vec<u8> {
        let shown = certificates.shown.load();
        shown.for_name(name).unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
        let (app, other) = (vectors("app.test"), vectors("other.test"));
        let certificates = Certificates::read(&[app.clone(), other.clone()]).unwrap();
        let app = read(&app).unwrap().key.cert[0].to_vec();
        let other = read(&other).unwrap().key.cert[0].to_vec();
        assert_ne!(app, other);
        for (name, expected) in [
            (Some("app.test"), &app),
            (Some("OTHER.test"), &other),
            (Some("www.other.test"), &other),
            (Some("a.b.other.test"), &app),
            (Some("unknown.test"), &app),
            (Some("test"), &app),
            (None, &app),
        ] {
            assert_eq!(&shown(&certificates, name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_pair_that_does_not_fit_leaves_the_one_before_in_place_until_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let pair = TlsPair {
            cert: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        // Renamed into place, as whoever renews certificates does it.
        let put = |from: PathBuf, to: &Path| {
            let new = folder.path().join("new");
            fs::copy(from, &new).unwrap();
            fs::rename(new, to).unwrap();
        };
        let (app, other) = (vectors("app.test"), vectors("other.test"));
        put(app.cert.clone(), &pair.cert);
        put(app.key.clone(), &pair.key);
        let certificates = Certificates::read(std::slice::from_ref(&pair)).unwrap();
        let before = shown(&certificates, None);
        certificates.look();
        assert_eq!(shown(&certificates, None), before);

        put(other.cert.clone(), &pair.cert);
        certificates.look();
        assert_eq!(shown(&certificates, None), before, "its key is the old one");
        assert_eq!(certificates.troubles().len(), 1);

        put(other.key.clone(), &pair.key);
        certificates.look();
        let after = shown(&certificates, None);
        assert_ne!(after, before);
        assert_eq!(shown(&certificates, Some("other.test")), after);
        assert_eq!(certificates.troubles().len(), 0);

        fs::remove_file(&pair.cert).unwrap();
        certificates.look();
        assert_eq!(shown(&certificates, None), after, "a file that is gone");
        assert_eq!(certificates.troubles().len(), 1);
        put(other.cert, &pair.cert);
        certificates.look();
        assert_eq!(certificates.troubles().len(), 0);
    }

    #[test]
    fn a_start_with_a_pair_that_does_not_fit_fails() {
        let pair = TlsPair {
            cert: vectors("app.test").cert,
            key: vectors("other.test").key,
        };
        let error = Certificates::read(&[pair]).unwrap_err();
        assert!(matches!(
            error,
            TlsError::Certificate {
                source: CertificateError::Mismatch,
                ..
            }
        ));
    }
}
