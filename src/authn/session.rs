//! The proof of a session: its token verified, and renewed when it is old (contract, section 5).

use super::prove::{Prover, expired, invalid, missing};
use crate::exchange::{Code, Credential, Identity, Reject, Verified};
use crate::headers::cookies;
use crate::headers::forwarded::Client;
use crate::limit::keyed;
use crate::provider::Browser;
use crate::session::renewal::{NotRenewed, Renewed};
use crate::session::{Held, Session, Told};
use crate::telemetry::metrics::AuthOutcome;
use crate::token::{Issuer, Slot};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::Value;
use std::sync::Arc;

/// What a token is known by that came with a renewal and not yet in a cookie: no cookie's key begins like this.
const OF_A_RENEWAL: &[u8] = b"\xffrenewed:";

impl Prover<'_> {
    /// When a credential should be renewed.
    pub(super) fn renew_at(&self, credential: Credential, identity: &Identity) -> u64 {
        let renewal = self.session.and_then(Session::renewal);
        match renewal.filter(|_| credential == Credential::Session) {
            Some(renewal) => renewal.due(identity),
            None => u64::MAX,
        }
    }

    /// `None`: the cookies hold no session after all.
    pub(super) async fn cookie(
        &self,
        headers: &HeaderMap,
        client: &Client,
        told: &mut Told,
    ) -> Result<Option<Arc<Verified>>, Reject> {
        let Some(session) = self.session else {
            return Ok(None);
        };
        let only = cookies::only_field(headers);
        if let Some(known) = only.and_then(|field| self.remembered(Credential::Session, field)) {
            return Ok(Some(known));
        }
        let ended = self.tokens.ended_version();
        let mut raw = Vec::with_capacity(only.map_or(4096, <[u8]>::len));
        if !session.append_raw(headers, &mut raw) {
            return Ok(None);
        }
        let slot = slot(session);
        let proven = match self.known(slot, &raw) {
            Some(known) => Ok(known),
            None => {
                let token = match session.read(headers) {
                    Held::Token(token) => token,
                    Held::Session(session) => session.access_token.clone(),
                    Held::Nothing => return Ok(None),
                    Held::Unreadable(why) => {
                        self.count(session, AuthOutcome::Invalid);
                        // To the client it is no session, as it is to the real library; the operator wants to know.
                        return Err(
                            missing().because(format!("the session cookie cannot be read: {why}"))
                        );
                    }
                };
                let token = token.expose().as_bytes();
                Box::pin(self.verified(slot, Some(session.provider), &raw, token, headers, client))
                    .await
            }
        };
        let now = self.clock.unix();
        let old = match proven {
            Ok(verified) if verified.renew_at > now && verified.identity.expires_at > now => {
                if let Some(field) = only {
                    self.remember(Credential::Session, field, &verified, ended);
                }
                return Ok(Some(verified));
            }
            Ok(verified) => Some(verified),
            Err(reject) if reject.code() == Code::TokenExpired => None,
            Err(reject) => return Err(reject),
        };
        // In a box, for it is rare.
        Box::pin(self.go_on(session, headers, client, old, told))
            .await
            .map(Some)
    }

    /// A session whose token is old or over. `old`: what it proved, unless it is over.
    async fn go_on(
        &self,
        session: &Session,
        headers: &HeaderMap,
        client: &Client,
        old: Option<Arc<Verified>>,
        told: &mut Told,
    ) -> Result<Arc<Verified>, Reject> {
        // Leeway is for clocks that differ; a session's token is never forwarded past its `exp`.
        let serves = |verified: &Arc<Verified>| verified.identity.expires_at > self.clock.unix();
        let serving = old.filter(serves);
        let (Some(renewal), Held::Session(cookie)) = (session.renewal(), session.read(headers))
        else {
            return serving.ok_or_else(|| self.over(session, "it cannot be renewed here"));
        };
        let browser = Browser {
            user_agent: headers.get(USER_AGENT).cloned(),
            address: Some(client.ip).filter(|_| client.known),
        };
        let before = claims_of(cookie.access_token.expose());
        let named = before
            .as_ref()
            .and_then(|claims| claims.get("sub")?.as_str());
        let user = keyed(&[named.unwrap_or_default().as_bytes()]);
        let outcome = renewal
            .renew(headers, &cookie, user, &browser, serving.is_none())
            .await;
        // It may have ended while it was waited for.
        let serving = serving.filter(serves);
        match outcome {
            Ok(renewed) => {
                let verified = self.accept(session, before.as_ref(), &renewed).await;
                match (verified, serving) {
                    (Ok(verified), _) => {
                        told.set = renewed.set;
                        told.pairs = Some(renewed.pairs);
                        Ok(verified)
                    }
                    // What the provider gave is no good; what the browser has still is.
                    (Err(reject), Some(serving)) => {
                        tracing::warn!(reason = reject.reason(), "a renewed session is not used");
                        Ok(serving)
                    }
                    (Err(reject), None) => Err(reject),
                }
            }
            // While its token serves, nothing of this is the user's to see.
            Err(_) if serving.is_some() => serving.ok_or_else(expired),
            Err(NotRenewed::Over { code, clear }) => {
                told.set = clear;
                self.count(session, AuthOutcome::Expired);
                Err(
                    Reject::new(Code::SessionExpired, "The session is over. Sign in again.")
                        .because(format!("the provider ended it: {code}")),
                )
            }
            Err(NotRenewed::Cannot) => Err(self.over(session, "it has no refresh token of ours")),
            Err(NotRenewed::Later { retry_after, why }) => {
                self.count(session, AuthOutcome::Unavailable);
                let wait = retry_after.map_or(1, |wait| wait.as_secs().max(1));
                Err(Reject::new(
                    Code::AuthUnavailable,
                    "The session cannot be renewed at the moment. Try again soon; it is kept.",
                )
                .because(why.to_string())
                .retry_after(u32::try_from(wait).unwrap_or(u32::MAX)))
            }
        }
    }

    /// The renewed session is verified like any token, and must be the one that was renewed. Nobody sent it but the provider:
    /// what is wrong with it is neither the user's fault nor the end of the session.
    async fn accept(
        &self,
        session: &Session,
        before: Option<&Value>,
        renewed: &Renewed,
    ) -> Result<Arc<Verified>, Reject> {
        let token = renewed.access_token.expose().as_bytes();
        let raw = [OF_A_RENEWAL, token].concat();
        let slot = slot(session);
        let unusable = |why: &str| {
            Reject::new(
                Code::AuthUnavailable,
                "The session cannot be renewed at the moment. Try again soon; it is kept.",
            )
            .because(format!("the renewed token: {why}"))
        };
        let verified = match self.known(slot, &raw) {
            Some(known) => known,
            None => {
                let provider = Some(session.provider);
                let verified = self
                    .verify(provider, token, Credential::Session, None)
                    .await
                    .map_err(|reject| unusable(reject.reason()))?;
                let issuer = Issuer::Provider(verified.provider);
                self.cache
                    .put(self.tokens, slot, issuer, &raw, verified.clone());
                verified
            }
        };
        if verified.identity.expires_at <= self.clock.unix() {
            return Err(unusable("it is over already"));
        }
        let claims = &verified.identity.claims;
        let same = |name: &str| {
            let before = before.and_then(|claims| claims.get(name));
            before.is_none_or(|before| claims.get(name) == Some(before))
        };
        if before.is_none() || !same("sub") || !same("session_id") {
            return Err(
                invalid().because("the renewed token is for another user or another session")
            );
        }
        Ok(verified)
    }

    fn over(&self, session: &Session, why: &'static str) -> Reject {
        self.count(session, AuthOutcome::Expired);
        expired().because(why)
    }

    fn count(&self, session: &Session, outcome: AuthOutcome) {
        let (provider, kind) = (Some(session.provider), Credential::Session);
        self.metrics.auth(self.worker, provider, kind, outcome);
    }
}

fn slot(session: &Session) -> Slot {
    Slot {
        credential: Credential::Session,
        index: u16::try_from(session.provider).unwrap_or(u16::MAX),
    }
}

/// What a token says, unverified: only to be compared with what another one proves.
fn claims_of(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&bytes).ok()
}
