//! A certificate chain and the key that belongs to it, from PEM (RFC 7468). What comes out of here fits together: a key
//! of another certificate is an error, not a handshake that fails later.

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates of one chain, at most.
const CHAIN_MAX: usize = 16;

/// Largest PEM file that is read, in bytes.
pub const PEM_BYTES_MAX: usize = 1 << 20;

/// Why two files are no certificate and key. Says what to look at, never what a key holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Nothing between `BEGIN CERTIFICATE` and `END CERTIFICATE`, or something broken.
    #[error("the certificate file holds no certificate in PEM")]
    NoCertificate,
    /// More than 16 certificates.
    #[error(
        "the certificate file holds more than {CHAIN_MAX} certificates; it should hold one chain, the server's own first"
    )]
    TooMany,
    /// No private key in any of the usual forms.
    #[error("the key file holds no unencrypted private key in PEM")]
    NoKey,
    /// A certificate that cannot be read, or a kind of key that TLS cannot use.
    #[error("the certificate or its key cannot be used: {0}")]
    Unusable(Box<str>),
    /// Its time is over.
    #[error("the certificate has expired")]
    Expired,
    /// Its time has not come.
    #[error("the certificate is not valid yet")]
    NotYet,
    /// The key is another certificate's.
    #[error("the key does not belong to the certificate")]
    Mismatch,
}

/// A certificate ready to be shown, and the names it stands for.
#[derive(Debug)]
pub struct Certificate {
    /// Chain and signing key.
    pub key: CertifiedKey,
    /// The DNS names of the first certificate (RFC 9525), lower case; `*.example.com` as it stands.
    pub names: Vec<Box<str>>,
    /// From when and until when it is valid (RFC 5280 §4.1.2.5), in Unix seconds.
    pub valid: (i64, i64),
}

impl Certificate {
    /// Whether it is valid now.
    pub fn check_time(&self, unix_now: i64) -> Result<(), CertificateError> {
        if unix_now < self.valid.0 {
            return Err(CertificateError::NotYet);
        }
        if unix_now > self.valid.1 {
            return Err(CertificateError::Expired);
        }
        Ok(())
    }
}

/// Reads a chain, the server's own certificate first, and its key.
pub fn read(chain: &[u8], key: &[u8]) -> Result<Certificate, CertificateError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .take(CHAIN_MAX + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::NoCertificate)?;
    if chain.len() > CHAIN_MAX {
        return Err(CertificateError::TooMany);
    }
    let first = chain.first().ok_or(CertificateError::NoCertificate)?;
    let unusable = |error: &dyn std::fmt::Display| {
        CertificateError::Unusable(error.to_string().into_boxed_str())
    };
    let valid = validity(first).ok_or_else(|| unusable(&"its time of validity cannot be read"))?;
    let names = webpki::EndEntityCert::try_from(first)
        .map_err(|error| match error {
            webpki::Error::UnsupportedCertVersion => {
                unusable(&"it is of X.509 version 1; make one of version 3, with its names in `subjectAltName`")
            }
            error => unusable(&error),
        })?
        .valid_dns_names()
        .map(|name| name.to_ascii_lowercase().into_boxed_str())
        .collect();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
    // This one compares the key with the certificate.
    let key = CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch,
            error => unusable(&error),
        })?;
    Ok(Certificate { key, names, valid })
}

/// `notBefore` and `notAfter`: the one pair of times in the signed part.
fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    use simple_asn1::ASN1Block::{GeneralizedTime, Sequence, UTCTime};
    let blocks = simple_asn1::from_der(certificate).ok()?;
    let Sequence(_, certificate) = blocks.first()? else {
        return None;
    };
    let Sequence(_, signed) = certificate.first()? else {
        return None;
    };
    signed.iter().find_map(|block| match block {
        Sequence(_, pair) => match pair.as_slice() {
            [
                UTCTime(_, from) | GeneralizedTime(_, from),
                UTCTime(_, until) | GeneralizedTime(_, until),
            ] => Some((
                from.assume_utc().unix_timestamp(),
                until.assume_utc().unix_timestamp(),
            )),
            _ => None,
        },
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = include_bytes!("../../tests/vectors/tls/app.test.pem");
    const KEY: &[u8] = include_bytes!("../../tests/vectors/tls/app.test-key.pem");
    const OTHER_KEY: &[u8] = include_bytes!("../../tests/vectors/tls/other.test-key.pem");

    fn check(chain: &[u8], key: &[u8], expected: CertificateError) {
        assert_eq!(read(chain, key).unwrap_err(), expected);
    }

    #[test]
    fn a_certificate_comes_with_the_names_it_stands_for() {
        let read = read(CERTIFICATE, KEY).unwrap();
        let names: Vec<&str> = read.names.iter().map(|name| &**name).collect();
        assert_eq!(names, ["app.test", "*.app.test"]);
    }

    #[test]
    fn a_certificate_has_its_time() {
        let read = read(CERTIFICATE, KEY).unwrap();
        let (from, until) = read.valid;
        // A hundred years.
        assert_eq!(until - from, 36_500 * 86_400);
        assert!(read.check_time(from).is_ok() && read.check_time(until).is_ok());
        assert_eq!(read.check_time(from - 1), Err(CertificateError::NotYet));
        assert_eq!(read.check_time(until + 1), Err(CertificateError::Expired));
    }

    #[test]
    fn files_that_do_not_fit_are_told_apart() {
        check(KEY, KEY, CertificateError::NoCertificate);
        check(b"", KEY, CertificateError::NoCertificate);
        check(CERTIFICATE, b"", CertificateError::NoKey);
        check(CERTIFICATE, CERTIFICATE, CertificateError::NoKey);
        check(CERTIFICATE, OTHER_KEY, CertificateError::Mismatch);
        let half = &CERTIFICATE[..CERTIFICATE.len() / 2];
        check(half, KEY, CertificateError::NoCertificate);
        check(
            &CERTIFICATE.repeat(CHAIN_MAX + 1),
            KEY,
            CertificateError::TooMany,
        );
    }

    #[test]
    fn a_chain_of_garbage_is_no_certificate() {
        let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            read(garbage, KEY).unwrap_err(),
            CertificateError::Unusable(_)
        ));
    }
}
