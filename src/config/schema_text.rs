//! What texts look like, as regular expressions for the schema. None is narrower than the parser it stands for: an
//! editor must never complain of what `check` takes. Some are wider where that is simpler.
//!
//! Only what every engine knows (ECMA-262 and RE2): no look-around, no back-references.

/// What `${…}` names, up to the first brace.
macro_rules! variable {
    () => {
        r"\$\{(file:[^}]*|[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?)\}"
    };
}
macro_rules! http {
    () => {
        "[Hh][Tt][Tt][Pp][Ss]?"
    };
}
macro_rules! token {
    () => {
        r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
    };
}
macro_rules! claim {
    () => {
        r"[^.]+(\.[^.]+){0,15}"
    };
}
macro_rules! duration {
    () => {
        "([0-9]+(ms|s|m|h|d))+"
    };
}
macro_rules! size {
    () => {
        r"[0-9]+\s*(B|KiB|MiB|GiB|KB|kB|MB|GB)"
    };
}

/// Wholly one variable or file.
pub(super) const VARIABLE: &str = concat!("^", variable!(), "$");
/// Text with at least one variable or file in it; `$${` is none.
pub(super) const INTERPOLATED: &str = concat!("(^|[^$])", variable!());

/// [`super::parse::span`].
pub(super) const DURATION: &str = concat!("^", duration!(), "$");
/// [`super::parse::size`].
pub(super) const SIZE: &str = concat!("^", size!(), "$");
/// [`super::parse::bytes_per_second`].
pub(super) const BYTES_PER_SECOND: &str = concat!("^", size!(), "/s$");
/// [`super::parse::rate`].
pub(super) const RATE: &str = concat!(
    r"^\s*\+?0*[1-9][0-9]*\s*/\s*(s|sec|second|m|min|minute|h|hour|d|day|",
    duration!(),
    r")\s*$"
);
/// [`super::parse::listen`].
pub(super) const LISTEN: &str = r"^(unix:/|[0-9.]+:[0-9]+$|\[[0-9A-Fa-f:.%]+\]:[0-9]+$)";
/// [`super::parse::origin`] and [`super::parse::http_url`]; a URL parser takes white space around it.
pub(super) const URL: &str = concat!(r"^\s*", http!(), ":");
/// [`super::parse::endpoint`].
pub(super) const ENDPOINT: &str = concat!(r"^(unix:/|\s*", http!(), ":)");
/// [`super::parse::host`].
pub(super) const HOST: &str = r"^([^/: ]+|\[[0-9A-Fa-f:.]+\])$";
/// [`super::parse::path`].
pub(super) const PATH: &str = "^/([^?# ]*[^/?# ])?$";
/// The `rewrite` of a route.
pub(super) const REWRITE: &str = "^/[!-~]*$";
/// The `to` of a redirect: a path of ours, or a URL.
pub(super) const LOCATION: &str = concat!("^(", http!(), r"://[!-~]+|/([!-.0-\[\]-~][!-~]*)?)$");
/// `session.login_url`: a path of ours, or a URL.
pub(super) const LOGIN_URL: &str = concat!(r"^(\s*", http!(), r":|/([!-.0-\[\]-~][!-~]*)?$)");
/// `session.after_login`: a path of ours.
pub(super) const OWN_PATH: &str = r"^/([!-.0-\[\]-~][!-~]*)?$";
/// `session.endpoints`.
pub(super) const ENDPOINTS: &str = "^(/[-._~0-9A-Za-z]+)+$";
/// The `path` of a session's cookies.
pub(super) const COOKIE_PATH: &str = "^/[!-:<-~]*$";
/// The `url` of `[redis]`.
pub(super) const REDIS: &str = "^(rediss?://|(redis[+])?unix:/)[!-~]*$";
/// [`super::parse::claim`].
pub(super) const CLAIM: &str = concat!("^", claim!(), "$");
/// [`super::parse::identity_value`].
pub(super) const IDENTITY_VALUE: &str = r"^(@(roles|scopes|provider|credential)$|[^@.][^.]*(\.|$))";
/// [`super::parse::limit_by`].
pub(super) const LIMIT_BY: &str = concat!("^(ip|user|claim:", claim!(), "|header:", token!(), ")$");
/// [`super::parse::header_name`].
pub(super) const HEADER_NAME: &str = concat!("^", token!(), "$");
/// [`super::parse::header_value`].
pub(super) const HEADER_VALUE: &str = r"^[^\x00-\x08\x0a-\x1f\x7f]*$";
/// [`super::parse::method`].
pub(super) const METHOD: &str = r"^[-!#$%&'*+.^_`|~0-9A-Z]+$";
/// [`super::parse::network`].
pub(super) const NETWORK: &str = "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$";
/// A network, or one of the words of `server.trusted_proxies`.
pub(super) const TRUSTED: &str = "^(private|unix|[0-9A-Fa-f.:]+(/[0-9]{1,3})?)$";
/// The `host_header` of an upstream.
pub(super) const HOST_HEADER: &str = "^[^@/ ]+$";
/// What a route accepts.
pub(super) const CREDENTIAL: &str = "^(session|bearer(:.+)?)$";
/// A provider's `user_prefix`.
pub(super) const USER_PREFIX: &str = "^[!-~]{0,64}$";
/// A provider's `cookie_name`.
pub(super) const COOKIE_NAME: &str = r"^[-!#-'*+.0-:<>-\[\]-~]{1,128}$";
/// The `request` of a test.
pub(super) const REQUEST: &str = r"^[-!#$%&'*+.^_`|~0-9A-Z]+ \s*(/|https?://)[!-~]*$";
/// Something besides white space.
pub(super) const REASON: &str = r"\S";
/// A name in `[providers.*]` and its kin.
pub(super) const NAME: &str = "^[A-Za-z0-9_.-]{1,64}$";
