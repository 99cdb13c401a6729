//! The file as a whole: its tables, in which order they are read, and the tables whose keys are the operator's.

use super::decode::{Decode as _, Either, flag_or, map, parsed, wrong_type};
use super::diagnostic::{Place, Severity};
use super::provider_build::read_all as read_providers;
use super::rate_limit::{Cors, RateLimit, RateLimitKeys, built_in};
use super::read::{Entries, Entry, Kind, Reader};
use super::redis::RedisKeys;
use super::route_build::{Known, known_lint};
use super::route_keys::RouteKeys;
use super::server::{self, AdminKeys, Log, Server, TelemetryKeys, header_key};
use super::session::SessionKeys;
use super::session_build::Around;
use super::table::Table;
use super::test_keys::TestKeys;
use super::upstream::{Upstream, UpstreamKeys};
use super::value::{IdentityValue, Origin};
use super::{Config, check, check_listen, listener, parse, schema, warnings};
use http::HeaderName;
use std::path::PathBuf;

/// Tables of a file.
pub(super) const TABLES: &[&str] = &[
    "server",
    "listeners",
    "admin",
    "log",
    "telemetry",
    "redis",
    "providers",
    "session",
    "upstreams",
    "rate_limits",
    "cors",
    "identity_headers",
    "security_headers",
    "routes",
    "tests",
    "lints",
];

/// Header and what it carries, unless the file says something else.
const IDENTITY_HEADERS: &[(&str, &str)] = &[("X-User-Id", "sub"), ("X-User-Role", "@roles")];

/// The file while it is read.
pub(super) struct Root {
    pub(super) entries: Entries,
}

impl Root {
    fn table(&self, name: &str, reader: &Reader<'_>) -> Option<&Entries> {
        let entry = self.entries.get(name)?;
        match &entry.node.kind {
            Kind::Table(entries) => Some(entries),
            Kind::List(_) => {
                let hint = format!("write `[{name}]` with single brackets");
                reader.error(
                    "wrong-type",
                    &entry.key_place,
                    format!("`{name}` must be one table"),
                    hint,
                );
                None
            }
            _ => {
                wrong_type(
                    &entry.node,
                    name,
                    "a table",
                    &format!("write `[{name}]`"),
                    reader,
                );
                None
            }
        }
    }

    /// The tables below `[name.*]`.
    fn named<'a>(&'a self, name: &str, reader: &Reader<'_>) -> Vec<(&'a Entry, &'a Entries)> {
        let mut tables = Vec::new();
        for entry in self
            .table(name, reader)
            .iter()
            .flat_map(|entries| &entries.list)
        {
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            match &entry.node.kind {
                Kind::Table(_)
                    if entry.key.is_empty()
                        || entry.key.len() > 64
                        || !entry.key.chars().all(fine) =>
                {
                    let hint = "1 to 64 letters, digits, `-`, `_` and `.`";
                    reader.error(
                        "bad-name",
                        &entry.key_place,
                        format!("a name in `[{name}.*]` cannot look like this"),
                        hint,
                    );
                }
                Kind::Table(own) => tables.push((entry, own)),
                _ => {
                    let hint = format!("write `[{name}.NAME]` above it, with a name of yours");
                    reader.error(
                        "wrong-type",
                        &entry.key_place,
                        format!("`[{name}]` must hold named tables"),
                        hint,
                    );
                }
            }
        }
        tables
    }

    /// The tables of `[[name]]`.
    fn list<'a>(&'a self, name: &str, reader: &Reader<'_>) -> Vec<&'a Entries> {
        let Some(entry) = self.entries.get(name) else {
            return Vec::new();
        };
        let Kind::List(nodes) = &entry.node.kind else {
            let hint = format!("write `[[{name}]]` with double brackets");
            reader.error(
                "wrong-type",
                &entry.key_place,
                format!("`{name}` must be a list of tables"),
                hint,
            );
            return Vec::new();
        };
        let table = |node: &'a super::read::Node| match &node.kind {
            Kind::Table(entries) => Some(entries),
            _ => {
                wrong_type(node, name, "a list of tables", "", reader);
                None
            }
        };
        nodes.iter().filter_map(table).collect()
    }

    /// Where a key of a table stands.
    pub(super) fn place_in(&self, table: &str, key: &str) -> Place {
        match self.entries.get(table).map(|entry| &entry.node.kind) {
            Some(Kind::Table(entries)) => entries.key_place(key),
            _ => 0..0,
        }
    }

    /// A table that is there by default.
    fn standing<T: Table>(&self, reader: &Reader<'_>) -> Option<(T, Entries)> {
        let entries = self.table(T::SCOPE, reader).cloned().unwrap_or_default();
        T::read(&entries, reader).map(|table| (table, entries))
    }

    /// Reads everything. `None` only together with an error.
    pub(super) fn build(&self, text: &str, reader: &Reader<'_>) -> Option<Config> {
        reader.known_keys(&self.entries, "", "the file", TABLES);
        let door = |name| self.entries.get(name).map(|entry| &entry.node.kind);
        let door = |name| match door(name) {
            Some(Kind::Table(entries)) => entries.clone(),
            _ => Entries::default(),
        };
        let doors = self.list("listeners", reader);
        check_listen::same_address(&door("server"), &doors, &door("admin"), text, reader);
        let server = self.standing::<Server>(reader).map(|(server, entries)| {
            check_listen::unix_without_trust(&server, &entries, &doors, reader);
            let listeners = listener::all(&server, &entries, &doors, reader);
            (server.with_hosts(), listeners)
        });
        let (server, listeners) = server.unzip();
        let admin = self
            .standing::<AdminKeys>(reader)
            .map(|(admin, entries)| admin.build(&entries, reader));
        let log = self.standing::<Log>(reader).map(|(log, _)| log);
        let _ = self.standing::<TelemetryKeys>(reader);

        let redis = self
            .table("redis", reader)
            .and_then(|own| Some(RedisKeys::read(own, reader)?.build(own, reader)));
        let named_providers = self.named("providers", reader);
        let providers = read_providers(&named_providers, reader);
        let provider_names: Vec<&str> = named_providers
            .iter()
            .map(|(entry, _)| entry.key.as_str())
            .collect();
        let session_entries = self.table("session", reader);
        let around = Around {
            providers: &providers,
            declared: &provider_names,
            server: server.as_ref(),
            listeners: listeners.as_deref().unwrap_or_default(),
            redis: self.entries.has("redis"),
        };
        let session = session_entries.and_then(|entries| {
            SessionKeys::read(entries, reader)?.build(entries, &around, reader)
        });

        let named_upstreams = self.named("upstreams", reader);
        let upstreams: Vec<Upstream> = named_upstreams
            .iter()
            .filter_map(|(entry, own)| {
                UpstreamKeys::read(own, reader)?.build(&entry.key, own, reader)
            })
            .collect();
        let named_limits = self.named("rate_limits", reader);
        let mut rate_limits: Vec<RateLimit> = named_limits
            .iter()
            .filter_map(|(entry, own)| {
                RateLimitKeys::read(own, reader)?.build(&entry.key, own, reader)
            })
            .collect();
        let login = session
            .as_ref()
            .is_some_and(|session| session.tries_secrets(&providers));
        rate_limits.extend(built_in(&rate_limits, login));
        let cors = self
            .table("cors", reader)
            .and_then(|own| Some(Cors::read(own, reader)?.checked(own, reader)));

        let https = |origin: &Origin| origin.0.starts_with("https://");
        let https = server
            .as_ref()
            .is_some_and(|s| !s.public_url.is_empty() && s.public_url.iter().all(https));
        let default_headers = server::default_security_headers(https);
        let security_headers = match self.flag_or_table("security_headers", reader) {
            None | Some(Either::Flag(true)) => default_headers,
            Some(Either::Flag(false)) => Vec::new(),
            Some(Either::Other(own)) => server::lay_over(&default_headers, &own, reader),
        };
        let identity_headers = self.identity_headers(providers.len(), reader);

        let mut known = Known {
            upstreams,
            upstream_names: named_upstreams
                .iter()
                .map(|(entry, _)| entry.key.as_str())
                .collect(),
            limits: &rate_limits,
            limit_names: named_limits
                .iter()
                .map(|(entry, _)| entry.key.as_str())
                .collect(),
            provider_names,
            session: session_entries.is_some(),
            security_headers: &security_headers,
            identity_headers: identity_headers
                .iter()
                .map(|(name, _)| name.clone())
                .collect(),
        };
        let mut routes: Vec<_> = self
            .list("routes", reader)
            .into_iter()
            .filter_map(|own| RouteKeys::read(own, reader)?.build(own, &mut known, reader))
            .collect();
        let upstreams = known.upstreams;
        let session_known = session_entries.is_some();
        check::same_requests(&routes, text, reader);
        check::unique_names(&mut routes, reader);
        if let (Some(session), Some(own)) = (&session, session_entries) {
            check::login_url(&routes, session, &own.value_place("login_url"), reader);
            check::below_endpoints(&routes, session, own, reader);
        }
        let tests = self.list("tests", reader);
        let tests = tests.into_iter().filter_map(|own| {
            TestKeys::read(own, reader)?.build(
                own,
                &upstreams,
                &routes,
                &providers,
                session_known,
                reader,
            )
        });
        let tests = tests.collect();
        let config = Config {
            server: server?,
            listeners: listeners?,
            admin: admin?,
            log: log?,
            redis,
            providers,
            session,
            upstreams,
            rate_limits,
            cors,
            identity_headers,
            security_headers,
            routes: routes.iter().map(|built| built.route.clone()).collect(),
            tests,
            warnings: Vec::new(),
            problems: super::diagnostic::Problems::default(),
            files: Vec::<PathBuf>::new(),
        };
        let whole = reader.errors() == 0;
        warnings::look(&config, &routes, self, whole, reader);
        self.silence(reader);
        Some(config)
    }

    fn flag_or_table(&self, name: &'static str, reader: &Reader<'_>) -> Option<Either<Entries>> {
        flag_or(map(schema::headers)).read(&self.entries.get(name)?.node, name, reader)
    }

    fn identity_headers(
        &self,
        providers: usize,
        reader: &Reader<'_>,
    ) -> Vec<(HeaderName, IdentityValue)> {
        let mut headers: Vec<(HeaderName, IdentityValue)> = Vec::new();
        for (name, value) in IDENTITY_HEADERS {
            if let (Ok(name), Ok(value)) = (parse::header_name(name), parse::identity_value(value))
            {
                headers.push((name, value));
            }
        }
        let own = match self.flag_or_table("identity_headers", reader) {
            None | Some(Either::Flag(true)) => Entries::default(),
            Some(Either::Flag(false)) => return Vec::new(),
            Some(Either::Other(own)) => own,
        };
        let mut given: Vec<HeaderName> = Vec::new();
        for entry in &own.list {
            let Some(name) = header_key(&entry.key, &entry.key_place, given.iter(), reader) else {
                continue;
            };
            given.push(name.value.clone());
            if let Some(why) = check::no_identity_header(&name.value) {
                let message = format!("`{}` cannot be an identity header", name.shown);
                reader.error("reserved-header", &name.place, message, why);
                continue;
            }
            let value = parsed(
                parse::identity_value,
                "a claim path such as \"sub\", or \"@roles\"",
                "sub",
            );
            headers.retain(|(known, _)| *known != name.value);
            match flag_or(value).read(&entry.node, &entry.key, reader) {
                Some(Either::Other(value)) => {
                    if matches!(&value, IdentityValue::Claim(path) if super::provider_build::is_user_metadata(path))
                    {
                        let hint = "the user chooses what it says; never decide by it";
                        let message = format!("`{}` carries what the user wrote", name.shown);
                        reader.warn("user-metadata-header", &entry.node.place, message, hint);
                    }
                    headers.push((name.value, value));
                }
                Some(Either::Flag(true)) => {
                    let message = format!(
                        "`{}` must be a claim path, a word such as \"@roles\", or false",
                        name.shown
                    );
                    reader.error(
                        "bad-value",
                        &entry.node.place,
                        message,
                        "say what it carries",
                    );
                }
                Some(Either::Flag(false)) | None => {}
            }
        }
        let auth_provider = HeaderName::from_static("x-auth-provider");
        if providers > 1 && !given.contains(&auth_provider) {
            headers.push((auth_provider, IdentityValue::Provider));
        }
        headers
    }

    /// `[lints]`: warnings that the operator has read.
    fn silence(&self, reader: &Reader<'_>) {
        let Some(own) = self.table("lints", reader) else {
            return;
        };
        for entry in &own.list {
            known_lint(&entry.key, &entry.key_place, true, reader);
            let reason = parsed(
                |text| {
                    if text.trim().is_empty() {
                        Err("say why it is fine".into())
                    } else {
                        Ok(())
                    }
                },
                "a reason",
                "placeholder",
            );
            let _ = reason.read(&entry.node, &entry.key, reader);
        }
        let silenced = |id: &str| own.has(id);
        reader
            .findings
            .borrow_mut()
            .retain(|finding| finding.severity == Severity::Error || !silenced(finding.id));
    }
}
