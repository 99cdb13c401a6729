//! A token under the lamp: every check that verification makes of it, and how each comes out, for a person who wants to know
//! why it is refused. The checks are verification's own, called one by one; nothing here lets anybody in.

use super::jwk;
use super::verify::{self, MEASURES, Measured};
use super::{Known, Tokens, refused, take_apart};
use super::{Reason, TokenError};
use crate::exchange::{Claims, Identity};

/// What a token is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Its length.
    Size,
    /// Three base64url segments.
    Shape,
    /// The header: what it says is understood, and `typ` is that of an access token.
    Header,
    /// The payload is an object.
    Payload,
    /// `iss`, and with it the provider.
    Issuer,
    /// The provider allows `alg`.
    Algorithm,
    /// A key for it is there.
    Key,
    /// The signature.
    Signature,
    /// `aud`.
    Audience,
    /// `exp`.
    Expiry,
    /// `nbf`.
    NotBefore,
    /// `iat`.
    IssuedAt,
    /// The user id.
    Subject,
    /// It is a user's, and no `anon` or `service_role` key.
    Role,
    /// Whether anonymous sign-ins are let in.
    Anonymous,
}

impl Check {
    /// All of them, as verification goes through them, but that `exp` is judged last: a token that is merely over has
    /// nothing else wrong with it.
    pub const ALL: [Self; 15] = [
        Self::Size,
        Self::Shape,
        Self::Header,
        Self::Payload,
        Self::Issuer,
        Self::Algorithm,
        Self::Key,
        Self::Signature,
        Self::Audience,
        Self::Expiry,
        Self::NotBefore,
        Self::IssuedAt,
        Self::Subject,
        Self::Role,
        Self::Anonymous,
    ];

    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Shape => "shape",
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Issuer => "issuer",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Audience => "audience",
            Self::Expiry => "expiry",
            Self::NotBefore => "not_before",
            Self::IssuedAt => "issued_at",
            Self::Subject => "subject",
            Self::Role => "role",
            Self::Anonymous => "anonymous",
        }
    }

    /// Which check refuses for this reason.
    pub fn of(reason: Reason) -> Self {
        match reason {
            Reason::TooLong => Self::Size,
            Reason::Shape => Self::Shape,
            Reason::Header | Reason::Critical | Reason::Type | Reason::KeyId => Self::Header,
            Reason::Payload => Self::Payload,
            Reason::Issuer => Self::Issuer,
            Reason::Algorithm => Self::Algorithm,
            Reason::UnknownKey | Reason::WrongKey | Reason::AmbiguousKey => Self::Key,
            Reason::Signature => Self::Signature,
            Reason::Audience => Self::Audience,
            Reason::Expiry => Self::Expiry,
            Reason::NotBefore => Self::NotBefore,
            Reason::IssuedAt => Self::IssuedAt,
            Reason::Subject | Reason::SessionEnded => Self::Subject,
            Reason::ServiceRole => Self::Role,
        }
    }
}

/// How a check came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It holds.
    Holds,
    /// It does not, and the token is refused.
    Fails(TokenError),
    /// It cannot be said: the keys that would tell were left out.
    Withheld,
    /// Nobody got that far.
    NotReached,
}

/// What was found.
#[derive(Debug)]
pub struct Inspection {
    /// Whose token it is: index of the provider in the configuration.
    pub provider: Option<usize>,
    /// Who it says is calling, once that is a user id. Only proven where the signature holds.
    pub identity: Option<Identity>,
    findings: [Finding; Check::ALL.len()],
}

impl Inspection {
    fn new() -> Self {
        Self {
            provider: None,
            identity: None,
            findings: Check::ALL.map(|_| Finding::NotReached),
        }
    }

    /// Each check, in order.
    pub fn findings(&self) -> impl Iterator<Item = (Check, &Finding)> {
        Check::ALL.into_iter().zip(&self.findings)
    }

    /// How one check came out.
    pub fn of(&self, check: Check) -> &Finding {
        let mut all = self.findings();
        let found = all.find(|(other, _)| *other == check);
        found.map_or(&Finding::NotReached, |(_, finding)| finding)
    }

    /// Why it is refused whatever its signature is, if it is. What is merely over comes last.
    pub fn fault(&self) -> Option<&TokenError> {
        let faults = || {
            self.findings().filter_map(|(_, finding)| match finding {
                Finding::Fails(error) => Some(error),
                _ => None,
            })
        };
        let late = |error: &&TokenError| {
            matches!(
                error,
                TokenError::Expired { .. } | TokenError::Anonymous { .. }
            )
        };
        faults()
            .find(|error| !late(error))
            .or_else(|| faults().next())
    }

    fn put(&mut self, check: Check, finding: Finding) {
        if let Some(place) = self.findings.get_mut(check as usize) {
            *place = finding;
        }
    }

    /// All before this check hold.
    fn holds_before(&mut self, check: Check) {
        for earlier in Check::ALL.into_iter().take(check as usize) {
            self.put(earlier, Finding::Holds);
        }
    }
}

impl Tokens {
    /// Looks at a token, at all of its checks that can be made. `whose`: the provider that it has to be of, as for session
    /// cookies; `None`: whichever its `iss` names. `withheld` says of a provider whether its public keys were left out, so
    /// that nothing can be said of a signature.
    ///
    /// Waits for keys as [`Tokens::verify`] does.
    pub async fn inspect(
        &self,
        whose: Option<usize>,
        token: &[u8],
        withheld: impl Fn(usize) -> bool,
    ) -> Inspection {
        let mut seen = Inspection::new();
        let (jws, claims) = match take_apart(token, self.longest) {
            Ok(parts) => parts,
            Err(reason) => {
                // An algorithm that nobody knows is the header's fault: no provider has been asked yet.
                let check = match Check::of(reason) {
                    Check::Algorithm => Check::Header,
                    check => check,
                };
                seen.holds_before(check);
                seen.put(check, Finding::Fails(refused(None, reason)));
                return seen;
            }
        };
        seen.holds_before(Check::Issuer);
        let candidates = self.candidates(whose, &claims);
        let mut chosen = None;
        for index in candidates {
            let signed = self.signed(index, token, &jws, true).await;
            let holds = matches!(signed, Ok(true));
            if chosen.is_none() || holds {
                chosen = Some((index, signed));
            }
            if holds {
                break;
            }
        }
        let Some((index, signed)) = chosen else {
            let error = match claims.get("iss") {
                Some(iss) if !iss.is_string() => refused(None, Reason::Issuer),
                _ => TokenError::UnknownIssuer,
            };
            seen.put(Check::Issuer, Finding::Fails(error));
            return seen;
        };
        seen.provider = Some(index);
        let withheld = withheld(index) && !jwk::is_symmetric(jws.algorithm);
        seen.put_signed(signed, withheld);
        if let Some(Known { rules, .. }) = self.providers.get(index) {
            seen.put_claims(&Measured {
                provider: rules,
                claims: &claims,
                now: self.clock.unix_millis(),
            });
            let ended = self.has_ended(&rules.name, &claims);
            if ended && *seen.of(Check::Role) == Finding::Holds {
                let error = refused(Some(rules.name.clone()), Reason::SessionEnded);
                seen.put(Check::Subject, Finding::Fails(error));
            }
            if *seen.of(Check::Subject) == Finding::Holds {
                seen.identity = Some(verify::identity(rules, claims));
            }
        }
        seen
    }

    /// Whose token it may be.
    fn candidates(&self, whose: Option<usize>, claims: &Claims) -> Vec<usize> {
        match whose {
            Some(index) => vec![index],
            // Verification refuses it then, whoever would take any.
            None if claims.get("iss").is_some_and(|iss| !iss.is_string()) => Vec::new(),
            None => (0..self.providers.len())
                .filter(|index| self.is_issuer(*index, claims))
                .collect(),
        }
    }
}

impl Inspection {
    /// What came of algorithm, key and signature.
    fn put_signed(&mut self, signed: Result<bool, TokenError>, withheld: bool) {
        let error = match signed {
            Ok(true) => {
                self.holds_before(Check::Audience);
                return;
            }
            Ok(false) => return,
            Err(error) => error,
        };
        let check = match &error {
            TokenError::Refused { reason, .. } => Check::of(*reason),
            _ => Check::Key,
        };
        self.holds_before(check);
        if withheld && matches!(check, Check::Key | Check::Signature) {
            self.put(Check::Key, Finding::Withheld);
            self.put(Check::Signature, Finding::Withheld);
        } else {
            self.put(check, Finding::Fails(error));
        }
        if check == Check::Size {
            // The provider's own limit is looked at when everything about the shape has been found good.
            for earlier in [Check::Shape, Check::Header, Check::Payload] {
                self.put(earlier, Finding::Holds);
            }
        }
    }

    /// What came of the claims.
    fn put_claims(&mut self, measured: &Measured<'_>) {
        let name = || measured.provider.name.clone();
        for (check, measure) in MEASURES {
            let finding = match measure(measured) {
                Ok(()) => Finding::Holds,
                Err(reason) => Finding::Fails(refused(Some(name()), reason)),
            };
            self.put(check, finding);
        }
        if *self.of(Check::Expiry) == Finding::Holds && measured.is_over() {
            let over = TokenError::Expired { provider: name() };
            self.put(Check::Expiry, Finding::Fails(over));
        }
        let anonymous = match measured.is_anonymous_and_refused() {
            true => Finding::Fails(TokenError::Anonymous { provider: name() }),
            false => Finding::Holds,
        };
        self.put(Check::Anonymous, anonymous);
    }
}
