//! The development provider on a port of its own, sharing the test's clock.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tollhouse::base::body::Body;
use tollhouse::base::clock::Clock;
use tollhouse::demo::provider::{Provider, Settings};

/// A provider that answers. Ends when it is dropped.
pub struct Identity {
    pub url: String,
    pub provider: Provider,
    _runtime: Runtime,
}

impl Identity {
    /// With Ada (user) and Grace (admin), both with the password `correct-horse-9`.
    pub fn start(clock: &Clock) -> Self {
        let hour = Duration::from_secs(3600);
        Self::behind(clock, hour, |provider, request| async move {
            provider.handle(request).await
        })
    }

    /// The same with tokens of this life, behind something that hands it the requests, or does not.
    pub fn behind<F>(
        clock: &Clock,
        token_life: Duration,
        front: impl Fn(Provider, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let settings = Settings {
            clock: clock.clone(),
            token_life,
            ..Settings::new(format!("{url}/auth/v1"), "sb_publishable_test")
        };
        let provider = Provider::new(settings).unwrap();
        provider
            .add_user("ada@example.com", "correct-horse-9", Some("user"))
            .unwrap();
        provider
            .add_user("grace@example.com", "correct-horse-9", Some("admin"))
            .unwrap();
        let answering = provider.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (provider, front) = (answering.clone(), front.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let answer = front(provider.clone(), request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            url,
            provider,
            _runtime: runtime,
        }
    }

    /// `[providers.main]` and `[session]` for a gateway's file.
    pub fn tables(&self) -> String {
        format!(
            "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\n[session]\nmode = \"shared\"\n",
            self.url
        )
    }

    /// The session that a login yields.
    pub fn session(&self, email: &str) -> Value {
        serde_json::from_str(&self.provider.sign_in(email).unwrap()).unwrap()
    }

    /// An access token.
    pub fn token(&self, email: &str) -> String {
        self.session(email)["access_token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The `Cookie` header that the browser library's cookies make, in pieces as it cuts them.
    pub fn cookie(&self, email: &str) -> String {
        cookie(&self.session(email).to_string())
    }
}

/// The cookies for a session text at a provider on `127.0.0.1`.
pub fn cookie(session: &str) -> String {
    let value = format!("base64-{}", URL_SAFE_NO_PAD.encode(session));
    if value.len() <= 3180 {
        return format!("sb-127-auth-token={value}");
    }
    let pieces = value.as_bytes().chunks(3180).enumerate();
    pieces
        .map(|(n, piece)| format!("sb-127-auth-token.{n}={}", String::from_utf8_lossy(piece)))
        .collect::<Vec<_>>()
        .join("; ")
}
