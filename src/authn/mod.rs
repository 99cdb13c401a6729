//! Which credential of a request counts, and its proof. The only room that makes a [`Caller`].

mod adopt;
mod claims;
mod foresee;
mod keep;
mod memory;
mod open;
mod prove;
mod refuse;
mod session;

use crate::base::secret::Secret;
use crate::config::route::{Accept, Auth};
use crate::exchange::{Caller, Code, Credential, Identity, Reject, Verified};
use crate::headers::cookies;
use crate::headers::outbound::IdentityHeaders;
use crate::session::Session;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::sync::Arc;

pub use foresee::Foreseen;
pub use memory::Memory;
pub use open::Ended;
pub use prove::Prover;
pub use session::Request;

/// What a route accepts, compiled from `auth` and `credentials`.
#[derive(Clone, Debug)]
pub struct Accepts {
    /// Required, optional or public.
    pub auth: Auth,
    /// Session cookies count.
    pub session: bool,
    /// Bearer tokens count.
    pub bearer: bool,
    /// Providers whose bearer tokens count; `None`: all.
    pub bearer_from: Option<Vec<Arc<str>>>,
}

impl Accepts {
    /// Compiles a route's `auth` and `credentials`.
    pub fn compile(auth: Auth, credentials: &[Accept], session_provider: Option<&str>) -> Self {
        let of = |kind| credentials.iter().filter(move |a| a.credential == kind);
        let bearers: Vec<_> = of(Credential::Bearer).collect();
        let bearer_from = bearers
            .iter()
            .map(|accept| accept.source.clone())
            .collect::<Option<Vec<_>>>()
            .filter(|sources| !sources.is_empty());
        let session = session_provider.is_some_and(|provider| {
            of(Credential::Session)
                .any(|a| a.source.as_deref().is_none_or(|source| source == provider))
        });
        Self {
            auth,
            session,
            bearer: !bearers.is_empty(),
            bearer_from,
        }
    }
}

/// The credential that counts, as it stands in the request. Nothing about it has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate<'h> {
    /// None that this route accepts.
    Nothing,
    /// `Authorization: Bearer`; the token's bytes.
    Bearer(&'h [u8]),
    /// The cookies hold something that may be a session.
    Session,
}

impl Candidate<'_> {
    /// Whether a browser sends it by itself, so that a foreign page could make it do so.
    pub fn is_ambient(&self) -> bool {
        matches!(self, Self::Session)
    }
}

/// Chooses the credential that counts (contract, section 3.8), without network or cryptography: an explicit one that the
/// route accepts, else the session cookie.
///
/// `memory` is the connection's: a Cookie field that proved a session before need not be read again.
pub fn select<'h>(
    accepts: &Accepts,
    session: Option<&Session>,
    headers: &'h HeaderMap,
    memory: Option<&Memory>,
) -> Result<Candidate<'h>, Reject> {
    if accepts.auth == Auth::Public {
        return Ok(Candidate::Nothing);
    }
    if accepts.bearer
        && let Some(value) = headers.get(AUTHORIZATION)
        && let Some(token) = bearer_token(value.as_bytes())
    {
        if token.is_empty() {
            return Err(Reject::new(
                Code::InvalidToken,
                "The Authorization header names no token.",
            )
            .because("empty bearer token"));
        }
        return Ok(Candidate::Bearer(token));
    }
    if accepts.session
        && let Some(session) = session
    {
        let remembered = cookies::only_field(headers).zip(memory);
        if remembered.is_some_and(|(field, memory)| memory.knows(Credential::Session, field))
            || cookies::pairs(headers).any(|(name, _)| session.owns(name))
        {
            return Ok(Candidate::Session);
        }
    }
    Ok(Candidate::Nothing)
}

/// The token after `Bearer` (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110 §11.1). `None` for another scheme.
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || rest.first().is_some_and(|b| *b != b' ') {
        return None;
    }
    Some(rest.trim_ascii())
}

/// Under what a credential verified.
#[derive(Clone, Debug, Default)]
struct Standing {
    provider: usize,
    epoch: u64,
    user_key: u128,
    /// The id of a session that we keep.
    kept: Option<Secret<String>>,
    /// When a session should be renewed.
    renew_at: u64,
}

/// Makes the shared value of a credential that verified: everything that requests with it need, prepared once.
fn seal(
    identity: Identity,
    credential: Credential,
    token: Option<&[u8]>,
    identity_headers: &IdentityHeaders,
    standing: Standing,
) -> Result<Arc<Verified>, Reject> {
    let unusable = |problem: &dyn std::fmt::Display| {
        Reject::new(Code::InvalidToken, "The access token is not valid.")
            .because(format!("its headers cannot be made: {problem}"))
    };
    let headers = identity_headers
        .prepare(&identity, credential)
        .map_err(|problem| unusable(&problem))?;
    let authorization = match token {
        Some(token) => {
            let token = std::str::from_utf8(token).map_err(|problem| unusable(&problem))?;
            Some(crate::headers::outbound::bearer(token).map_err(|problem| unusable(&problem))?)
        }
        None => None,
    };
    let claims = identity.claims.values().map(weight).sum::<usize>();
    let carried: usize = headers.iter().map(|(_, v)| v.len() + 64).sum();
    let weight = 512 + claims + carried + token.map_or(0, <[u8]>::len);
    Ok(Arc::new(Verified {
        identity,
        credential,
        authorization,
        headers,
        provider: standing.provider,
        epoch: standing.epoch,
        renew_at: standing.renew_at,
        kept: standing.kept,
        user_key: standing.user_key,
        weight: u32::try_from(weight).unwrap_or(u32::MAX),
    }))
}

/// Roughly what a JSON value takes in memory.
fn weight(value: &serde_json::Value) -> usize {
    use serde_json::Value::{Array, Object, String};
    64 + match value {
        String(text) => text.len(),
        Array(items) => items.iter().map(weight).sum(),
        Object(fields) => fields.iter().map(|(k, v)| k.len() + weight(v)).sum(),
        _ => 0,
    }
}

/// An invented caller for `[[tests]]`: everything a verified one has, but proven by nobody and sent nowhere.
pub fn rehearse(
    identity: Identity,
    credential: Credential,
    identity_headers: &IdentityHeaders,
) -> Result<Caller, Reject> {
    seal(
        identity,
        credential,
        None,
        identity_headers,
        Standing::default(),
    )
    .map(Caller::proven)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::session::Jar;
    use crate::session::supabase::{SupabaseCookies, SupabaseWriter};
    use http::HeaderValue;

    fn accepts(session: bool, bearer: bool) -> Accepts {
        Accepts {
            auth: Auth::Required,
            session,
            bearer,
            bearer_from: None,
        }
    }

    fn check(accepts: &Accepts, fields: &[(&'static str, &'static str)], expected: Candidate<'_>) {
        let key = "sb-x-auth-token";
        let attributes = SupabaseWriter::library_attributes();
        let jar = Jar::Supabase {
            cookies: SupabaseCookies::new(key),
            writer: SupabaseWriter::new(key, attributes).unwrap(),
        };
        let session = Session::new(0, jar, None, Clock::system());
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        assert_eq!(
            select(accepts, Some(&session), &headers, None).unwrap(),
            expected,
            "{fields:?}"
        );
    }

    #[test]
    fn explicit_credentials_beat_the_cookie_and_others_are_not_read() {
        let cookie = ("cookie", "a=b; sb-x-auth-token=v");
        let bearer = ("authorization", "bEaReR  t.o.k ");
        check(
            &accepts(true, true),
            &[cookie, bearer],
            Candidate::Bearer(b"t.o.k"),
        );
        check(&accepts(true, false), &[cookie, bearer], Candidate::Session);
        check(&accepts(false, true), &[cookie], Candidate::Nothing);
        check(
            &accepts(true, true),
            &[cookie, ("authorization", "Basic eDp5")],
            Candidate::Session,
        );
        check(
            &accepts(true, true),
            &[cookie, ("authorization", "Bearerx")],
            Candidate::Session,
        );
        check(
            &accepts(true, true),
            &[("cookie", "sb-y-auth-token=v")],
            Candidate::Nothing,
        );
        check(
            &Accepts {
                auth: Auth::Public,
                ..accepts(true, true)
            },
            &[cookie, bearer],
            Candidate::Nothing,
        );
    }

    #[test]
    fn a_bearer_without_a_token_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer "));
        let refused = select(&accepts(true, true), None, &headers, None).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidToken);
    }
}
