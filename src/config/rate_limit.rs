//! `[rate_limits.*]` and `[cors]`.

use super::decode::{
    At, DAY, Decode, at, choice, flag, int, list, none_or, one_or_list, parsed, span,
};
use super::parse;
use super::provider_build::is_user_metadata;
use super::read::{Entries, Reader};
use super::schema_text as like;
use super::table::table;
use super::value::{LimitBy, Origin, Rate};
use http::{HeaderName, Method};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// How often something may happen.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Of the table.
    pub name: Arc<str>,
    /// `None`: `"off"`.
    pub rate: Option<Rate>,
    /// Requests that may come at once. Default: the count of `rate`.
    pub burst: NonZeroU32,
    /// What is counted apart. At least one part.
    pub by: Vec<LimitBy>,
    /// The routes it holds for.
    pub applies_to: AppliesTo,
    /// What is counted.
    pub count: Count,
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct RateLimitKeys("rate_limits", "a rate limit") {
        /// How many in what span: "60/min", "10/s", "60/5m", or "off".
        pub(super) rate: Option<Rate> = required("60/min"), none_or("off", parsed(parse::rate, "a rate such as \"60/min\"", "60/min").like(like::RATE));
        /// How many may come at once; the count of `rate` unless given.
        pub(super) burst: Option<u32> = optional(60), int(1, 1_000_000_000);
        /// Counted apart for each ip (IPv6 by /64), user, claim:PATH or header:NAME; a list is combined.
        pub(super) by: Vec<At<LimitBy>> = default("ip"), one_or_list(at(parsed(parse::limit_by, "\"ip\", \"user\", \"claim:PATH\" or \"header:NAME\"", "ip").like(like::LIMIT_BY)));
        /// Holds for the routes that name it, for every protected one, for all, or for the session endpoints that try secrets: named, protected, all, login. The first with login takes the place of the two that are built in.
        pub(super) applies_to: AppliesTo = default("named"), choice(&[("named", AppliesTo::Named), ("protected", AppliesTo::Protected), ("all", AppliesTo::All), ("login", AppliesTo::Login)]);
        /// What is counted: requests, or failures: only credentials that did not verify.
        pub(super) count: Count = default("requests"), choice(&[("requests", Count::Requests), ("failures", Count::Failures)]);
    }
}

/// The routes a limit holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppliesTo {
    /// Those that name it.
    Named,
    /// Every route that is not public.
    Protected,
    /// Every route.
    All,
    /// The session endpoints that try secrets.
    Login,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Every request.
    Requests,
    /// Only credentials that did not verify.
    Failures,
}

impl RateLimitKeys {
    pub(super) fn build(
        self,
        name: &str,
        entries: &Entries,
        reader: &Reader<'_>,
    ) -> Option<RateLimit> {
        if self.by.is_empty() {
            let hint = "name at least one of ip, user, claim:PATH, header:NAME";
            reader.error(
                "empty-list",
                &entries.value_place("by"),
                "`by` is empty",
                hint,
            );
            return None;
        }
        for by in self.by.iter().filter(|by| by.known) {
            if matches!(&by.value, LimitBy::Claim(path) if is_user_metadata(path)) {
                let message = format!("`{}` is writable by the user", by.shown);
                let hint = "whoever changes it escapes the limit; use \"user\" or `app_metadata`";
                reader.warn("user-metadata-limit", &by.place, message, hint);
            }
        }
        let late = |by: &LimitBy| matches!(by, LimitBy::User | LimitBy::ApiKey | LimitBy::Claim(_));
        if self.count == Count::Failures
            && self.applies_to != AppliesTo::Login
            && let Some(by) = self.by.iter().find(|by| late(&by.value) && by.known)
        {
            let hint =
                "a credential that does not verify names nobody; use \"ip\" or \"header:NAME\"";
            reader.error(
                "contradiction",
                &by.place,
                "failures cannot be counted by user, key or claim",
                hint,
            );
        }
        if self.applies_to == AppliesTo::Login {
            self.check_login(entries, reader);
        }
        let burst = self
            .burst
            .and_then(NonZeroU32::new)
            .or(self.rate.map(|rate| rate.count));
        Some(RateLimit {
            name: name.into(),
            rate: self.rate,
            burst: burst.unwrap_or(NonZeroU32::MIN),
            by: self.by.into_iter().map(|by| by.value).collect(),
            applies_to: self.applies_to,
            count: self.count,
        })
    }
}

impl RateLimitKeys {
    /// Whoever logs in is nobody yet.
    fn check_login(&self, entries: &Entries, reader: &Reader<'_>) {
        let late = |by: &LimitBy| !matches!(by, LimitBy::Ip | LimitBy::Header(_));
        if let Some(by) = self.by.iter().find(|by| by.known && late(&by.value)) {
            let hint = "whoever logs in is nobody yet; use \"ip\" or \"header:NAME\"";
            let message = "logins cannot be counted by user, key or claim";
            reader.error("contradiction", &by.place, message, hint);
        }
        if self.count == Count::Failures {
            let hint = "a wrong password is no credential that does not verify; leave `count` out";
            let message = "`count = \"failures\"` with `applies_to = \"login\"`";
            reader.error(
                "contradiction",
                &entries.value_place("count"),
                message,
                hint,
            );
        }
    }
}

/// The limits that are there until the file has others in their place: 30 credentials a minute by address that do not
/// verify, until it has one with `count = "failures"`; and where `login`s are tried, 10 of them a minute by address and
/// 10 in 10 minutes by account, until it has one with `applies_to = "login"`.
pub(super) fn built_in(taken: &[RateLimit], login: bool) -> Vec<RateLimit> {
    let limit = |name: &str, count: u32, minutes: u64, by: LimitBy| {
        let count = NonZeroU32::MIN.saturating_add(count - 1);
        let is_taken = taken.iter().any(|limit| &*limit.name == name);
        let prefix = if is_taken { "builtin_" } else { "" };
        RateLimit {
            name: format!("{prefix}{name}").into(),
            rate: Some(Rate {
                count,
                per: Duration::from_secs(60 * minutes),
            }),
            burst: count,
            by: vec![by],
            applies_to: AppliesTo::Login,
            count: Count::Requests,
        }
    };
    let mut added = Vec::new();
    if login && !taken.iter().any(|l| l.applies_to == AppliesTo::Login) {
        added.push(limit("login", 10, 1, LimitBy::Ip));
        added.push(limit("login_account", 10, 10, LimitBy::Account));
    }
    if !taken.iter().any(|limit| limit.count == Count::Failures) {
        added.push(RateLimit {
            applies_to: AppliesTo::All,
            count: Count::Failures,
            ..limit("failures", 30, 1, LimitBy::Ip)
        });
    }
    added
}

table! {
    /// Which pages of other origins may call us (Fetch standard, CORS protocol).
    #[derive(Clone, Debug, PartialEq)]
    pub struct Cors("cors", "`[cors]`") {
        /// Full origins, or "*" (only without credentials).
        pub allow_origins: AllowOrigins = required(["https://app.example.com"]), Origins;
        /// Methods a preflight allows; the route's unless given.
        pub allow_methods: Option<Vec<Method>> = optional(["GET", "POST"]), list(parsed(parse::method, "a method such as \"GET\"", "GET").like(like::METHOD));
        /// Request headers a preflight allows.
        pub allow_headers: Vec<HeaderName> = default(["authorization", "content-type", "x-api-key", "x-request-id"]), list(parsed(parse::header_name, "the name of a header", "placeholder").like(like::HEADER_NAME));
        /// Response headers a page may read.
        pub expose_headers: Vec<HeaderName> = default(["x-request-id"]), list(parsed(parse::header_name, "the name of a header", "placeholder").like(like::HEADER_NAME));
        /// Allow cookies; unless given, only for origins in `session.trusted_origins`.
        pub allow_credentials: Option<bool> = optional(true), flag();
        /// How long a browser may remember a preflight.
        pub max_age: Duration = default("10m"), span(0, DAY);
    }
}

impl Cors {
    /// For the pages of these origins; everything else is as by default.
    pub fn of(origins: &[Origin]) -> Self {
        let name = HeaderName::from_static;
        Self {
            allow_origins: AllowOrigins::List(origins.to_vec()),
            allow_methods: None,
            allow_headers: ["authorization", "content-type", "x-api-key", "x-request-id"]
                .map(name)
                .into(),
            expose_headers: vec![name("x-request-id")],
            allow_credentials: None,
            max_age: Duration::from_secs(600),
        }
    }
}

/// Whose pages.
#[derive(Clone, Debug, PartialEq)]
pub enum AllowOrigins {
    /// `"*"`: any, without credentials.
    Any,
    /// These.
    List(Vec<Origin>),
}

impl Cors {
    /// `"*"` with credentials would let every page on the web act as the user.
    pub(super) fn checked(self, entries: &Entries, reader: &Reader<'_>) -> Self {
        if self.allow_origins == AllowOrigins::Any && self.allow_credentials == Some(true) {
            let hint = "every page on the web could act as the user; list the origins";
            let place = entries.value_place("allow_origins");
            reader.error(
                "contradiction",
                &place,
                "`allow_origins` is \"*\" while `allow_credentials` is true",
                hint,
            );
        }
        if self.allow_origins == AllowOrigins::List(Vec::new()) {
            let hint = "list the origins, or leave `cors` out";
            reader.error(
                "empty-list",
                &entries.value_place("allow_origins"),
                "`allow_origins` is empty",
                hint,
            );
        }
        self
    }
}

struct Origins;

fn origins() -> impl Decode<Out = Vec<At<Option<Origin>>>> {
    let origin = parsed(
        parse::origin,
        "an origin such as \"https://app.example.com\"",
        "https://placeholder.invalid",
    );
    one_or_list(at(none_or("*", origin.like(like::URL))))
}

impl Decode for Origins {
    type Out = AllowOrigins;

    fn read(
        &self,
        node: &super::read::Node,
        key: &str,
        reader: &Reader<'_>,
    ) -> Option<AllowOrigins> {
        let origins = origins().read(node, key, reader)?;
        if origins.iter().any(|origin| origin.value.is_none()) {
            if let Some(other) = origins.iter().find(|origin| origin.value.is_some()) {
                reader.error(
                    "contradiction",
                    &other.place,
                    "`allow_origins` has \"*\" and origins",
                    "keep one of them",
                );
            }
            return Some(AllowOrigins::Any);
        }
        Some(AllowOrigins::List(
            origins
                .into_iter()
                .filter_map(|origin| origin.value)
                .collect(),
        ))
    }

    fn expected(&self) -> String {
        "a list of origins such as \"https://app.example.com\", or \"*\"".into()
    }

    fn schema(&self) -> serde_json::Value {
        origins().schema()
    }
}
