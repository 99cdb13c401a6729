//! TLS towards clients: which certificate is shown to whom, and how certificates are renewed without a restart. TLS 1.2
//! and 1.3, nothing older, by rustls and aws-lc-rs.

use crate::base::certificate::{self, Certificate, CertificateError, PEM_BYTES_MAX};
use crate::config::interpolate::{Environment, ProcessEnvironment};
use crate::config::listener::TlsPair;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the files are looked at. A look costs a few system calls; unlike events it also works on network and
/// overlay file systems, and where a whole folder is swapped by a link (Kubernetes).
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("`{}` {reason}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The end of the sentence.
        reason: String,
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
#[derive(Clone, Debug)]
struct Seen {
    prints: [Print; 2],
    names: Vec<Box<str>>,
    /// Of the certificate that is shown.
    valid: (i64, i64),
    /// What is wrong with the files as they are now.
    trouble: Option<String>,
    /// What has been said about the end of the shown one.
    told: Age,
}

/// How much of its time a certificate has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Good,
    /// Somebody should have renewed it: a tenth of its time or a week is left, whichever is less.
    Late,
    /// Clients refuse it.
    Over,
}

impl Age {
    fn of(valid: (i64, i64), now: i64) -> Self {
        let (from, until) = valid;
        let margin = ((until - from) / 10).min(7 * 86_400);
        if now > until || now < from {
            Self::Over
        } else if now > until - margin {
            Self::Late
        } else {
            Self::Good
        }
    }
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
                prints,
                names: read.names,
                valid: read.valid,
                trouble: None,
                told: Age::Good,
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
            let _ = tokio::task::spawn_blocking(move || this.look(unix_now())).await;
        }
    }

    /// Takes over what has changed. A pair that does not fit, or whose time is over, leaves the one before in place, and is
    /// tried again: between the writing of the two files they never fit.
    fn look(&self, now: i64) {
        // Not locked while files are read: only this task writes it.
        let mut all = self.seen.lock().clone();
        let mut keys = self.shown.load().all.clone();
        let mut renewed = false;
        for ((pair, seen), key) in self.files.iter().zip(&mut all).zip(&mut keys) {
            if let Some(fresh) = seen.look(pair, now) {
                *key = Arc::new(fresh);
                renewed = true;
            }
            seen.tell_age(pair, now);
        }
        if renewed {
            self.shown.store(Arc::new(Shown::new(keys, &all)));
        }
        *self.seen.lock() = all;
    }

    /// What is wrong with the certificates, for `/readyz`.
    pub(super) fn troubles(&self) -> Vec<String> {
        let seen = self.seen.lock();
        let mut troubles = Vec::new();
        for (pair, seen) in self.files.iter().zip(seen.iter()) {
            let path = pair.cert.display();
            if seen.trouble.is_some() {
                troubles.push(format!("the certificate {path} cannot be renewed"));
            }
            match seen.told {
                Age::Good => {}
                Age::Late => troubles.push(format!("the certificate {path} expires soon")),
                Age::Over => troubles.push(format!("the certificate {path} is not valid now")),
            }
        }
        troubles
    }
}

impl Seen {
    /// The key to show from now on, if there is a new one that can be shown.
    fn look(&mut self, pair: &TlsPair, now: i64) -> Option<CertifiedKey> {
        let found = prints(pair);
        if let (Ok(prints), None) = (&found, &self.trouble)
            && self.prints == *prints
        {
            return None;
        }
        let path = pair.cert.display();
        match found.and_then(|prints| Ok((prints, self.read_better(pair, now)?))) {
            Ok((prints, read)) => {
                self.trouble = None;
                if std::mem::replace(&mut self.prints, prints) == prints {
                    return None;
                }
                tracing::info!(certificate = %path, "certificate renewed");
                self.names = read.names;
                self.valid = read.valid;
                self.told = Age::Good;
                Some(read.key)
            }
            Err(error) => {
                let trouble = crate::base::cause::chain(&error);
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::error!(certificate = %path, reason = trouble, "certificate not renewed; the one before is still shown");
                }
                self.trouble = Some(trouble);
                None
            }
        }
    }

    /// Reads what is there now. A certificate out of its time is no better than one that still has some.
    fn read_better(&self, pair: &TlsPair, now: i64) -> Result<Certificate, TlsError> {
        let read = read(pair)?;
        if Age::of(self.valid, now) != Age::Over {
            read.check_time(now).map_err(|source| wrong(pair, source))?;
        }
        Ok(read)
    }

    /// Says it once when the shown one should have been renewed, and once when its time is over.
    fn tell_age(&mut self, pair: &TlsPair, now: i64) {
        let age = Age::of(self.valid, now);
        if std::mem::replace(&mut self.told, age) == age {
            return;
        }
        let path = pair.cert.display();
        match age {
            Age::Good => {}
            Age::Late => tracing::warn!(certificate = %path, "certificate expires soon"),
            Age::Over => tracing::error!(certificate = %path, "certificate is not valid now"),
        }
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
        Print::of(path).map_err(|error| TlsError::File {
            path: path.clone(),
            reason: format!("cannot be looked at: {error}"),
        })
    };
    Ok([print(&pair.cert)?, print(&pair.key)?])
}

/// Under the same conditions as every file of the configuration: not too large, and written by nobody else.
fn read(pair: &TlsPair) -> Result<Certificate, TlsError> {
    let files = ProcessEnvironment::default();
    let text = |path: &PathBuf| match files.file(path, PEM_BYTES_MAX) {
        Ok(text) => Ok(zeroize::Zeroizing::new(text)),
        Err(reason) => Err(TlsError::File {
            path: path.clone(),
            reason,
        }),
    };
    let (chain, key) = (text(&pair.cert)?, text(&pair.key)?);
    certificate::read(chain.as_bytes(), key.as_bytes()).map_err(|source| wrong(pair, source))
}

fn wrong(pair: &TlsPair, source: CertificateError) -> TlsError {
    TlsError::Certificate {
        path: pair.cert.clone(),
        source,
    }
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
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
        certificates.look(unix_now());
        assert_eq!(shown(&certificates, None), before);

        put(other.cert.clone(), &pair.cert);
        certificates.look(unix_now());
        assert_eq!(shown(&certificates, None), before, "its key is the old one");
        assert_eq!(certificates.troubles().len(), 1);

        put(other.key.clone(), &pair.key);
        certificates.look(unix_now());
        let after = shown(&certificates, None);
        assert_ne!(after, before);
        assert_eq!(shown(&certificates, Some("other.test")), after);
        assert_eq!(certificates.troubles().len(), 0);

        fs::remove_file(&pair.cert).unwrap();
        certificates.look(unix_now());
        assert_eq!(shown(&certificates, None), after, "a file that is gone");
        assert_eq!(certificates.troubles().len(), 1);
        put(other.cert, &pair.cert);
        certificates.look(unix_now());
        assert_eq!(certificates.troubles().len(), 0);
    }

    #[test]
    fn a_certificate_that_gets_old_is_told_once_and_one_out_of_its_time_replaces_none_that_is_in_it()
     {
        let certificates = Certificates::read(&[vectors("app.test")]).unwrap();
        let (from, until) = read(&vectors("app.test")).unwrap().valid;
        let told = |now| {
            certificates.look(now);
            certificates.troubles()
        };
        assert_eq!(told(until - 8 * 86_400), [""; 0]);
        assert!(told(until - 6 * 86_400)[0].ends_with("expires soon"));
        assert!(told(until + 1)[0].ends_with("is not valid now"));
        assert!(told(from - 1)[0].ends_with("is not valid now"));
        let mut seen = certificates.seen.lock()[0].clone();
        let pair = vectors("other.test");
        seen.valid = (from, until + 20 * 86_400);
        let over = until + 10 * 86_400;
        assert!(seen.look(&pair, over).is_none());
        assert!(seen.trouble.as_ref().unwrap().contains("has expired"));
        seen.valid = (from, until);
        assert!(seen.look(&pair, over).is_some(), "nothing better is shown");
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
