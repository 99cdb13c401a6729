//! TLS as a client speaks it, with the certificates of `tests/vectors/tls`: for app.test and 127.0.0.1, and for
//! other.test. Both are trusted; which one was shown is for the test to say.

use super::client::dial;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

/// A connection that has its handshake behind it.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// TLS 1.2 and 1.3.
pub const BOTH: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;

/// A file of the vectors.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors/tls")
        .join(name)
}

/// The certificate of this name.
pub fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap()
}

/// A `[[listeners]]` with TLS and these pairs of the vectors.
pub fn listener(names: &[&str]) -> String {
    let pairs: Vec<_> = names
        .iter()
        .map(|name| {
            let (cert, key) = (
                file(&format!("{name}.pem")),
                file(&format!("{name}-key.pem")),
            );
            format!("{{ cert = {cert:?}, key = {key:?} }}")
        })
        .collect();
    format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = [{}]\n",
        pairs.join(", ")
    )
}

/// What a client offers.
pub fn offer(alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyOfOurs::new()))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A handshake to its end. A name that is an address is not told (RFC 6066 §3).
pub fn shake(stream: TcpStream, name: &str, config: Arc<ClientConfig>) -> io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(config, name).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        if tls.conn.complete_io(&mut tls.sock)? == (0, 0) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(tls)
}

/// A connection to this name, with these protocols offered.
pub fn connect(address: SocketAddr, name: &str, alpn: &[&str]) -> Tls {
    shake(dial(address), name, Arc::new(offer(alpn, BOTH))).unwrap()
}

/// The certificate that was shown.
pub fn shown(tls: &Tls) -> CertificateDer<'static> {
    tls.conn.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// Trusts both certificates, for whatever name they were shown.
#[derive(Debug)]
struct AnyOfOurs(Arc<WebPkiServerVerifier>);

impl AnyOfOurs {
    fn new() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate("app.test")).unwrap();
        roots.add(certificate("other.test")).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Self(verifier.build().unwrap())
    }
}

impl ServerCertVerifier for AnyOfOurs {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _asked: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let as_if = |name| {
            let name = ServerName::try_from(name).unwrap();
            self.0
                .verify_server_cert(end_entity, intermediates, &name, ocsp, now)
        };
        as_if("app.test").or_else(|_| as_if("other.test"))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
