//! What `tollhouse demo` puts behind the gateway, in this process and on loopback only: a development identity
//! provider, an echo upstream and a page. Nothing here is used by `tollhouse run`.

pub mod echo;
mod file;
mod listen;
pub mod page;
pub mod provider;
mod random;
mod serve;

pub use file::file;
pub use listen::{Listen, ListenError};

use crate::base::key::KEY_BYTES;
use crate::base::secret::Secret;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use provider::{Provider, Settings, UserError};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;

/// 20 characters out of 31: 99 bits.
const PASSWORD_CHARACTERS: usize = 20;

/// Where the three servers listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The identity provider; its API is below `/auth/v1`.
    pub provider: SocketAddr,
    /// The echo upstream.
    pub echo: SocketAddr,
    /// The page.
    pub page: SocketAddr,
}

/// Somebody who can log in.
#[derive(Clone, Debug)]
pub struct Account {
    /// `ada@example.com`
    pub email: &'static str,
    /// `app_metadata.role`
    pub role: &'static str,
    /// Made for this run; to be shown to the person at the terminal and nobody else.
    pub password: Secret<String>,
}

/// The keys of the gateway's file, made for this run.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The provider's publishable key. Not a secret: every application carries it.
    pub publishable: String,
    /// Seals the sessions, as `session.keys` has it.
    pub session: Secret<String>,
}

/// Why the demo did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No port on loopback.
    #[error("could not listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// No randomness or keys.
    #[error(transparent)]
    Crypto(#[from] provider::CryptoError),
    /// The accounts could not be made.
    #[error(transparent)]
    User(#[from] UserError),
}

/// The three servers at work. They end with [`Running::stop`], or with the runtime.
#[derive(Debug)]
pub struct Running {
    /// Where the gateway is to listen.
    pub listen: Listen,
    /// Where they listen.
    pub addresses: Addresses,
    /// Ada (user) and Grace (admin).
    pub accounts: [Account; 2],
    /// What the gateway's file holds.
    pub keys: Keys,
    /// The provider itself.
    pub provider: Provider,
    servers: serve::Servers,
}

/// Binds three ports of loopback, makes keys and accounts, and serves on the current tokio runtime. `listen`, with its
/// port, is where the gateway in front will be: tokens name that address, since browsers know no other.
pub async fn start(listen: Listen) -> Result<Running, StartError> {
    let (provider_at, provider_address) = bind().await?;
    let (echo_at, echo_address) = bind().await?;
    let (page_at, page_address) = bind().await?;

    let keys = Keys::random()?;
    let settings = Settings::new(listen.issuer(), keys.publishable.as_str());
    let provider = Provider::new(settings)?;
    let accounts = [
        account(&provider, "ada@example.com", "user")?,
        account(&provider, "grace@example.com", "admin")?,
    ];

    let servers = serve::Servers::default();
    let answering = provider.clone();
    servers.spawn(provider_at, move |request, _| {
        let provider = answering.clone();
        async move { provider.handle(request).await }
    });
    servers.spawn(echo_at, echo::handle);
    servers.spawn(page_at, |request, _| {
        let response = page::handle(&request);
        async move { response }
    });

    Ok(Running {
        listen,
        addresses: Addresses {
            provider: provider_address,
            echo: echo_address,
            page: page_address,
        },
        accounts,
        keys,
        provider,
        servers,
    })
}

impl Running {
    /// The text of the gateway's configuration file; see [`file()`].
    pub fn file(&self, admin: Option<SocketAddr>) -> String {
        file(&self.listen, admin, &self.addresses, &self.keys)
    }

    /// Stops accepting, lets requests in flight finish for a moment, then ends them.
    pub async fn stop(self) {
        self.servers.stop().await;
    }
}

impl Keys {
    fn random() -> Result<Self, provider::CryptoError> {
        let word = random::text(random::LOWER_ALPHANUMERIC, 24)?;
        let key = Secret::new(random::bytes::<KEY_BYTES>()?);
        Ok(Self {
            publishable: format!("sb_publishable_{word}"),
            session: Secret::new(BASE64_URL_SAFE_NO_PAD.encode(key.expose())),
        })
    }
}

async fn bind() -> Result<(TcpListener, SocketAddr), StartError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(StartError::Listen)?;
    let address = listener.local_addr().map_err(StartError::Listen)?;
    Ok((listener, address))
}

fn account(
    provider: &Provider,
    email: &'static str,
    role: &'static str,
) -> Result<Account, StartError> {
    let password = random::text(random::READABLE, PASSWORD_CHARACTERS)?;
    provider.add_user(email, &password, Some(role))?;
    Ok(Account {
        email,
        role,
        password: Secret::new(password),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen() -> Listen {
        "127.0.0.1:8080".parse().unwrap()
    }

    #[tokio::test]
    async fn all_three_answer_over_sockets_and_stop() {
        let running = start(listen()).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let Addresses {
            provider,
            echo,
            page,
        } = running.addresses;
        for address in [provider, echo, page] {
            assert!(address.ip().is_loopback());
        }

        let ada = &running.accounts[0];
        let session = client
            .post(format!(
                "http://{provider}/auth/v1/token?grant_type=password"
            ))
            .header("apikey", &running.keys.publishable)
            .json(&serde_json::json!({"email": ada.email, "password": ada.password.expose()}))
            .send()
            .await
            .unwrap();
        assert_eq!(session.status(), 200);
        let session: serde_json::Value = session.json().await.unwrap();
        assert_eq!(session["user"]["app_metadata"]["role"], "user");
        let token = session["access_token"].as_str().unwrap();
        let claims = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(token).unwrap();
        // What an application with the demo's address as its project URL expects.
        assert_eq!(claims.claims["iss"], "http://127.0.0.1:8080/auth/v1");

        let echoed = client
            .get(format!("http://{echo}/api/me"))
            .header("x-user-id", "ada");
        let echoed: serde_json::Value = echoed.send().await.unwrap().json().await.unwrap();
        assert_eq!(echoed["path"], "/api/me");

        let html = client.get(format!("http://{page}/")).send().await.unwrap();
        assert!(html.text().await.unwrap().contains("document.cookie"));

        running.stop().await;
        assert!(client.get(format!("http://{page}/")).send().await.is_err());
    }

    #[tokio::test]
    async fn secrets_are_random_long_and_not_in_debug_output() {
        let running = start(listen()).await.unwrap();
        let [ada, grace] = &running.accounts;
        assert_ne!(ada.password.expose(), grace.password.expose());
        assert!(ada.password.expose().len() >= 16);
        let key = &running.keys.session;
        assert!(crate::base::key::decode(key.expose()).is_some());
        assert_ne!(key.expose(), Keys::random().unwrap().session.expose());
        let shown = format!("{running:?}");
        for secret in [&ada.password, &grace.password, key] {
            assert!(!shown.contains(secret.expose()));
        }
        assert!(running.file(None).contains(key.expose()));
        running.stop().await;
    }

    #[tokio::test]
    async fn a_foreign_host_is_misdirected() {
        let running = start(listen()).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/", running.addresses.page);
        let answer = client.get(url).header("host", "evil.example").send().await;
        assert_eq!(answer.unwrap().status(), 421);
        running.stop().await;
    }
}
