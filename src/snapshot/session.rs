//! `[session]`, made live: where sessions are kept, and how they are renewed.

use super::{CompileError, Ground};
use crate::config::Config;
use crate::config::provider::{Provider, ProviderKind};
use crate::config::session::{self as wanted, SessionMode};
use crate::endpoints::{self, Endpoints, Pace, Revocations};
use crate::provider::supabase::{Setup, Supabase};
use crate::provider::{ProviderBudget, Refreshes};
use crate::redis::Redis;
use crate::session::adopt::Adopt;
use crate::session::own::{self, OwnCookies};
use crate::session::raw::RawCookie;
use crate::session::renewal::Renewal;
use crate::session::sealed::{KeyRing, SealedCookies, SealingKey};
use crate::session::set_cookie::{Attributes, SameSite};
use crate::session::stored::{Rules, StoredSessions};
use crate::session::supabase::{SupabaseCookies, SupabaseWriter};
use crate::session::{Jar, Lifetimes, Session};
use std::sync::Arc;
use url::Url;

/// The sessions of a configuration, if it has any.
pub(super) fn compile(
    config: &Config,
    ground: &Ground,
    refreshes: &Arc<Refreshes>,
    redis: Option<&Redis>,
) -> Result<Option<Session>, CompileError> {
    let Some(session) = config.session.as_ref() else {
        return Ok(None);
    };
    let Some(provider) = config.providers.get(session.provider) else {
        return Ok(None);
    };
    let Some(jar) = jar(session, provider, ground, redis)? else {
        return Ok(None);
    };
    let renewal = renewal(session, provider, ground, refreshes)?;
    let compiled = Session::new(session.provider, jar, renewal, ground.clock.clone());
    Ok(Some(match (session.adopt, &provider.cookie_name) {
        (true, Some(cookie)) => {
            let adopt = Adopt::new(cookie, &domains(config, session));
            compiled.adopting(adopt.map_err(|_| CompileError::Cookie(cookie.as_ref().into()))?)
        }
        _ => compiled,
    }))
}

/// `None`: nothing of a request could be a session.
fn jar(
    session: &wanted::Session,
    provider: &Provider,
    ground: &Ground,
    redis: Option<&Redis>,
) -> Result<Option<Jar>, CompileError> {
    let attributes = attributes(&session.cookie);
    match session.mode {
        SessionMode::Shared => {
            let Some(cookie) = &provider.cookie_name else {
                return Ok(None);
            };
            Ok(Some(match &provider.kind {
                ProviderKind::Supabase { .. } => Jar::Supabase {
                    cookies: SupabaseCookies::new(cookie),
                    writer: writer(cookie, attributes)?,
                },
                ProviderKind::Jwt => Jar::RawToken(RawCookie {
                    name: cookie.clone(),
                    attributes,
                }),
            }))
        }
        SessionMode::Sealed => Ok(Some(Jar::Sealed {
            cookies: SealedCookies::new(own(session, attributes)?, ring(session)?),
            lifetimes: lifetimes(session),
        })),
        SessionMode::Stored => {
            let redis = redis.ok_or(CompileError::NoRedis)?.clone();
            let rules = Rules {
                idle_timeout: session.idle_timeout,
                max_age: session.max_age,
                cache_ttl: session.cache_ttl,
            };
            let clock = ground.clock.clone();
            Ok(Some(Jar::Stored {
                cookies: own(session, attributes)?,
                store: StoredSessions::new(redis, ring(session)?, rules, clock),
                lifetimes: lifetimes(session),
                cache_ttl: session.cache_ttl,
            }))
        }
    }
}

fn own(session: &wanted::Session, attributes: Attributes) -> Result<OwnCookies, CompileError> {
    let name = match &session.cookie.name {
        Some(name) => name,
        None => own::usual_name(&attributes),
    };
    OwnCookies::new(name, attributes).map_err(|_| CompileError::Cookie(name.into()))
}

/// What answers at its endpoints.
pub(super) fn endpoints(
    config: &Config,
    session: Option<&Session>,
    ground: &Ground,
    refreshes: &Arc<Refreshes>,
) -> Option<Endpoints> {
    let (wanted, session) = (config.session.as_ref()?, session?);
    let revocations = Revocations::new(
        refreshes.clone(),
        ground.clock.clone(),
        ground.control.clone(),
        Pace::default(),
    );
    Some(Endpoints::new(endpoints::Setup {
        // Without endpoints of their own only the who-am-I answer can be asked for, which has no address to name.
        base: wanted.endpoints.as_deref().unwrap_or_default(),
        ours: &config.server.public_url,
        trusted: &wanted.trusted_origins,
        login_url: &wanted.login_url,
        after_login: &wanted.after_login,
        provider: session.renewal().map(|renewal| renewal.provider().clone()),
        revocations: Arc::new(revocations),
        clock: ground.clock.clone(),
    }))
}

fn ring(session: &wanted::Session) -> Result<KeyRing, CompileError> {
    let keys = session.keys.iter().cloned().map(SealingKey::new);
    KeyRing::new(&keys.collect::<Vec<_>>()).map_err(CompileError::SessionKeys)
}

fn lifetimes(session: &wanted::Session) -> Lifetimes {
    Lifetimes {
        max_age: session.max_age,
        idle_timeout: session.idle_timeout,
    }
}

fn writer(cookie: &str, attributes: Attributes) -> Result<SupabaseWriter, CompileError> {
    SupabaseWriter::new(cookie, attributes).map_err(|_| CompileError::Cookie(cookie.into()))
}

/// Around which domains the provider's library may have put cookies that are taken over: the one that is configured, else
/// the names under which browsers reach us and those above them.
fn domains(config: &Config, session: &wanted::Session) -> Vec<Arc<str>> {
    if let Some(domain) = &session.cookie.domain {
        return vec![domain.clone()];
    }
    let mut domains: Vec<Arc<str>> = Vec::new();
    for origin in &config.server.public_url {
        let url = Url::parse(&origin.0).ok();
        let Some(name) = url.as_ref().and_then(Url::domain) else {
            continue;
        };
        // Browsers refuse the domains that belong to everybody (`com`, `co.uk`), so asking for one too many does no harm.
        let levels = std::iter::successors(Some(name), |name| Some(name.split_once('.')?.1));
        for name in levels.take_while(|name| name.contains('.')) {
            if !domains.iter().any(|known| **known == *name) {
                domains.push(name.into());
            }
        }
    }
    domains
}

fn attributes(cookie: &wanted::Cookie) -> Attributes {
    Attributes {
        domain: cookie.domain.clone(),
        path: cookie.path.clone(),
        secure: cookie.secure,
        http_only: cookie.http_only,
        partitioned: false,
        same_site: match cookie.same_site {
            wanted::SameSite::Strict => SameSite::Strict,
            wanted::SameSite::Lax => SameSite::Lax,
            wanted::SameSite::None => SameSite::None,
        },
    }
}

/// How sessions of a provider are renewed, when they can be.
fn renewal(
    session: &wanted::Session,
    provider: &Provider,
    ground: &Ground,
    refreshes: &Arc<Refreshes>,
) -> Result<Option<Renewal>, CompileError> {
    let ProviderKind::Supabase {
        public_api,
        publishable_key: Some(_),
        secret_key,
        ..
    } = &provider.kind
    else {
        return Ok(None);
    };
    let budget = &session.provider_budget;
    let setup = Setup {
        public_api: Some(public_api),
        secret_key: secret_key.as_ref(),
        budget: Arc::new(ProviderBudget::new(budget.login, budget.otp, &ground.clock)),
        clock: ground.clock.clone(),
        control: ground.control.clone(),
    };
    let client = Supabase::new(provider, setup).map_err(CompileError::Provider)?;
    Ok(client.map(|client| {
        Renewal::new(
            Arc::new(client),
            refreshes.clone(),
            session.refresh_ahead,
            ground.clock.clone(),
        )
    }))
}
