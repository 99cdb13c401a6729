//! What logins and logouts do with sessions: one that begins, one that is renewed because somebody asks for it, one that
//! ends. Called by the session endpoints, after the line has let them through.

use super::claims::{claims_of, whose};
use super::prove::{Asked, Prover};
use super::refuse::missing;
use super::session::Request;
use crate::base::secret::Secret;
use crate::exchange::{Code, Reject, Verified};
use crate::provider::Grant;
use crate::provider::supabase::Scope;
use crate::session::{Held, Session, Told};
use crate::token::ended_elsewhere;
use crate::token::verify::known_by as known_by_claims;
use serde_json::Value;
use std::sync::Arc;

/// How long tokens are taken to live that do not say when they were issued.
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// A session that was ended here, as far as its provider must hear of it.
#[derive(Debug)]
pub struct Ended {
    /// A token of it that verified, though it may be over by now.
    pub access_token: Secret<String>,
    /// What renews it.
    pub refresh_token: Option<Secret<String>>,
    /// Until when its token is good, in Unix seconds.
    pub expires_at: u64,
    /// Stands for its user, as [`crate::provider::Refreshes::refresh`] wants it.
    pub user: u128,
}

impl Prover<'_> {
    /// A session begins: what a login gave is verified and takes the place of whatever session the browser had.
    pub async fn open(
        &self,
        grant: &Grant,
        from: Request<'_>,
        told: &mut Told,
    ) -> Result<Arc<Verified>, Reject> {
        let session = self.session.ok_or_else(none)?;
        let look_again = session.look_again_new();
        let asked = Asked::of(session, &grant.access_token, look_again);
        let verified = self.granted(session, asked).await?;
        let opened = session
            .open(from.headers, grant, &verified.identity, None)
            .await
            .map_err(|why| {
                Reject::new(
                    Code::AuthUnavailable,
                    "The login cannot be completed at the moment. Try again soon.",
                )
                .because(why.to_string())
            })?;
        *told = opened.told;
        let same = verified.identity.session_id.as_deref();
        if let Some(replaced) = opened.replaced.filter(|id| Some(&**id) != same) {
            let until = verified.identity.expires_at;
            self.over(session, vec![replaced], None, until).await;
        }
        Ok(verified)
    }

    /// The request's session is renewed, whether it is old or not.
    pub async fn renew_now(
        &self,
        from: Request<'_>,
        told: &mut Told,
    ) -> Result<Arc<Verified>, Reject> {
        let session = self.session.ok_or_else(none)?;
        let brought = match session.read(from.headers).await {
            Held::Session(brought) => brought,
            // Everything else is told as it is to any request.
            _ => return self.cookie(from, told).await?.ok_or_else(missing),
        };
        let mut raw = Vec::new();
        session.append_raw(from.headers, &mut raw);
        let proven = self.proven(session, &brought, &raw, from).await;
        let before = self.before(session, &brought, proven, from, told)?;
        if let Some(serving) = &before.serving
            && session.is_just_renewed(&brought)
        {
            return Ok(serving.clone());
        }
        self.renewed(session, &brought, before, from, told, true)
            .await
    }

    /// Sessions end as `scope` says: the request's, which takes its cookies along, all others of its user, or both. Nobody
    /// gets in with one of them any more, as far as we keep it or have seen it; its provider must hear of the rest.
    ///
    /// `Ok(None)`: there is nothing to tell, for nothing proves that there was a session.
    pub async fn end(
        &self,
        scope: Scope,
        from: Request<'_>,
        told: &mut Told,
    ) -> Result<Option<Ended>, Reject> {
        let session = self.session.ok_or_else(none)?;
        let own = scope != Scope::Others;
        let clear = |told: &mut Told| {
            if own {
                told.set = session.clear(from.headers);
            }
        };
        let (access_token, refresh_token, brought) = match session.read(from.headers).await {
            // Whoever were told that they are logged out while their session lives on would not try again.
            Held::Away(why) => return Err(self.away(session, &why)),
            Held::Session(brought) => {
                let (access, refresh) = (&brought.access_token, &brought.refresh_token);
                (access.clone(), refresh.clone(), Some(brought))
            }
            Held::Token(token) => (token, None, None),
            Held::Nothing | Held::Unreadable(_) | Held::Over(_) => {
                if own {
                    // It may be one that only another replica can read.
                    let discarded = session.discard(from.headers).await;
                    discarded.map_err(|why| self.away(session, &why))?;
                }
                // Or one that would have been taken over, and now is not to be.
                let Some(brought) = session.adopt().and_then(|adopt| adopt.find(from.headers))
                else {
                    clear(told);
                    return Ok(None);
                };
                if let (true, Some(adopt), Some(token)) =
                    (own, session.adopt(), &brought.refresh_token)
                {
                    adopt.spend(token);
                }
                let (access, refresh) = (&brought.access_token, &brought.refresh_token);
                (access.clone(), refresh.clone(), Some(Box::new(brought)))
            }
        };
        let ours = brought.as_ref().is_some_and(|brought| brought.is_ours());
        let token = access_token.expose().as_bytes();
        // A key may be gone, but what is sealed it was us who put there.
        let proven = self.tokens.verify_past(session.provider, token).await;
        let claims = claims_of(access_token.expose()).filter(|_| ours || proven.is_ok());
        let text = |name: &str| claims.as_ref()?.get(name)?.as_str();
        let time = |name: &str| claims.as_ref()?.get(name)?.as_u64();
        let now = self.clock.unix();
        let expires_at = time("exp").unwrap_or(now);
        // A token that a renewal brings at this very moment lives as long again.
        let life = time("iat").map_or(DAY_SECONDS, |issued| expires_at.saturating_sub(issued));
        let until = expires_at.max(now.saturating_add(life));
        let mut over: Vec<Box<str>> = Vec::new();
        let known_by = claims.as_ref().and_then(Value::as_object);
        let known_by = known_by.and_then(known_by_claims).filter(|_| own);
        over.extend(known_by.map(Box::from));
        let mut failed = None;
        if let Some(brought) = &brought {
            let (ended, outcome) = match scope {
                Scope::Local => (Vec::new(), session.end(brought).await),
                Scope::Global | Scope::Others => session.end_all(brought, own).await,
            };
            over.extend(ended);
            failed = outcome.err();
        }
        let record = brought.as_ref().filter(|_| own && failed.is_none());
        let record = record.and_then(|brought| session.record(brought));
        self.over(session, over, record, until).await;
        if let Some(why) = failed {
            return Err(self.away(session, &why));
        }
        clear(told);
        Ok(claims.is_some().then(|| Ended {
            user: whose(text("sub").unwrap_or_default()),
            access_token,
            refresh_token,
            expires_at,
        }))
    }

    /// Sessions are over: here at once, and for those who share a Redis with us as soon as they hear.
    async fn over(
        &self,
        session: &Session,
        over: Vec<Box<str>>,
        record: Option<String>,
        until: u64,
    ) {
        for id in &over {
            self.tokens.end_session(session.provider, id, until);
        }
        let provider = self.tokens.name(session.provider);
        let (Some(telling), Some(provider)) = (self.telling, provider) else {
            return;
        };
        let ended: Vec<_> = over
            .into_iter()
            .map(|session| ended_elsewhere::Ended::Session {
                provider: provider.as_ref().into(),
                session,
                until,
            })
            .chain(record.map(|name| ended_elsewhere::Ended::Record { name: name.into() }))
            .collect();
        if !ended.is_empty() {
            telling.tell_until(ended, until).await;
        }
    }
}

fn none() -> Reject {
    Reject::new(Code::NotSupported, "This gateway has no sessions.")
}
