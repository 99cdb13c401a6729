//! The proof of a session: its token verified, and renewed when it is old (contract, section 5).

use super::claims::{claims_of, whose};
use super::prove::{Asked, Prover, Unproven};
use super::refuse::{self, invalid, unusable};
use crate::exchange::{Credential, Identity, Reject, Verified};
use crate::headers::cookies;
use crate::headers::forwarded::Client;
use crate::limit::keyed;
use crate::provider::{Browser, Grant};
use crate::session::renewal::{NotRenewed, Renewal, Urgency};
use crate::session::{Anew, Brought, Held, NotKept, Session, Told};
use crate::token::{Issuer, Slot};
use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::Value;
use std::sync::Arc;

/// What a token is known by that came with a renewal and not yet in a cookie: no cookie's key begins like this.
pub(super) const OF_A_RENEWAL: &[u8] = b"\xffrenewed:";

/// What a request brings besides its session.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// Who sent it.
    pub client: &'a Client,
}

/// What is known of a session before it is renewed.
pub(super) struct Before {
    /// What it proved, if its token still serves.
    pub(super) serving: Option<Arc<Verified>>,
    /// What its token says. Only to be compared with what another one proves.
    pub(super) claims: Option<Value>,
    /// Whether a signature that held, or our own seal, stands behind that.
    vouched: bool,
}

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
        from: Request<'_>,
        told: &mut Told,
    ) -> Result<Option<Arc<Verified>>, Reject> {
        let Some(session) = self.session else {
            return Ok(None);
        };
        let only = cookies::only_field(from.headers);
        if let Some(known) = only.and_then(|field| self.remembered(Credential::Session, field)) {
            return Ok(Some(known));
        }
        let ended = self.tokens.ended_version();
        let mut raw = Vec::with_capacity(only.map_or(4096, <[u8]>::len));
        if !session.append_raw(from.headers, &mut raw) {
            // In a box, as all that is rare: the future of every request is moved once, and is small without it.
            return Box::pin(self.adopt(session, from, told)).await;
        }
        let verified = match self.known(slot(session), &raw) {
            Some(known) if self.is_current(&known) => known,
            known => match Box::pin(self.look(session, &raw, known, from, told)).await? {
                Some(verified) => verified,
                None => return Ok(None),
            },
        };
        let same = told.set.is_empty() && told.pairs.is_none();
        if let Some(field) = only.filter(|_| same && self.is_current(&verified)) {
            self.remember(Credential::Session, field, &verified, ended);
        }
        Ok(Some(verified))
    }

    /// Whether nothing has to be looked at.
    fn is_current(&self, verified: &Verified) -> bool {
        verified.renew_at > self.clock.unix() && self.serves(verified)
    }

    /// Leeway is for clocks that differ; a session's token is never forwarded past its `exp`.
    pub(super) fn serves(&self, verified: &Verified) -> bool {
        verified.identity.expires_at > self.clock.unix()
    }

    /// Looks into the cookies. `known`: what they proved before.
    async fn look(
        &self,
        session: &Session,
        raw: &[u8],
        known: Option<Arc<Verified>>,
        from: Request<'_>,
        told: &mut Told,
    ) -> Result<Option<Arc<Verified>>, Reject> {
        let brought = match session.read(from.headers).await {
            Held::Nothing => return Ok(None),
            Held::Unreadable(why) => {
                // What nobody can read does not stand in the way of what is to be taken over.
                let adopted = Box::pin(self.adopt(session, from, told)).await?;
                return match adopted {
                    Some(verified) => Ok(Some(verified)),
                    None => Err(self.unreadable(session, &why)),
                };
            }
            Held::Over(why) => return Err(self.gone(session, from.headers, told, why)),
            Held::Away(why) => return Err(self.away(session, &why)),
            Held::Token(token) => {
                let asked = Asked::of(session, &token, u64::MAX);
                let proven = match known {
                    Some(known) => Ok(known),
                    None => {
                        let slot = slot(session);
                        self.verified(slot, asked, raw, from.headers, from.client)
                            .await
                    }
                };
                return match proven {
                    Ok(verified) if self.serves(&verified) => Ok(Some(verified)),
                    Ok(_) | Err(Unproven::Over | Unproven::Ended) => {
                        Err(self.gone(session, from.headers, told, "its token is over"))
                    }
                    Err(unproven) => Err(unproven.into()),
                };
            }
            Held::Session(brought) => brought,
        };
        let proven = match known.and_then(|known| self.still(session, &brought, raw, known)) {
            Some(known) => Ok(known),
            None => self.proven(session, &brought, raw, from).await,
        };
        let before = match self.before(session, &brought, proven, from, told)? {
            Before {
                serving: Some(serving),
                ..
            } if self.is_current(&serving) => return Ok(Some(serving)),
            before => before,
        };
        self.go_on(session, &brought, before, from, told)
            .await
            .map(Some)
    }

    /// What is known of a session, if that is still what it is: one that we keep may have another token by now. What has
    /// just been read counts anew.
    fn still(
        &self,
        session: &Session,
        brought: &Brought,
        raw: &[u8],
        known: Arc<Verified>,
    ) -> Option<Arc<Verified>> {
        if !brought.may_change() {
            return Some(known);
        }
        let token = brought.access_token.expose().as_bytes();
        let sent = known.authorization.as_ref()?.as_bytes();
        if sent.strip_prefix(b"Bearer ") != Some(token) {
            return None;
        }
        let look_again = session.look_again(brought);
        let renew_at = self.renew_at(known.credential, &known.identity);
        let verified = Arc::new(Verified {
            renew_at: renew_at.min(look_again),
            ..Verified::clone(&known)
        });
        let issuer = Issuer::Provider(verified.provider);
        self.cache
            .put(self.tokens, slot(session), issuer, raw, verified.clone());
        Some(verified)
    }

    /// What the token of a session proves. `raw`: all that the session is made of.
    pub(super) async fn proven(
        &self,
        session: &Session,
        brought: &Brought,
        raw: &[u8],
        from: Request<'_>,
    ) -> Result<Arc<Verified>, Unproven> {
        let look_again = session.look_again(brought);
        let id = brought.id();
        let asked = Asked {
            ours: brought.is_ours(),
            ..Asked::of(session, &brought.access_token, look_again).kept(id.as_ref())
        };
        self.verified(slot(session), asked, raw, from.headers, from.client)
            .await
    }

    /// What a session proved that is to go on, or why it is not to.
    pub(super) fn before(
        &self,
        session: &Session,
        brought: &Brought,
        proven: Result<Arc<Verified>, Unproven>,
        from: Request<'_>,
        told: &mut Told,
    ) -> Result<Before, Reject> {
        let mut before = Before {
            serving: None,
            claims: claims_of(brought.access_token.expose()),
            vouched: true,
        };
        match proven {
            Ok(verified) => before.serving = Some(verified).filter(|v| self.serves(v)),
            Err(Unproven::Over) => {}
            Err(Unproven::Ended) => {
                return Err(self.gone(session, from.headers, told, "it was ended"));
            }
            // Whoever signed in before the provider withdrew a key stays signed in.
            Err(Unproven::KeyGone(reject)) => {
                if session.renewal().is_none() || brought.refresh_token.is_none() {
                    return Err(reject);
                }
                before.vouched = brought.is_ours();
            }
            Err(Unproven::Refused(reject)) => return Err(reject),
        }
        Ok(before)
    }

    /// Whether it is time to renew it, if it can be.
    pub(super) fn is_old(&self, session: &Session, serving: &Verified) -> bool {
        let renewal = session.renewal();
        renewal.is_some_and(|renewal| renewal.due(&serving.identity) <= self.clock.unix())
    }

    /// A session that must be looked at: its token is old or over, or it must be said that it is used.
    pub(super) async fn go_on(
        &self,
        session: &Session,
        brought: &Brought,
        before: Before,
        from: Request<'_>,
        told: &mut Told,
    ) -> Result<Arc<Verified>, Reject> {
        let fresh = |serving: &&Arc<Verified>| !self.is_old(session, serving);
        if let Some(serving) = before.serving.as_ref().filter(fresh) {
            self.touch(session, brought, from, told);
            return Ok(serving.clone());
        }
        self.renewed(session, brought, before, from, told, false)
            .await
    }

    /// A session is renewed. `demanded`: by somebody who wants to hear when it was not, though its token still serves.
    pub(super) async fn renewed(
        &self,
        session: &Session,
        brought: &Brought,
        before: Before,
        from: Request<'_>,
        told: &mut Told,
        demanded: bool,
    ) -> Result<Arc<Verified>, Reject> {
        // Another replica may have spent the refresh token that was read a while ago.
        let newer = match session.anew(brought).await {
            Ok(Anew::Same) => None,
            Ok(Anew::Newer(newer)) => Some(newer),
            Ok(Anew::Gone) => {
                return Err(self.gone(session, from.headers, told, "it was ended elsewhere"));
            }
            Err(why) => {
                let serving = before.serving.filter(|_| !demanded);
                return serving.ok_or_else(|| self.away(session, &why));
            }
        };
        let (brought, before) = match &newer {
            None => (brought, before),
            Some(newer) => {
                let id = newer.id();
                let asked = Asked::of(session, &newer.access_token, session.look_again(newer));
                let proven = self.verify(asked.kept(id.as_ref()), Credential::Session, None);
                let before = self.before(session, newer, proven.await, from, told)?;
                match before.serving {
                    Some(serving)
                        if session.is_just_renewed(newer)
                            || !demanded && !self.is_old(session, &serving) =>
                    {
                        return Ok(serving);
                    }
                    _ => (&**newer, before),
                }
            }
        };
        let outcome = match session.renewal() {
            Some(renewal) => {
                let urgency = match &before.serving {
                    None => Urgency::Needed,
                    Some(serving) if demanded => Urgency::Asked(serving.user_key),
                    Some(_) => Urgency::Ahead,
                };
                self.renew(renewal, brought, &before, from, urgency).await
            }
            None => Err(NotRenewed::Cannot),
        };
        // It may have ended while it was waited for.
        let serving = before.serving.filter(|serving| self.serves(serving));
        let refused = match outcome {
            Ok(grant) => {
                let claims = before.claims.as_ref();
                let look_again = session.look_again_renewed(brought);
                let id = brought.id();
                let asked = Asked::of(session, &grant.access_token, look_again).kept(id.as_ref());
                match self.accept(session, claims, asked).await {
                    Ok(verified) => {
                        let who = &verified.identity;
                        match session.go_on(from.headers, brought, &grant, who).await {
                            Ok(new) => {
                                *told = new;
                                return Ok(verified);
                            }
                            Err(why @ NotKept::Gone) => {
                                return Err(self.gone(
                                    session,
                                    from.headers,
                                    told,
                                    why.to_string(),
                                ));
                            }
                            Err(why) => unusable(&why.to_string()),
                        }
                    }
                    Err(reject) => reject,
                }
            }
            Err(NotRenewed::Over { code }) if serving.is_some() => {
                refuse::ended().because(format!("the provider ended it: {code}"))
            }
            Err(why) => self.not_renewed(session, why, from, told),
        };
        // While its token serves, nothing of this is the user's to see.
        let Some(serving) = serving.filter(|_| !demanded) else {
            return Err(refused);
        };
        if !refused.reason().is_empty() {
            tracing::warn!(reason = refused.reason(), "a renewed session is not used");
        }
        self.touch(session, brought, from, told);
        Ok(serving)
    }

    pub(super) async fn renew(
        &self,
        renewal: &Renewal,
        brought: &Brought,
        before: &Before,
        from: Request<'_>,
        urgency: Urgency,
    ) -> Result<Arc<Grant>, NotRenewed> {
        let browser = Browser {
            user_agent: from.headers.get(USER_AGENT).cloned(),
            address: Some(from.client.ip).filter(|_| from.client.known),
        };
        let claim = |name: &str| before.claims.as_ref()?.get(name)?.as_str();
        if !before.vouched {
            renewal.unvouched()?;
        }
        // Whose refused tokens are counted: a name that nobody vouches for is not believed.
        let whose = match before.vouched {
            true => whose(claim("sub").unwrap_or_default()),
            false => keyed(&[b"address", from.client.ip.to_string().as_bytes()]),
        };
        let token = brought.refresh_token.as_ref();
        renewal.renew(token, whose, &browser, urgency).await
    }

    /// Says to the browser that its session is used, when it is time for that.
    fn touch(&self, session: &Session, brought: &Brought, from: Request<'_>, told: &mut Told) {
        match session.touch(from.headers, brought) {
            Some(Ok(new)) => *told = new,
            Some(Err(why)) => tracing::warn!(%why, "a session was not kept alive"),
            None => {}
        }
    }

    /// The renewed session is verified like any token, and must be the one that was renewed. Nobody sent it but the provider:
    /// what is wrong with it is neither the user's fault nor the end of the session.
    pub(super) async fn accept(
        &self,
        session: &Session,
        before: Option<&Value>,
        granted: Asked<'_>,
    ) -> Result<Arc<Verified>, Reject> {
        let verified = self.granted(session, granted).await?;
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

    /// What a provider gave, verified.
    pub(super) async fn granted(
        &self,
        session: &Session,
        asked: Asked<'_>,
    ) -> Result<Arc<Verified>, Reject> {
        let raw = [OF_A_RENEWAL, asked.token].concat();
        let slot = slot(session);
        let verified = match self.known(slot, &raw) {
            Some(known) => known,
            None => {
                let verified = self
                    .verify(asked, Credential::Session, None)
                    .await
                    .map_err(|why| unusable(Reject::from(why).reason()))?;
                let issuer = Issuer::Provider(verified.provider);
                self.cache
                    .put(self.tokens, slot, issuer, &raw, verified.clone());
                verified
            }
        };
        if !self.serves(&verified) {
            return Err(unusable("it is over already"));
        }
        Ok(verified)
    }
}

pub(super) fn slot(session: &Session) -> Slot {
    Slot {
        credential: Credential::Session,
        index: u16::try_from(session.provider).unwrap_or(u16::MAX),
    }
}
