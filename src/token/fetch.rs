//! How a key set is fetched: one GET, on the terms of `base::http_client`.

use crate::base::http_client::{self, BodyError, ClientError, Terms};
use crate::config::provider::Provider;
use std::sync::Arc;
use url::Url;

/// Largest key set, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 256 * 1024;

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// No answer: network, TLS, deadline.
    #[error("no answer from the key set's address")]
    Unreachable(#[source] reqwest::Error),
    /// An answer, but not 200.
    #[error("the key set's address answered {0}")]
    Status(u16),
    /// More bytes than a key set may have.
    #[error("the key set is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    /// Not a key set, or one without a single key that can be used.
    #[error("the answer is not a key set with a usable key")]
    Unusable,
}

/// Why a provider cannot even be asked: the configuration is wrong.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `ca_file` cannot be read.
    #[error("provider `{provider}`: `ca_file` cannot be read")]
    CaUnreadable {
        /// Whose.
        provider: Arc<str>,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `ca_file`, or the machine's own certificates, give no client.
    #[error("provider `{provider}`: no TLS client can be made")]
    Tls {
        /// Whose.
        provider: Arc<str>,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A key of the configuration cannot be used.
    #[error("provider `{provider}`: {what}: {why}")]
    Key {
        /// Whose.
        provider: Arc<str>,
        /// Which key of the configuration.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The address may not be asked.
    #[error("provider `{provider}`: `{url}`: {why}")]
    Address {
        /// Whose.
        provider: Arc<str>,
        /// Which address.
        url: Url,
        /// Why not.
        why: &'static str,
    },
}

impl SetupError {
    /// A client for `url` that cannot be made.
    pub fn of_client(provider: &Arc<str>, url: &Url, error: ClientError) -> Self {
        let provider = provider.clone();
        match error {
            ClientError::CaUnreadable(source) => Self::CaUnreadable { provider, source },
            ClientError::Tls(source) => Self::Tls { provider, source },
            ClientError::Address(why) => Self::Address {
                provider,
                url: url.clone(),
                why,
            },
        }
    }
}

/// Fetches one key set.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: reqwest::Client,
    url: Url,
}

impl Fetcher {
    /// Prepares to fetch `url` for `provider`.
    pub(super) fn new(provider: &Provider, url: &Url) -> Result<Self, SetupError> {
        let terms = Terms {
            deadline: provider.http_timeout,
            ca_file: provider.ca_file.as_deref(),
            plain_http: provider.allow_insecure_http,
            idle_max: 1,
        };
        let client = http_client::client(url, &terms)
            .map_err(|error| SetupError::of_client(&provider.name, url, error))?;
        Ok(Self {
            client,
            url: url.clone(),
        })
    }

    /// The body of a 200.
    pub(super) async fn get(&self) -> Result<Vec<u8>, FetchError> {
        let request = self.client.get(self.url.clone());
        let response = request
            .header(http::header::ACCEPT, "application/json")
            .send()
            .await
            .map_err(FetchError::Unreachable)?;
        if response.status() != http::StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        http_client::body(response, MAX_BODY_BYTES)
            .await
            .map_err(|error| match error {
                BodyError::Broken(source) => FetchError::Unreachable(source),
                BodyError::TooLarge(_) => FetchError::TooLarge,
            })
    }
}
