//! The keys of `[[tests]]`.

use super::decode::{At, at, choice, count, list, map, parsed, string, text, word};
use super::parse;
use super::provider::Provider;
use super::read::{Entries, Kind, Node, Reader};
use super::route_build::Built;
use super::schema;
use super::schema_text as like;
use super::server::header_map;
use super::table::{Table as _, table};
use super::tests::{Expect, InventedCaller, PolicyTest};
use super::upstream::Upstream;
use crate::exchange::Credential;
use http::{Method, StatusCode};
use std::sync::Arc;

table! {
    #[derive(Clone, Debug)]
    pub(super) struct TestKeys("tests", "a test") {
        /// Method and path, or URL.
        pub(super) request: Request = required("GET /api/me"), parsed(request, "a method and a path such as \"GET /api/me\"", "GET /placeholder").like(like::REQUEST);
        /// Who asks: "nobody", or an invented caller.
        pub(super) r#as: Option<Node> = optional({ roles = ["user"] }), Whatever;
        /// The gateway itself answers with this status.
        pub(super) status: Option<usize> = optional(403), count(100, 599);
        /// The upstream that is asked.
        pub(super) upstream: Option<At<String>> = optional("api"), at(word());
        /// The path with which it is asked.
        pub(super) upstream_path: Option<String> = optional("/me"), word();
        /// The route that matches.
        pub(super) route: Option<At<String>> = optional("api"), at(word());
        /// Headers with which it is asked.
        pub(super) headers: Option<Entries> = optional({ X-User-Role = "user" }), map(schema::headers);
    }
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct CallerKeys("tests.as", "an invented caller") {
        /// User id.
        pub(super) user: String = default("test-user"), word();
        /// Roles.
        pub(super) roles: Vec<Arc<str>> = default([]), list(text());
        /// Scopes.
        pub(super) scopes: Vec<Arc<str>> = default([]), list(text());
        /// Further claims.
        pub(super) claims: Option<Entries> = optional({ aal = "aal2" }), map(schema::any_claims);
        /// By what: session or bearer; session when there is one.
        pub(super) with: Option<Credential> = optional("bearer"), choice(&[("session", Credential::Session), ("bearer", Credential::Bearer)]);
        /// Whose credential.
        pub(super) provider: Option<At<String>> = optional("main"), at(string());
    }
}

/// Method, host, path and query.
pub(super) type Request = (Method, Option<Arc<str>>, Arc<str>);

fn request(text: &str) -> Result<Request, String> {
    let (method, target) = text
        .split_once(' ')
        .ok_or("a method, a space, and a path or URL")?;
    let method = parse::method(method)?;
    let target = target.trim_start();
    let fine = target.bytes().all(|b| b.is_ascii_graphic());
    if target.starts_with('/') && fine {
        return Ok((method, None, target.into()));
    }
    let after = target
        .strip_prefix("https://")
        .or_else(|| target.strip_prefix("http://"));
    let after = after
        .filter(|_| fine)
        .ok_or("after the method comes a path, which begins with `/`, or a URL")?;
    let (host, path) = after.split_at(after.find('/').unwrap_or(after.len()));
    if host.is_empty() || host.contains('@') {
        return Err("the URL has no host".into());
    }
    Ok((
        method,
        Some(host.into()),
        if path.is_empty() {
            "/".into()
        } else {
            path.into()
        },
    ))
}

/// `as`: read later, since it is a word or a table.
struct Whatever;

impl super::decode::Decode for Whatever {
    type Out = Node;
    fn read(&self, node: &Node, _: &str, _: &Reader<'_>) -> Option<Node> {
        (!matches!(node.kind, Kind::Broken { .. })).then(|| node.clone())
    }
    fn expected(&self) -> String {
        "\"nobody\", or a table".into()
    }
    fn schema(&self) -> serde_json::Value {
        schema::any_of([
            schema::words(&["nobody"]),
            schema::interpolated(),
            schema::definition(CallerKeys::SCOPE),
        ])
    }
}

impl TestKeys {
    pub(super) fn build(
        self,
        entries: &Entries,
        upstreams: &[Upstream],
        routes: &[Built],
        providers: &[Provider],
        session: bool,
        reader: &Reader<'_>,
    ) -> Option<PolicyTest> {
        let expectations = ["status", "upstream", "upstream_path", "route", "headers"];
        if !expectations.iter().any(|key| entries.has(key)) {
            let hint = "say `status`, `upstream`, `upstream_path`, `route` or `headers`";
            reader.error(
                "missing-key",
                &entries.place,
                "a test expects nothing",
                hint,
            );
        }
        if let Some(name) = self
            .upstream
            .as_ref()
            .filter(|name| name.known && !upstreams.iter().any(|u| *u.name == *name.value))
        {
            let hint = name.suggest(upstreams.iter().map(|u| &*u.name));
            reader.error(
                "unknown-upstream",
                &name.place,
                format!("there is no upstream `{}`", name.shown),
                hint,
            );
        }
        if let Some(name) = self
            .route
            .as_ref()
            .filter(|name| name.known && !routes.iter().any(|r| *r.route.name == *name.value))
        {
            let named = |built: &&Built| built.named || built.paths.iter().all(|path| path.literal);
            let literal: Vec<&str> = routes
                .iter()
                .filter(named)
                .map(|built| &*built.route.name)
                .collect();
            let hint = name.suggest(literal.iter().copied());
            reader.error(
                "unknown-route",
                &name.place,
                format!("there is no route `{}`", name.shown),
                hint,
            );
        }
        let caller = match &self.r#as {
            None => None,
            Some(node) => match &node.kind {
                Kind::Text(text) if text.value == "nobody" || !text.known => None,
                Kind::Table(own) => {
                    Some(CallerKeys::read(own, reader)?.build(own, providers, session, reader)?)
                }
                _ => {
                    let hint = "write a table such as { roles = [\"user\"] }";
                    reader.error(
                        "bad-value",
                        &node.place,
                        "`as` must be \"nobody\", or a table",
                        hint,
                    );
                    return None;
                }
            },
        };
        let (method, host, target) = self.request;
        let headers = self
            .headers
            .iter()
            .flat_map(|own| header_map(own, reader))
            .map(|(name, value)| (name.value, value));
        Some(PolicyTest {
            place: entries.place.clone(),
            method,
            target,
            host,
            caller,
            expect: Expect {
                status: self
                    .status
                    .and_then(|s| StatusCode::from_u16(u16::try_from(s).ok()?).ok()),
                upstream: self.upstream.map(|name| name.value.into()),
                upstream_path: self.upstream_path.map(Into::into),
                route: self.route.map(|name| name.value.into()),
                headers: headers.collect(),
            },
        })
    }
}

impl CallerKeys {
    fn build(
        self,
        entries: &Entries,
        providers: &[Provider],
        session: bool,
        reader: &Reader<'_>,
    ) -> Option<InventedCaller> {
        if self.with == Some(Credential::Session) && !session {
            let hint = "add [session], or say \"bearer\"";
            reader.error(
                "unknown-credential",
                &entries.value_place("with"),
                "a test with a session, without `[session]`",
                hint,
            );
        }
        if let Some(name) = self
            .provider
            .as_ref()
            .filter(|name| name.known && !providers.iter().any(|p| *p.name == *name.value))
        {
            let hint = name.suggest(providers.iter().map(|p| &*p.name));
            reader.error(
                "unknown-provider",
                &name.place,
                format!("there is no provider `{}`", name.shown),
                hint,
            );
        }
        let default = if session {
            Credential::Session
        } else {
            Credential::Bearer
        };
        Some(InventedCaller {
            user: self.user.into(),
            roles: self.roles,
            scopes: self.scopes,
            claims: self.claims.as_ref().map(claims).unwrap_or_default(),
            with: self.with.unwrap_or(default),
            provider: self.provider.map(|name| name.value.into()),
        })
    }
}

/// Claims as a token would hold them. `"app_metadata.tenant"` is a path.
fn claims(entries: &Entries) -> serde_json::Map<String, serde_json::Value> {
    let mut claims = serde_json::Map::new();
    for entry in &entries.list {
        let mut at = &mut claims;
        let steps: Vec<&str> = entry.key.split('.').collect();
        let Some((last, first)) = steps.split_last() else {
            continue;
        };
        for step in first {
            let next = at
                .entry(*step)
                .or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
            if !next.is_object() {
                *next = serde_json::Value::Object(serde_json::Map::new());
            }
            match next {
                serde_json::Value::Object(inner) => at = inner,
                _ => return claims,
            }
        }
        at.insert((*last).to_owned(), json(&entry.node));
    }
    claims
}

fn json(node: &Node) -> serde_json::Value {
    match &node.kind {
        Kind::Text(text) => text.value.clone().into(),
        Kind::Int(value) => (*value).into(),
        Kind::Float(value) => (*value).into(),
        Kind::Bool(value) => (*value).into(),
        Kind::List(nodes) => nodes.iter().map(json).collect(),
        Kind::Table(own) => claims(own).into(),
        Kind::Date | Kind::Broken { .. } => serde_json::Value::Null,
    }
}
