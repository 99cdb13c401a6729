//! The request as the upstream gets it: built afresh from what was admitted. Nothing that Tollhouse sets is ever the client's.

use super::facts::Exchange;
use super::tunnel::{self, Handshake};
use crate::authn::Memory;
use crate::config::route::{ForwardCookies, ForwardSession};
use crate::endpoints;
use crate::exchange::{Caller, Code, Credential, Peer, Reject};
use crate::headers::cookies::{self, Rewritten};
use crate::headers::strip::{self, Keep};
use crate::headers::{forwarded, outbound};
use crate::route::{Forward, HostField, Route, Target};
use crate::snapshot::Snapshot;
use crate::telemetry::request_id::{TRACEPARENT, X_REQUEST_ID};
use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri};

/// Who has to do with a request besides the upstream.
pub(super) struct Parties<'a> {
    pub(super) peer: &'a Peer,
    /// The host that was asked for.
    pub(super) asked: &'a HeaderValue,
    pub(super) caller: &'a Caller,
    /// What the connection remembers.
    pub(super) memory: Option<&'a Memory>,
}

/// Turns the client's head into the one that goes upstream (contract, section 3.13). What it asks its connection to
/// become is taken out of it.
pub(super) fn prepare<'c>(
    snapshot: &Snapshot,
    route: &Route,
    ex: &Exchange,
    head: &mut Parts,
    parties: &Parties<'_>,
    capture: impl Fn(&str) -> Option<&'c str>,
) -> Result<Option<Handshake>, Reject> {
    let Target::Upstream(forward) = &route.target else {
        return Ok(None);
    };
    let Parties {
        peer,
        asked,
        caller,
        memory,
    } = *parties;
    let handshake = tunnel::asked(head, route.websocket)?;
    // First everything that is not the client's to say, then what we say: in this order nothing of ours can be removed.
    let keep = Keep {
        forwarding: peer.trusted,
        credentials: route.forward_credentials,
        trace: ex.trace.continued(),
    };
    if strip::strip(&mut head.headers, keep, &snapshot.forgeable) {
        snapshot.strangers.note(peer);
    }
    let headers = &mut head.headers;
    let renewed = ex.told.pairs.as_deref();
    cookies_upstream(snapshot, route, caller, memory, renewed, headers);
    if let Some(verified) = caller.verified() {
        let tells_token = verified.credential != Credential::Session
            || matches!(
                route.forward_session,
                ForwardSession::Bearer | ForwardSession::Both
            );
        outbound::apply(
            headers,
            &verified.headers,
            verified.authorization.as_ref().filter(|_| tells_token),
        );
    }
    headers.insert(X_REQUEST_ID, ex.request_id.clone());
    headers.insert(TRACEPARENT, ex.trace.header());
    forwarded::tell(
        headers,
        peer,
        &ex.client,
        asked.clone(),
        ex.secure,
        forward.forwarded_for,
    );
    for name in &route.request_headers.remove {
        headers.remove(name);
    }
    for (name, value) in &route.request_headers.set {
        headers.insert(name, value.clone());
    }
    let host = match &forward.host {
        HostField::Fixed(value) => Some(value),
        HostField::Client => Some(asked),
        HostField::Endpoint => None,
    };
    match host {
        Some(host) => headers.insert(HOST, host.clone()),
        None => headers.remove(HOST), // the pool fills in that of the endpoint it picks
    };
    target(forward, ex, head, capture)?;
    Ok(handshake)
}

/// Session cookies stay here unless the route passes them on; other cookies go as the route says.
fn cookies_upstream(
    snapshot: &Snapshot,
    route: &Route,
    caller: &Caller,
    memory: Option<&Memory>,
    renewed: Option<&[(String, String)]>,
    headers: &mut HeaderMap,
) {
    let session_told = matches!(
        route.forward_session,
        ForwardSession::Cookies | ForwardSession::Both
    ) && caller
        .verified()
        .is_some_and(|v| v.credential == Credential::Session);
    let session_passes = route.forward_credentials || session_told;
    let own = |name: &[u8]| {
        let session = snapshot.session.as_ref();
        session.is_some_and(|session| session.owns(name))
    };
    let verifier = |name: &[u8]| {
        let session = snapshot.session.as_ref();
        session.is_some_and(|session| session.is_verifier(name))
    };
    let keep = |name: &[u8]| {
        if own(name) {
            return session_passes;
        }
        if endpoints::is_attempt(name) {
            return false;
        }
        if verifier(name) {
            return true;
        }
        match &route.forward_cookies {
            ForwardCookies::All => true,
            ForwardCookies::None => false,
            ForwardCookies::Named(names) => names.iter().any(|n| n.as_bytes() == name),
        }
    };
    // What most requests want, the same for every request of a browser.
    let usual = !session_passes && route.forward_cookies == ForwardCookies::All;
    if usual
        && let Some(memory) = memory
        && let Some(field) = cookies::only_field(headers)
    {
        let others = memory.other_cookies(snapshot.tokens.generation(), field, || {
            cookies::without(headers, keep)
        });
        return replace_cookies(headers, others);
    }
    if !headers.contains_key(COOKIE) {
        return;
    }
    if session_told {
        match renewed {
            // As the browser will send them from now on.
            Some(pairs) => {
                let others = cookies::without(headers, |name| !own(name));
                replace_cookies(headers, others);
                append_cookies(headers, pairs);
            }
            None => {
                let first = cookies::first_of_each(headers, own);
                replace_cookies(headers, first);
            }
        }
    }
    let kept = cookies::without(headers, keep);
    replace_cookies(headers, kept);
}

/// Puts cookies behind those that are there.
fn append_cookies(headers: &mut HeaderMap, pairs: &[(String, String)]) {
    let mut field = headers
        .get(COOKIE)
        .map_or_else(Vec::new, |field| field.as_bytes().to_vec());
    for (name, value) in pairs {
        if !field.is_empty() {
            field.extend_from_slice(b"; ");
        }
        field.extend_from_slice(name.as_bytes());
        field.push(b'=');
        field.extend_from_slice(value.as_bytes());
    }
    if let Ok(mut field) = HeaderValue::from_bytes(&field) {
        field.set_sensitive(true);
        headers.insert(COOKIE, field);
    }
}

fn replace_cookies(headers: &mut HeaderMap, cookies: Rewritten) {
    match cookies {
        Rewritten::Unchanged => {}
        Rewritten::Removed => {
            headers.remove(COOKIE);
        }
        Rewritten::Replaced(value) => {
            headers.insert(COOKIE, value);
        }
    }
}

/// The target in origin form (RFC 9112 §3.2.1): base path, rewritten canonical path, the query as it came.
fn target<'c>(
    forward: &Forward,
    ex: &Exchange,
    head: &mut Parts,
    capture: impl Fn(&str) -> Option<&'c str>,
) -> Result<(), Reject> {
    let path = ex.path.as_deref().unwrap_or("/");
    let plain = forward.rewrite.is_identity() && forward.base_path.is_empty();
    if plain && head.uri.authority().is_none() && head.uri.path() == path {
        return Ok(());
    }
    let query = head.uri.query();
    let mut text = String::with_capacity(
        forward.base_path.len() + path.len() + 1 + query.map_or(0, |q| q.len() + 1),
    );
    text.push_str(&forward.base_path);
    forward.rewrite.append(path, capture, &mut text);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    let target = PathAndQuery::try_from(text)
        .map_err(|_| Reject::new(Code::BadRequest, "The path cannot be forwarded."))?;
    head.uri = Uri::from(target);
    Ok(())
}
