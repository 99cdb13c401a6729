//! What would come of a credential, without a request: it is verified as ever, and nothing is renewed, taken over or told to
//! a browser.

use super::Candidate;
use super::prove::{Asked, Prover};
use super::refuse::missing;
use super::session::{OF_A_RENEWAL, Request, slot};
use crate::exchange::{Credential, Reject, Verified};
use crate::session::{Held, Session, Told};
use crate::token::Slot;
use std::sync::Arc;

/// What would come of it, on a route that lets nobody in without a credential.
#[derive(Debug)]
pub enum Foreseen {
    /// It is taken as it is.
    Taken(Arc<Verified>),
    /// A session whose provider is asked for a new token first.
    Renewed {
        /// What its token proves, while that still serves. `None`: without a new token it is refused.
        serving: Option<Arc<Verified>>,
        /// It is a session of the provider's own library, and becomes one of ours.
        adopted: bool,
    },
}

impl Prover<'_> {
    /// What would come of a credential of `from`, or why it is refused. Waits for keys as a request does.
    pub async fn foresee(
        &self,
        candidate: Candidate<'_>,
        from: Request<'_>,
    ) -> Result<Foreseen, Reject> {
        match candidate {
            Candidate::Nothing => Err(missing()),
            Candidate::Bearer(token) => {
                let slot = Slot {
                    credential: Credential::Bearer,
                    index: 0,
                };
                let asked = Asked::any(token);
                let verified = self
                    .verified(slot, asked, token, from.headers, from.client)
                    .await?;
                Ok(Foreseen::Taken(verified))
            }
            Candidate::Session => {
                let session = self.session.ok_or_else(missing)?;
                self.foresee_session(session, from).await
            }
        }
    }

    async fn foresee_session(
        &self,
        session: &Session,
        from: Request<'_>,
    ) -> Result<Foreseen, Reject> {
        // Nobody is told.
        let told = &mut Told::default();
        let mut raw = Vec::new();
        let brought = if session.append_raw(from.headers, &mut raw) {
            match session.read(from.headers).await {
                Held::Nothing => return Err(missing()),
                Held::Unreadable(why) => return Err(self.unreadable(session, &why)),
                Held::Over(why) => return Err(self.gone(session, from.headers, told, why)),
                Held::Away(why) => return Err(self.away(session, &why)),
                Held::Token(token) => {
                    let asked = Asked::of(session, &token, u64::MAX);
                    let verified = self
                        .verified(slot(session), asked, &raw, from.headers, from.client)
                        .await?;
                    return match self.serves(&verified) {
                        true => Ok(Foreseen::Taken(verified)),
                        false => Err(self.not_renewable(session)),
                    };
                }
                Held::Session(brought) => (brought, false),
            }
        } else {
            let adopt = session.adopt().ok_or_else(missing)?;
            let read = adopt.read(from.headers);
            let brought = read.map_err(|why| self.unreadable(session, &why))?;
            let brought = brought.ok_or_else(missing)?;
            raw = [OF_A_RENEWAL, brought.access_token.expose().as_bytes()].concat();
            (Box::new(brought), true)
        };
        let (brought, adopted) = brought;
        let proven = self.proven(session, &brought, &raw, from).await;
        let serving = self.before(session, &brought, proven, from, told)?.serving;
        let renewable = session.renewal().is_some() && brought.refresh_token.is_some();
        let fresh = |serving: &Arc<Verified>| !adopted && !self.is_old(session, serving);
        match serving {
            Some(serving) if !renewable || fresh(&serving) => Ok(Foreseen::Taken(serving)),
            serving if renewable => Ok(Foreseen::Renewed { serving, adopted }),
            _ if adopted => Err(self.no_refresh_token(session, from.headers, told)),
            _ => Err(self.without_refresh_token(session)),
        }
    }
}
