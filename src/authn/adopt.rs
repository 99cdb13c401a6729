//! A session of the provider's own library becomes ours (contract, section 5, "Adopt").

use super::prove::{Asked, Prover};
use super::refuse::{expired, unusable};
use super::session::{OF_A_RENEWAL, Request, slot};
use crate::exchange::{Reject, Verified};
use crate::session::renewal::{NotRenewed, Urgency};
use crate::session::{Session, Told};
use http::HeaderMap;
use std::sync::Arc;

impl Prover<'_> {
    /// A session of the provider's own library that becomes ours, if that is wanted and the request has one.
    pub(super) async fn adopt(
        &self,
        session: &Session,
        from: Request<'_>,
        told: &mut Told,
    ) -> Result<Option<Arc<Verified>>, Reject> {
        let Some(adopt) = session.adopt() else {
            return Ok(None);
        };
        let brought = match adopt.read(from.headers) {
            Ok(Some(brought)) => brought,
            Ok(None) => return Ok(None),
            Err(why) => return Err(self.unreadable(session, &why)),
        };
        let asked = Asked::of(session, &brought.access_token, u64::MAX);
        let raw = [OF_A_RENEWAL, asked.token].concat();
        let proven = self
            .verified(slot(session), asked, &raw, from.headers, from.client)
            .await;
        let before = self.before(session, &brought, proven, from, told)?;
        let serving = before.serving.clone();
        let now = self.clock.unix();
        let Some(refresh_token) = &brought.refresh_token else {
            return Err(self.no_refresh_token(session, from.headers, told));
        };
        if !adopt.may(refresh_token, now) {
            let why = "it was taken over before";
            return Err(self.gone(session, from.headers, told, why));
        }
        let outcome = match session.renewal() {
            Some(renewal) => {
                let urgency = match &before.serving {
                    None => Urgency::Needed,
                    Some(_) => Urgency::Ahead,
                };
                self.renew(renewal, &brought, &before, from, urgency).await
            }
            None => Err(NotRenewed::Cannot),
        };
        let serving = serving.filter(|serving| self.serves(serving));
        let refused = match outcome {
            Ok(grant) => {
                let claims = before.claims.as_ref();
                let asked = Asked::of(session, &grant.access_token, session.look_again_new());
                match self.accept(session, claims, asked).await {
                    Ok(verified) => {
                        let who = &verified.identity;
                        let from_token = Some(refresh_token);
                        match session.open(from.headers, &grant, who, from_token).await {
                            Ok(opened) => {
                                *told = opened.told;
                                adopt.done(refresh_token, now);
                                return Ok(Some(verified));
                            }
                            Err(why) => unusable(&why.to_string()),
                        }
                    }
                    Err(reject) => reject,
                }
            }
            Err(why) if serving.is_none() => {
                return Err(self.not_renewed(session, why, from, told));
            }
            Err(_) => expired(),
        };
        // Later, then; its token serves until then.
        serving.map(Some).ok_or(refused)
    }

    /// What cannot be renewed cannot be taken over.
    pub(super) fn no_refresh_token(
        &self,
        session: &Session,
        headers: &HeaderMap,
        told: &mut Told,
    ) -> Reject {
        self.gone(session, headers, told, "it has no refresh token")
    }
}
