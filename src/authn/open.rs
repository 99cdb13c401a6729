//! What logins and logouts do with sessions: one that begins, one that is renewed because somebody asks for it, one that
//! ends. Called by the session endpoints, after the line has let them through.

use super::prove::{Prover, missing};
use super::session::{Request, claims_of, unusable};
use crate::base::secret::Secret;
use crate::exchange::{Code, Reject, Verified};
use crate::provider::Grant;
use crate::session::{Held, Told};
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
    /// `sub` of its token.
    pub user: Box<str>,
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
        let verified = self.granted(session, grant, look_again).await?;
        *told = session
            .open(from.headers, grant)
            .map_err(|why| unusable(&why.to_string()))?;
        Ok(verified)
    }

    /// The request's session is renewed, whether it is old or not.
    pub async fn renew_now(
        &self,
        from: Request<'_>,
        told: &mut Told,
    ) -> Result<Arc<Verified>, Reject> {
        let session = self.session.ok_or_else(none)?;
        let brought = match session.read(from.headers) {
            Held::Session(brought) => brought,
            // Everything else is told as it is to any request.
            _ => return self.cookie(from, told).await?.ok_or_else(missing),
        };
        let mut raw = Vec::new();
        session.append_raw(from.headers, &mut raw);
        let proven = self.proven(session, &brought, &raw, from).await;
        let before = self.before(session, &brought, proven, from, told)?;
        if let (Some(renewal), Some(serving)) = (session.renewal(), &before.serving) {
            renewal.on_demand(serving.user_key).map_err(|wait| {
                Reject::new(
                    Code::RateLimited,
                    "The session was renewed a moment ago. Wait as long as Retry-After says.",
                )
                .because("budget of renewals on demand is spent")
                .retry_after(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX))
            })?;
        }
        self.renewed(session, &brought, before, from, told, true)
            .await
    }

    /// The request's session ends: nobody gets in with it any more, and its cookies go. `others`: it is all others of its
    /// user that end, and this one goes on.
    ///
    /// `None`: there is nothing to tell its provider, for nothing proves that there was a session.
    pub async fn end(&self, others: bool, from: Request<'_>, told: &mut Told) -> Option<Ended> {
        let session = self.session?;
        let held = session.read(from.headers);
        if !others {
            told.set = session.clear(from.headers);
            told.pairs = None;
        }
        let (access_token, refresh_token, ours) = match held {
            Held::Session(brought) => {
                let ours = brought.is_ours();
                (brought.access_token, brought.refresh_token, ours)
            }
            Held::Token(token) => (token, None, false),
            Held::Nothing | Held::Unreadable(_) | Held::Over(_) => return None,
        };
        let token = access_token.expose().as_bytes();
        let identity = self.tokens.verify_past(session.provider, token).await;
        // A key may be gone, but what is sealed it was us who put there.
        if identity.is_err() && !ours {
            return None;
        }
        let claims = claims_of(access_token.expose())?;
        let time = |name: &str| claims.get(name).and_then(serde_json::Value::as_u64);
        let expires_at = time("exp")?;
        if !others && let Some(id) = claims.get("session_id").and_then(|id| id.as_str()) {
            // A token that a renewal brings at this very moment lives as long again.
            let life = time("iat").map_or(DAY_SECONDS, |issued| expires_at.saturating_sub(issued));
            let until = expires_at.max(self.clock.unix().saturating_add(life));
            self.tokens.end_session(session.provider, id, until);
        }
        let user = claims
            .get("sub")
            .and_then(|sub| sub.as_str())
            .unwrap_or_default()
            .into();
        Some(Ended {
            user,
            access_token,
            refresh_token,
            expires_at,
        })
    }
}

fn none() -> Reject {
    Reject::new(Code::NotSupported, "This gateway has no sessions.")
}
