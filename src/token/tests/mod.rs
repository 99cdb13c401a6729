//! Tests of the whole room, against a key server on a real socket that counts who asks.

mod cache;
mod claims;
mod keys;
mod signature;
mod streams;

use super::*;
use crate::base::secret::Secret;
use crate::config::provider::{KeySource, ProviderKind};
use crate::config::value::ClaimPath;
use crate::token::inspect::Finding;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature as sig;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use url::Url;

/// 2026-01-01T00:00:00Z
pub(super) const NOW: u64 = 1_767_225_600;
pub(super) const ISSUER: &str = "https://xyz.supabase.co/auth/v1";
pub(super) const SECRET: &[u8] = b"a shared secret of 32 bytes, yes";

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What a look at a token finds must be what verification finds.
pub(super) async fn looks_alike(tokens: &Tokens, token: &str) {
    let verified = tokens.verify(token.as_bytes()).await;
    let seen = tokens.inspect(None, token.as_bytes(), |_| false).await;
    assert_eq!(seen.fault(), verified.as_ref().err(), "{token}");
    if let Ok(identity) = verified {
        assert_eq!(seen.identity, Some(identity), "{token}");
        assert!(seen.findings().all(|(_, found)| *found == Finding::Holds));
    }
}

/// A key pair of the provider.
pub(super) struct Signer {
    pub(super) algorithm: &'static str,
    pub(super) kid: Option<&'static str>,
    pair: Pair,
}

enum Pair {
    Ec(sig::EcdsaKeyPair, &'static str),
    Ed(sig::Ed25519KeyPair),
    Rsa(sig::RsaKeyPair),
    Secret(Vec<u8>),
}

impl Signer {
    pub(super) fn new(algorithm: &'static str, kid: &'static str) -> Self {
        let pair = match algorithm {
            "ES256" => Pair::Ec(
                sig::EcdsaKeyPair::generate(&sig::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
                "P-256",
            ),
            "ES384" => Pair::Ec(
                sig::EcdsaKeyPair::generate(&sig::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
                "P-384",
            ),
            "EdDSA" => Pair::Ed(sig::Ed25519KeyPair::generate().unwrap()),
            "HS256" => Pair::Secret(SECRET.to_vec()),
            _ => Pair::Rsa(sig::RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        };
        Self {
            algorithm,
            kid: Some(kid),
            pair,
        }
    }

    pub(super) fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Ec(pair, curve) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(match *curve {
                    "P-256" => 32,
                    _ => 48,
                });
                json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
            }
            Pair::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())})
            }
            Pair::Rsa(pair) => {
                let parts = &jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.key_utils;
                let (n, e) =
                    (parts.rsa_pub_components_from_public_key)(pair.public_key().as_ref()).unwrap();
                json!({"kty": "RSA", "n": b64(n), "e": b64(e)})
            }
            Pair::Secret(secret) => json!({"kty": "oct", "k": b64(secret)}),
        };
        jwk["alg"] = self.algorithm.into();
        jwk["use"] = "sig".into();
        if let Some(kid) = self.kid {
            jwk["kid"] = kid.into();
        }
        jwk
    }

    pub(super) fn header(&self) -> Value {
        let mut header = json!({"alg": self.algorithm, "typ": "JWT"});
        if let Some(kid) = self.kid {
            header["kid"] = kid.into();
        }
        header
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        self.raw(&self.header().to_string(), &claims.to_string())
    }

    /// Signs whatever stands there.
    pub(super) fn raw(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(payload));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let encoding: &dyn sig::RsaEncoding = match self.algorithm {
                    "RS256" => &sig::RSA_PKCS1_SHA256,
                    "RS384" => &sig::RSA_PKCS1_SHA384,
                    "RS512" => &sig::RSA_PKCS1_SHA512,
                    "PS256" => &sig::RSA_PSS_SHA256,
                    other => unreachable!("{other}"),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Pair::Secret(secret) => {
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
                aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
            }
        }
    }
}

pub(super) fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<_> = signers.iter().map(|s| s.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// Claims as Supabase writes them.
pub(super) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "authenticated", "sub": "3f0c9a52-7d3d-4f10-b7f0-6e2f4f6d1a11",
        "exp": NOW + 3600, "iat": NOW, "role": "authenticated", "aal": "aal1",
        "session_id": "0b6dfd1c-0a55-4a1f-9c5e-5a1b5c1f7a10", "is_anonymous": false,
        "app_metadata": {"role": "editor", "roles": ["admin", "editor"]}
    })
}

/// `claims()` with other members on top; `null` takes one away.
pub(super) fn with(patch: Value) -> Value {
    let mut all = claims();
    for (name, value) in patch.as_object().unwrap() {
        if value.is_null() {
            all.as_object_mut().unwrap().remove(name);
        } else {
            all[name] = value.clone();
        }
    }
    all
}

/// A Supabase provider with the defaults of the contract.
pub(super) fn provider(jwks: Option<&Url>) -> Provider {
    let path = |steps: &[&str]| ClaimPath(steps.iter().map(|s| Arc::from(*s)).collect());
    Provider {
        name: "main".into(),
        kind: ProviderKind::Supabase {
            auth_api: ISSUER.parse().unwrap(),
            public_api: ISSUER.parse().unwrap(),
            publishable_key: None,
            secret_key: None,
            anonymous_users: false,
            service_role: false,
        },
        issuer: Some(ISSUER.into()),
        audiences: Some(vec!["authenticated".into()]),
        keys: KeySource {
            jwks_url: jwks.cloned(),
            secret: None,
            public_key: None,
        },
        algorithms: vec![Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA],
        leeway: Duration::from_secs(30),
        jwks_ttl: Duration::from_secs(600),
        jwks_max_stale: Duration::from_secs(24 * 3600),
        jwks_refetch_cooldown: Duration::from_secs(10),
        roles: vec![
            path(&["user_role"]),
            path(&["app_metadata", "role"]),
            path(&["app_metadata", "roles"]),
        ],
        user_id_claim: path(&["sub"]),
        user_prefix: "".into(),
        max_token_bytes: 8192,
        http_timeout: Duration::from_secs(5),
        ca_file: None,
        allow_insecure_http: false,
        cookie_name: None,
    }
}

pub(super) fn with_secret(mut provider: Provider) -> Provider {
    provider.keys.secret = Some(Secret::new(SECRET.to_vec()));
    provider.algorithms.push(Algorithm::HS256);
    provider
}

pub(super) fn tokens(providers: &[Provider], clock: &Clock) -> Tokens {
    Tokens::new(providers, clock.clone(), Handle::current(), None).unwrap()
}

/// Why a token is refused; panics when it is not.
pub(super) async fn refusal(tokens: &Tokens, token: &str) -> Reason {
    looks_alike(tokens, token).await;
    match tokens.verify(token.as_bytes()).await {
        Err(TokenError::Refused { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// A key server: what it answers can be changed, who asks is counted, and answers can be held back.
pub(super) struct KeyServer {
    pub(super) url: Url,
    hits: Arc<AtomicUsize>,
    answer: Arc<Mutex<Answer>>,
    /// One permit an answer; closed when answers are free.
    gate: Arc<Semaphore>,
    arrived: Arc<tokio::sync::Notify>,
}

#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) location: Option<String>,
}

impl Answer {
    pub(super) fn ok(body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            location: None,
        }
    }
}

impl KeyServer {
    pub(super) async fn start(body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self::on(listener, body);
        server.gate.close();
        server
    }

    /// Answers only as often as it is told to.
    pub(super) async fn holding(body: String) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), body)
    }

    pub(super) fn on(listener: TcpListener, body: String) -> Self {
        let address = listener.local_addr().unwrap();
        let server = Self {
            url: format!("http://{address}/jwks").parse().unwrap(),
            hits: Arc::default(),
            answer: Arc::new(Mutex::new(Answer::ok(body))),
            gate: Arc::new(Semaphore::new(0)),
            arrived: Arc::default(),
        };
        let (hits, answer) = (server.hits.clone(), server.answer.clone());
        let (gate, arrived) = (server.gate.clone(), server.arrived.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (hits, answer) = (hits.clone(), answer.clone());
                let (gate, arrived) = (gate.clone(), arrived.clone());
                let service = hyper::service::service_fn(move |_request| {
                    let (hits, answer) = (hits.clone(), answer.clone());
                    let (gate, arrived) = (gate.clone(), arrived.clone());
                    async move {
                        hits.fetch_add(1, Ordering::SeqCst);
                        arrived.notify_one();
                        if let Ok(permit) = gate.acquire().await {
                            permit.forget();
                        }
                        let answer = answer.lock().clone();
                        let mut response = http::Response::builder().status(answer.status);
                        if let Some(location) = answer.location {
                            response = response.header("location", location);
                        }
                        response.body(Full::new(answer.body))
                    }
                });
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    pub(super) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    /// Lets one held answer go.
    pub(super) fn let_one_go(&self) {
        self.gate.add_permits(1);
    }

    /// Waits until somebody has asked since the last call.
    pub(super) async fn asked(&self) {
        self.arrived.notified().await;
    }
}
