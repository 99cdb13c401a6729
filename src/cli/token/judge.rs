//! What would come of a credential: it is looked at check by check, and then the proof of requests itself says what it makes
//! of it. Never renews a session.

use super::find::{self, Kept, Seen};
use super::input::Given;
use super::peek::peek;
use super::report::{Entry, Examined, Place, Report, Verdict, Wanted};
use crate::authn::{self, Accepts, Candidate, Foreseen, Memory, Prover, Request};
use crate::base::secret::Secret;
use crate::config::route::Auth;
use crate::exchange::Code;
use crate::headers::forwarded::Client;
use crate::route::Target;
use crate::session::{Held, Jar};
use crate::snapshot::Snapshot;
use crate::token::inspect::Inspection;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::Ipv4Addr;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Looks at all that was given. `withheld`: of each provider, whether its public keys were left out. `online`: the store of
/// sessions may be asked.
pub(super) async fn judge(
    snapshot: &Snapshot,
    given: &Given,
    withheld: &[bool],
    online: bool,
) -> Report {
    let judge = Judge {
        snapshot,
        withheld,
        online,
        memory: &Memory::default(),
        client: &Client::at(Ipv4Addr::UNSPECIFIED.into(), false),
    };
    let mut report = Report {
        form: given.form,
        entries: Vec::new(),
        notes: Vec::new(),
        now: snapshot.clock.unix(),
    };
    for field in given.fields.get_all(AUTHORIZATION) {
        report.entries.push(judge.authorization(field).await);
    }
    if given.fields.contains_key(COOKIE) {
        let entry = judge.cookies(&given.fields, &mut report.notes).await;
        report.entries.push(entry);
    }
    if let Some(word) = &given.word {
        let entry = match given.form {
            super::input::Form::CookieValue => {
                let cookie =
                    find::named(&snapshot.config, snapshot.session.as_ref(), word.expose());
                let fields = only(COOKIE, &cookie).unwrap_or_default();
                judge.cookies(&fields, &mut report.notes).await
            }
            _ => judge.word(word).await,
        };
        report.entries.push(entry);
    }
    if given.fields.get_all(AUTHORIZATION).iter().count() > 1 {
        report.notes.push(
            "there are several Authorization fields: such a request is 400 `bad_request`, whatever they hold".to_owned(),
        );
    }
    if given.fields.contains_key(AUTHORIZATION) && given.fields.contains_key(COOKIE) {
        report.notes.push(
            "of the two, the Bearer token counts on routes that take one, whether it is good or not"
                .to_owned(),
        );
    }
    if given.cookie_file {
        report
            .notes
            .push("`-b` names a file of cookies, which was not read".to_owned());
    }
    report
}

struct Judge<'a> {
    snapshot: &'a Snapshot,
    withheld: &'a [bool],
    online: bool,
    memory: &'a Memory,
    client: &'a Client,
}

impl Judge<'_> {
    async fn authorization(&self, field: &HeaderValue) -> Entry {
        let mut fields = HeaderMap::new();
        fields.insert(AUTHORIZATION, field.clone());
        let place = Place::Authorization;
        let accepts = accepts(false, true);
        let token = match authn::select(&accepts, None, &fields, None) {
            Ok(Candidate::Bearer(token)) => String::from_utf8_lossy(token).into_owned(),
            Ok(_) => {
                return self.nothing(place, "only the scheme `Bearer` is looked at");
            }
            Err(reject) => {
                let refused = Verdict::refused(&reject);
                return Entry {
                    as_bearer: refused,
                    ..self.nothing(place, "")
                };
            }
        };
        Entry {
            place,
            ..self.word(&Secret::new(token)).await
        }
    }

    /// A token by itself.
    async fn word(&self, token: &Secret<String>) -> Entry {
        let inspection = self.inspect(None, token).await;
        let as_bearer = self.as_bearer(token, &inspection).await;
        let as_session = self.word_as_session(token).await;
        Entry {
            place: Place::Word,
            session: None,
            token: Some(self.examined(token, inspection)),
            as_session,
            as_bearer,
        }
    }

    async fn cookies(&self, given: &HeaderMap, notes: &mut Vec<String>) -> Entry {
        let session = self.snapshot.session.as_ref();
        let mut fields = given.clone();
        fields.remove(AUTHORIZATION);
        if session.is_some_and(|session| session.adopt().is_some())
            && !fields.contains_key(SEC_FETCH_SITE)
        {
            let page = HeaderValue::from_static("same-origin");
            fields.insert(SEC_FETCH_SITE, page);
            notes.push("it is taken to come from a page of yours".to_owned());
        }
        let Some(seen) = self.find(&fields).await else {
            return self.nothing(Place::Cookie, "no session is among these cookies");
        };
        let whose = session
            .filter(|_| seen.looked_for)
            .map(|session| session.provider);
        let (mut token, mut inspection) = (None, None);
        if let Some(access_token) = &seen.access_token {
            inspection = Some(self.inspect(whose, access_token).await);
            token = Some(access_token.clone());
        }
        let as_session = self.as_session(&fields, &seen, inspection.as_ref()).await;
        let as_bearer = match (&token, &inspection) {
            (Some(token), Some(_)) => {
                let as_bearer = self.inspect(None, token).await;
                self.as_bearer(token, &as_bearer).await
            }
            _ => Verdict::not_looked_at("there is no token in it"),
        };
        let examined = token
            .zip(inspection)
            .map(|(token, inspection)| self.examined(&token, inspection));
        Entry {
            place: Place::Cookie,
            session: Some(seen),
            token: examined,
            as_session,
            as_bearer,
        }
    }

    /// Where no credential was found.
    fn nothing(&self, place: Place, why: &str) -> Entry {
        let other = match place {
            Place::Cookie => "it is a cookie",
            _ => "it is no cookie",
        };
        let (as_session, as_bearer) = match place {
            Place::Cookie => (self.missing(why), Verdict::not_looked_at(other)),
            _ => (Verdict::not_looked_at(other), Verdict::not_looked_at(why)),
        };
        Entry {
            place,
            session: None,
            token: None,
            as_session,
            as_bearer,
        }
    }

    /// Cookies without a session that is looked for.
    fn missing(&self, why: &str) -> Verdict {
        match &self.snapshot.session {
            None => Verdict::no_session(),
            Some(_) => Verdict::Refused {
                code: Code::MissingCredentials,
                why: why.to_owned(),
            },
        }
    }

    async fn as_bearer(&self, token: &Secret<String>, inspection: &Inspection) -> Verdict {
        let routes = || {
            self.snapshot
                .routes
                .iter()
                .filter(|route| is_for_callers(route))
        };
        if !routes().any(|route| route.accepts.bearer) {
            return Verdict::not_looked_at("no route of the file takes Bearer tokens");
        }
        if let Some(verdict) = Verdict::without_keys(inspection, false) {
            return verdict;
        }
        let Some(fields) = only(AUTHORIZATION, &format!("Bearer {}", token.expose())) else {
            return Verdict::not_looked_at("no header field can hold it");
        };
        let candidate = Candidate::Bearer(token.expose().as_bytes());
        let verdict = self.foresee(candidate, &fields).await;
        let provider = inspection
            .provider
            .and_then(|index| self.snapshot.config.providers.get(index));
        let takes = |from: &Option<Vec<_>>| {
            let named = |from: &Vec<_>| provider.is_some_and(|p| from.contains(&p.name));
            from.as_ref().is_none_or(named)
        };
        let taken = routes().any(|route| route.accepts.bearer && takes(&route.accepts.bearer_from));
        if verdict.accepted() == Some(true) && !taken {
            return Verdict::not_looked_at(
                "no route of the file takes Bearer tokens of this provider",
            );
        }
        verdict
    }

    async fn as_session(
        &self,
        fields: &HeaderMap,
        seen: &Seen,
        inspection: Option<&Inspection>,
    ) -> Verdict {
        let Some(session) = &self.snapshot.session else {
            return Verdict::no_session();
        };
        if !seen.looked_for {
            let name = self.name_looked_for();
            return self.missing(&format!("the file looks for the cookie {name}"));
        }
        let mut routes = self
            .snapshot
            .routes
            .iter()
            .filter(|route| is_for_callers(route));
        if !routes.any(|route| route.accepts.session) {
            return Verdict::not_looked_at("no route of the file takes session cookies");
        }
        if matches!(seen.kept, Kept::Stored { asked: false }) {
            return Verdict::Unknown {
                why: "its id alone says nothing; --online asks the store".to_owned(),
            };
        }
        let renewable = session.renewal().is_some() && seen.refresh_token.is_some();
        let held = session.read(fields).await;
        let over = matches!(held, Held::Over(_) | Held::Away(_));
        if let Some(verdict) = inspection
            .filter(|_| !over)
            .and_then(|inspection| Verdict::without_keys(inspection, renewable))
        {
            return verdict;
        }
        let accepts = accepts(true, false);
        let candidate = match authn::select(&accepts, Some(session), fields, None) {
            Ok(candidate) => candidate,
            Err(reject) => return Verdict::refused(&reject),
        };
        self.foresee(candidate, fields).await
    }

    /// What a token would be in a session.
    async fn word_as_session(&self, token: &Secret<String>) -> Verdict {
        let Some(session) = &self.snapshot.session else {
            return Verdict::no_session();
        };
        let name = match session.jar() {
            // A session of one token, as the oldest of the library's forms has it.
            Jar::Supabase { .. } => "sb-access-token",
            Jar::RawToken(cookie) => &cookie.name,
            Jar::Sealed { .. } => {
                return Verdict::not_looked_at(
                    "in mode `sealed` only the gateway makes session cookies",
                );
            }
            Jar::Stored { .. } => {
                return Verdict::not_looked_at(
                    "in mode `stored` the session cookie holds an id and no token",
                );
            }
        };
        let Some(fields) = only(COOKIE, &format!("{name}={}", token.expose())) else {
            return Verdict::not_looked_at("no cookie can hold it");
        };
        let Some(seen) = self.find(&fields).await else {
            return self.missing("no cookie can hold it");
        };
        let inspection = self.inspect(Some(session.provider), token).await;
        self.as_session(&fields, &seen, Some(&inspection)).await
    }

    async fn find(&self, fields: &HeaderMap) -> Option<Seen> {
        let Snapshot {
            config, session, ..
        } = self.snapshot;
        find::session(config, session.as_ref(), fields, self.online).await
    }

    async fn inspect(&self, whose: Option<usize>, token: &Secret<String>) -> Inspection {
        let withheld = |index: usize| self.withheld.get(index).copied().unwrap_or_default();
        let token = token.expose().as_bytes();
        self.snapshot.tokens.inspect(whose, token, withheld).await
    }

    async fn foresee(&self, candidate: Candidate<'_>, headers: &HeaderMap) -> Verdict {
        let snapshot = self.snapshot;
        let prover = Prover {
            tokens: &snapshot.tokens,
            cache: &snapshot.verified,
            memory: self.memory,
            session: snapshot.session.as_ref(),
            telling: None,
            identity_headers: &snapshot.identity_headers,
            limits: &snapshot.limits,
            failures: &[],
            peer_trusted: false,
            clock: &snapshot.clock,
            metrics: &snapshot.metrics,
            providers: snapshot.config.providers.len(),
            worker: 0,
            log_success: false,
        };
        let from = Request {
            headers,
            client: self.client,
        };
        match prover.foresee(candidate, from).await {
            Ok(Foreseen::Taken(_)) => Verdict::Accepted,
            Ok(Foreseen::Renewed { serving, adopted }) => Verdict::Renewed {
                serving: serving.is_some(),
                adopted,
            },
            Err(reject) => Verdict::refused(&reject),
        }
    }

    fn examined(&self, token: &Secret<String>, inspection: Inspection) -> Examined {
        let providers = &self.snapshot.config.providers;
        let provider = inspection.provider.and_then(|index| providers.get(index));
        let longest = || providers.iter().map(|p| p.max_token_bytes).max();
        let states = self.snapshot.tokens.providers();
        let state = inspection.provider.and_then(|index| states.get(index));
        let issuers = providers.iter().filter_map(|p| p.issuer.as_deref());
        let algorithms = provider.map_or(&[][..], |p| &p.algorithms);
        let audiences = provider.and_then(|p| p.audiences.as_deref());
        Examined {
            wanted: Wanted {
                issuers: words(issuers),
                algorithms: words(algorithms.iter().map(|a| format!("{a:?}"))),
                audiences: words(audiences.unwrap_or_default().iter()),
            },
            peek: peek(token.expose()),
            provider: provider.map(|p| p.name.clone()),
            max_bytes: provider
                .map(|p| p.max_token_bytes)
                .or_else(longest)
                .unwrap_or_default(),
            keys_error: state.and_then(|state| state.last_error.clone()),
            inspection,
        }
    }

    /// In words.
    fn name_looked_for(&self) -> String {
        let config = &self.snapshot.config;
        let session = self.snapshot.session.as_ref();
        let provider = session.and_then(|session| config.providers.get(session.provider));
        match (session.map(|s| s.jar()), provider) {
            (Some(Jar::Sealed { .. }), _) => "of the mode `sealed`".to_owned(),
            (Some(Jar::Stored { .. }), _) => "of the mode `stored`".to_owned(),
            (_, Some(provider)) => {
                let name = provider.cookie_name.as_deref().unwrap_or_default();
                format!("`{name}`")
            }
            _ => "of another name".to_owned(),
        }
    }
}

fn words<T: ToString>(list: impl Iterator<Item = T>) -> String {
    let list: Vec<_> = list.map(|one| one.to_string()).collect();
    match list.is_empty() {
        true => "none".to_owned(),
        false => list.join(", "),
    }
}

fn is_for_callers(route: &crate::route::Route) -> bool {
    route.accepts.auth != Auth::Public && !matches!(route.target, Target::Endpoint(_))
}

fn accepts(session: bool, bearer: bool) -> Accepts {
    Accepts {
        auth: Auth::Required,
        session,
        bearer,
        bearer_from: None,
    }
}

fn only(name: HeaderName, value: &str) -> Option<HeaderMap> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    Some(headers)
}
