//! The keys of `[[routes]]` and of the small tables in them.

use super::decode::{
    At, DAY, Either, at, choice, count, flag, flag_or, int, list, map, nested, none_or,
    one_or_list, parsed, span, text, word,
};
use super::diagnostic::WARNINGS;
use super::endpoint::Endpoint;
use super::parse;
use super::rate_limit::Cors;
use super::read::Entries;
use super::route::{Auth, ForwardSession, OnUnauthenticated, RewritePart, Several};
use super::schema;
use super::schema_text as like;
use super::table::table;
use super::value::{HostPattern, PathPattern};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

table! {
    #[derive(Clone, Debug)]
    pub(super) struct RouteKeys("routes", "a route") {
        /// One or a list: /exact, /users/{id}/role (one segment), /api/* (the prefix and all below), /*.
        pub(super) path: Vec<At<PathPattern>> = required("/api/*"), one_or_list(at(parsed(parse::path, "a path such as \"/api/*\"", "/placeholder").like(like::PATH)));
        /// Host names: exact, *.example.com, {tenant}.example.com; any unless given.
        pub(super) host: Option<Vec<At<HostPattern>>> = optional("app.example.com"), one_or_list(at(parsed(parse::host, "a host name such as \"app.example.com\"", "placeholder.invalid").like(like::HOST)));
        /// Methods served, GET with HEAD; all unless given. Others get 405.
        pub(super) methods: Option<Vec<Method>> = optional(["GET", "POST"]), one_or_list(parsed(parse::method, "a method such as \"GET\"", "GET").like(like::METHOD));
        /// For logs and metrics; host and pattern unless given.
        pub(super) name: Option<At<String>> = optional("api"), at(word());
        /// Who answers: the name of an upstream, or its URL. May be left out while only one is configured.
        pub(super) upstream: Option<At<String>> = optional("api"), at(word());
        /// Instead of an upstream: answer with a redirect.
        pub(super) redirect: Option<(RedirectKeys, Entries)> = optional({ to = "/new", status = 308 }), nested::<RedirectKeys>();
        /// Instead of an upstream: answer with this.
        pub(super) respond: Option<(RespondKeys, Entries)> = optional({ status = 200, body = "ok" }), nested::<RespondKeys>();
        /// Instead of an upstream: session, which tells who the caller is, as the session endpoint of that name does.
        pub(super) endpoint: Option<Endpoint> = optional("session"), choice(&[("session", Endpoint::Session)]);
        /// Cut a prefix off the path: true (the pattern's own), or the prefix.
        pub(super) strip_prefix: Either<At<String>> = default(false), flag_or(at(word()));
        /// Another path for the upstream, with captures: /v2/users/{id}, /v2/{*}.
        pub(super) rewrite: Option<At<Vec<RewritePart>>> = optional("/v2/{*}"), at(parsed(rewrite, "a path such as \"/v2/{*}\"", "/placeholder").like(like::REWRITE));
        /// required; optional (nobody without a credential); public (credentials are not looked at).
        pub(super) auth: Auth = default("required"), choice(&[("required", Auth::Required), ("optional", Auth::Optional), ("public", Auth::Public)]);
        /// On a public route: let credentials pass to the upstream, unverified.
        pub(super) forward_credentials: bool = default(false), flag();
        /// Accepted here: session, bearer, or by source "bearer:main"; all unless given.
        pub(super) credentials: Option<Vec<At<String>>> = optional(["session", "bearer"]), list(at(word().like(like::CREDENTIAL)));
        /// When Bearer and key come together: all must verify, or any is enough.
        pub(super) several_credentials: Several = default("all"), choice(&[("all", Several::All), ("any", Several::Any)]);
        /// What a caller must have, else 403.
        pub(super) require: Option<(RequireKeys, Entries)> = optional({ any_role = ["admin"] }), nested::<RequireKeys>();
        /// What the upstream gets of a session: bearer, cookies, both, none.
        pub(super) forward_session: ForwardSession = default("bearer"), choice(&[("bearer", ForwardSession::Bearer), ("cookies", ForwardSession::Cookies), ("both", ForwardSession::Both), ("none", ForwardSession::None)]);
        /// What a browser without a credential gets: 401, or login (a redirect to `session.login_url`).
        pub(super) on_unauthenticated: OnUnauthenticated = default("401"), choice(&[("401", OnUnauthenticated::Status401), ("login", OnUnauthenticated::Login)]);
        /// Rate limits added here by name; false: none.
        pub(super) rate_limits: Either<Vec<At<String>>> = default([]), flag_or(list(at(word())));
        /// Networks that may ask; others get 403.
        pub(super) client_ips: Option<Vec<IpNet>> = optional(["10.0.0.0/8"]), list(parsed(parse::network, "a network such as \"10.0.0.0/8\"", "192.0.2.0/24").like(like::NETWORK));
        /// Largest request body, or "unlimited".
        pub(super) max_body: Option<Option<u64>> = optional("10MiB"), none_or("unlimited", parsed(parse::size, "a size such as \"10MiB\"", "10MiB").like(like::SIZE));
        /// Time to the response head, instead of the upstream's.
        pub(super) timeout: Option<Duration> = optional("60s"), span(1, DAY);
        /// Silence allowed in a response body, instead of the upstream's.
        pub(super) idle_timeout: Option<Duration> = optional("60s"), span(1, DAY);
        /// Further tries, instead of the upstream's.
        pub(super) retries: Option<u32> = optional(1), int(0, 10);
        /// Instead of `[cors]`: a table like it, or false.
        pub(super) cors: Option<Either<(Cors, Entries)>> = optional(false), flag_or(nested::<Cors>());
        /// Laid over `[security_headers]`: a table like it, or false.
        pub(super) security_headers: Option<Either<Entries>> = optional({ X-Frame-Options = "SAMEORIGIN" }), flag_or(map(schema::headers));
        /// Cookies that are no session: true (all pass), false, or the names of those that do.
        pub(super) forward_cookies: Either<Vec<Arc<str>>> = default(true), flag_or(list(text()));
        /// Headers changed on the way to the upstream; never one that Tollhouse itself sets.
        pub(super) request_headers: Option<(HeaderChangeKeys, Entries)> = optional({ set = { X-Source = "gateway" }, remove = ["X-Debug"] }), nested::<HeaderChangeKeys>();
        /// Headers changed on the way back.
        pub(super) response_headers: Option<(HeaderChangeKeys, Entries)> = optional({ remove = ["X-Runtime"] }), nested::<HeaderChangeKeys>();
        /// WebSocket handshakes and other upgrades pass; else a handshake is 404.
        pub(super) websocket: bool = default(true), flag();
        /// WebSockets, event streams and other long answers end when the session does that opened them.
        pub(super) end_streams_with_session: bool = default(true), flag();
        /// Whether shared caches may keep answers for somebody: private, public.
        pub(super) cache: bool = default("private"), choice(&[("private", false), ("public", true)]);
        /// Ambiguities let through: encoded_slash, double_encoding, params (`;`), case.
        pub(super) allow_in_path: Vec<Ambiguity> = default([]), list(choice(&[("encoded_slash", Ambiguity::EncodedSlash), ("double_encoding", Ambiguity::DoubleEncoding), ("params", Ambiguity::Params), ("case", Ambiguity::Case)]));
        /// Warnings that are fine on this route, by name.
        pub(super) allow_lints: Vec<At<String>> = default([]), list(at(word().words(WARNINGS)));
    }
}

/// `allow_in_path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ambiguity {
    EncodedSlash,
    DoubleEncoding,
    Params,
    Case,
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct RedirectKeys("routes.redirect", "a redirect") {
        /// Where to: a path, or a URL.
        pub(super) to: Arc<str> = required("/new"), parsed(location, "a path of ours, or an http or https URL", "/placeholder").like(like::LOCATION);
        /// 301, 302, 303, 307 or 308.
        pub(super) status: StatusCode = default(302), Status(&[301, 302, 303, 307, 308]);
    }
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct RespondKeys("routes.respond", "a fixed answer") {
        /// From 200 to 599.
        pub(super) status: StatusCode = default(200), Status(&[]);
        /// Its body.
        pub(super) body: Arc<str> = default(""), text();
        /// Its media type.
        pub(super) content_type: HeaderValue = default("text/plain; charset=utf-8"), parsed(parse::header_value, "a media type", "text/plain").like(like::HEADER_VALUE);
    }
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct RequireKeys("routes.require", "`require`") {
        /// One of these roles.
        pub(super) any_role: Option<Vec<Arc<str>>> = optional(["admin"]), list(parsed(name, "a role", "placeholder").filled());
        /// All of these scopes.
        pub(super) all_scopes: Option<Vec<Arc<str>>> = optional(["orders:read"]), list(parsed(name, "a scope", "placeholder").filled());
        /// The assurance level: aal1, aal2 (a second factor), aal3.
        pub(super) aal: Option<&'static str> = optional("aal2"), choice(&[("aal1", "aal1"), ("aal2", "aal2"), ("aal3", "aal3")]);
        /// A credential of one of these providers.
        pub(super) provider: Option<Vec<At<String>>> = optional(["main"]), one_or_list(at(word()));
        /// Claims by path; a string must equal, an array must contain. "{name}" is a capture.
        pub(super) claims: Option<Entries> = optional({ "app_metadata.tenant" = "{tenant}" }), map(schema::wanted_claims);
    }
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct HeaderChangeKeys("routes.headers", "a header change") {
        /// Name and value; replaces what is there.
        pub(super) set: Option<Entries> = optional({ X-Source = "gateway" }), map(schema::headers);
        /// Names to take away.
        pub(super) remove: Vec<At<HeaderName>> = default([]), list(at(parsed(parse::header_name, "the name of a header", "placeholder").like(like::HEADER_NAME)));
    }
}

/// RFC 9110 §10.2.2. `//host` and `/\host` are other origins to a browser, which also drops tabs before it looks.
fn location(text: &str) -> Result<Arc<str>, String> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("visible ASCII characters; a space is `%20`".into());
    }
    let url = ["http://", "https://"].iter().any(|scheme| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    if url {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("leave user and password out".into());
        }
        return Ok(text.into());
    }
    if text.starts_with("//") || text.starts_with("/\\") {
        return Err("a browser takes this for another host; write `https://` before it".into());
    }
    if !text.starts_with('/') {
        return Err("begin it with `/`, `https://` or `http://`".into());
    }
    Ok(text.into())
}

fn name(text: &str) -> Result<Arc<str>, String> {
    if text.is_empty() {
        Err("it is empty".into())
    } else {
        Ok(text.into())
    }
}

/// A status code: one of these, or any from 200 to 599.
struct Status(&'static [u16]);

impl super::decode::Decode for Status {
    type Out = StatusCode;

    fn read(
        &self,
        node: &super::read::Node,
        key: &str,
        reader: &super::read::Reader<'_>,
    ) -> Option<StatusCode> {
        let value = count(200, 599).read(node, key, reader)?;
        let code = u16::try_from(value).ok()?;
        if !self.0.is_empty() && !self.0.contains(&code) {
            reader.error(
                "out-of-range",
                &node.place,
                format!("`{key}` must be {}", self.expected()),
                "",
            );
            return None;
        }
        StatusCode::from_u16(code).ok()
    }

    fn expected(&self) -> String {
        if self.0.is_empty() {
            "a whole number from 200 to 599".into()
        } else {
            "301, 302, 303, 307 or 308".into()
        }
    }

    fn schema(&self) -> serde_json::Value {
        if self.0.is_empty() {
            return count(200, 599).schema();
        }
        schema::any_of([serde_json::json!({"enum": self.0}), schema::variable()])
    }
}

/// Literal text, `{name}` and `{*}`.
fn rewrite(text: &str) -> Result<Vec<RewritePart>, String> {
    if !text.starts_with('/') {
        return Err("it begins with `/`".into());
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains(['?', '#', '\\']) {
        return Err("visible ASCII characters without `?`, `#` and `\\`".into());
    }
    if text.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("`.` and `..` are never part of a path here".into());
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let name = rest[at..]
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        let Some((name, after)) = name else {
            return Err("braces come in pairs: `{name}` or `{*}`".into());
        };
        if at > 0 {
            parts.push(RewritePart::Text(rest[..at].into()));
        }
        parts.push(if name == "*" {
            RewritePart::Rest
        } else {
            RewritePart::Capture(parse::capture(name)?.into())
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(RewritePart::Text(rest.into()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_a_path_of_ours_or_to_a_whole_url() {
        for text in [
            "/",
            "/new?a=b#c",
            "https://example.com/a?b#c",
            "HTTP://example.com",
        ] {
            assert!(location(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "new",
            "//evil.example.com",
            "/\\evil.example.com",
            "/\t/evil.example.com",
            "javascript:alert(1)",
            "https:evil.example.com",
            "https://",
            "https://user:pass@example.com/",
            "/a b",
        ] {
            assert!(location(text).is_err(), "{text}");
        }
    }
}
