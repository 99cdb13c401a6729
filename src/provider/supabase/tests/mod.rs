//! Calls over real sockets, to a provider that keeps what it received and misbehaves as told.

mod logins;
mod refresh;
mod shared;

use super::*;
use crate::config::provider::KeySource;
use crate::config::value::{ClaimPath, Rate};
use parking_lot::Mutex;
use std::num::NonZeroU32;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// 2026-01-01T00:00:00Z
const NOW: u64 = 1_767_225_600;
const KEY: &str = "sb_publishable_test";
/// A session as the provider answers it.
const SESSION: &str = r#"{"access_token":"secret-access","token_type":"bearer","expires_in":3600,"expires_at":1767229200,"refresh_token":"secret-next00","user":{"id":"u"}}"#;

/// What the provider does with one request.
#[derive(Clone, Debug)]
enum Reply {
    /// This status and JSON.
    Json(u16, &'static str),
    /// These bytes, and the end.
    Bytes(String),
    /// Nothing, ever.
    Hang,
    /// The end before any byte.
    Cut,
}

/// A provider on a port of its own. The last reply is that to all further requests.
struct Raw {
    url: Url,
    received: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    async fn start(replies: impl Into<Vec<Reply>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/auth/v1", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<String>>> = Arc::default();
        let (replies, seen): (Vec<Reply>, _) = (replies.into(), received.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (replies, seen) = (replies.clone(), seen.clone());
                tokio::spawn(async move { serve(stream, &replies, &seen).await });
            }
        });
        Self {
            url: url.parse().unwrap(),
            received,
        }
    }

    fn calls(&self) -> usize {
        self.received.lock().len()
    }

    /// The text of the only request.
    fn only(&self) -> String {
        let received = self.received.lock();
        assert_eq!(received.len(), 1);
        received[0].clone()
    }
}

async fn serve(mut stream: TcpStream, replies: &[Reply], seen: &Mutex<Vec<String>>) {
    let mut text = String::new();
    while let Ok(more @ 1..) = read_some(&mut stream, &mut text).await {
        let _ = more;
        if is_whole(&text) {
            break;
        }
    }
    if !is_whole(&text) {
        return;
    }
    let at = {
        let mut seen = seen.lock();
        seen.push(text);
        seen.len() - 1
    };
    let bytes = match &replies[at.min(replies.len() - 1)] {
        Reply::Cut => return,
        Reply::Hang => std::future::pending().await,
        Reply::Bytes(bytes) => bytes.clone(),
        Reply::Json(status, json) => format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{json}",
            json.len()
        ),
    };
    let _ = stream.write_all(bytes.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn read_some(stream: &mut TcpStream, text: &mut String) -> std::io::Result<usize> {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes).await?;
    text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    Ok(count)
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = header(head, "content-length").map_or(0, |length| length.parse().unwrap());
    body.len() >= length
}

/// The only value of a header in the text of a request.
fn header<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let head = text.split("\r\n\r\n").next().unwrap();
    let values: Vec<&str> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect();
    assert!(values.len() < 2, "{name} twice");
    values.first().copied()
}

fn request_line(text: &str) -> &str {
    text.lines().next().unwrap()
}

fn body(text: &str) -> &str {
    text.split_once("\r\n\r\n").unwrap().1
}

fn provider(api: &Url, timeout: Duration) -> Provider {
    Provider {
        name: "main".into(),
        kind: ProviderKind::Supabase {
            auth_api: api.clone(),
            public_api: api.clone(),
            publishable_key: Some(Secret::new(KEY.into())),
            secret_key: None,
            anonymous_users: false,
            service_role: false,
        },
        issuer: None,
        audiences: None,
        keys: KeySource {
            jwks_url: None,
            secret: None,
            public_key: None,
        },
        algorithms: Vec::new(),
        leeway: Duration::ZERO,
        jwks_ttl: Duration::from_secs(600),
        jwks_max_stale: Duration::from_secs(600),
        jwks_refetch_cooldown: Duration::from_secs(10),
        roles: Vec::new(),
        user_id_claim: ClaimPath(vec!["sub".into()]),
        user_prefix: "".into(),
        max_token_bytes: 8192,
        http_timeout: timeout,
        ca_file: None,
        allow_insecure_http: false,
        cookie_name: None,
    }
}

/// A client with these many logins and codes in an hour.
fn client_with(
    provider: &Provider,
    secret_key: Option<&str>,
    logins: u32,
    clock: &Clock,
) -> Arc<Supabase> {
    let rate = Rate {
        count: NonZeroU32::new(logins).unwrap(),
        per: Duration::from_secs(3600),
    };
    let secret_key = secret_key.map(|key| Secret::new(key.to_owned()));
    let setup = Setup {
        public_api: None,
        secret_key: secret_key.as_ref(),
        budget: Arc::new(ProviderBudget::new(rate, rate, clock)),
        clock: clock.clone(),
        control: Handle::current(),
    };
    Arc::new(Supabase::new(provider, setup).unwrap().unwrap())
}

/// A client with a deadline of `ms` milliseconds.
fn client(raw: &Raw, ms: u64) -> Arc<Supabase> {
    let provider = provider(&raw.url, Duration::from_millis(ms));
    client_with(&provider, None, 1000, &Clock::frozen(NOW))
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn browser() -> Browser {
    Browser {
        user_agent: Some(http::HeaderValue::from_static("Mozilla/5.0 (test)")),
        address: Some("::ffff:192.0.2.7".parse().unwrap()),
    }
}

/// What a refresh comes to, in a word or two.
fn told(outcome: Result<Grant, RefreshError>) -> String {
    match outcome {
        Ok(grant) => {
            assert_eq!(grant.text.expose(), SESSION);
            "session".into()
        }
        Err(RefreshError::Over { code }) => format!("over {code}"),
        Err(RefreshError::NotOurs) => "not ours".into(),
        Err(RefreshError::Later { retry_after, .. }) => {
            retry_after.map_or("later".into(), |wait| format!("later {}", wait.as_secs()))
        }
        Err(RefreshError::Misconfigured { .. }) => "misconfigured".into(),
    }
}
