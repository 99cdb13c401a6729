//! What all cookies that we write have in common: their attributes, and which fields take the place of the cookies that
//! a browser has (RFC 6265 §4.1 and §5.3). Knows nothing of what is in them.

use crate::headers::cookies;
use http::{HeaderMap, HeaderValue};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Name, value and attributes of one cookie, in bytes: what every browser keeps (RFC 6265 §6.1).
pub const COOKIE_BYTES_MAX: usize = 4096;

/// The attributes of the cookies of a session, but for `Max-Age`, which differs from write to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Where the cookie goes besides the host that set it. `None`: nowhere.
    pub domain: Option<Arc<str>>,
    /// Below which path it goes.
    pub path: Arc<str>,
    /// Never in the clear.
    pub secure: bool,
    /// Not to be read by scripts.
    pub http_only: bool,
    /// A jar of its own below each top-level site.
    pub partitioned: bool,
    /// With which requests of other sites it goes.
    pub same_site: SameSite,
}

/// Attribute of the same name (RFC 6265bis §5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// With none.
    Strict,
    /// With top-level navigations that are safe.
    Lax,
    /// With all; browsers ask for `Secure` then.
    None,
}

/// A name or an attribute that cannot be written: `name`, `path` or `domain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no browser keeps a cookie with this {0}")]
pub struct Unwritable(&'static str);

/// A session that no browser would keep or give back. Nothing is written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session of {bytes} bytes is too large for its cookies")]
pub struct DoesNotFit {
    /// What its cookies would hold.
    pub bytes: usize,
}

impl Attributes {
    /// Whether a name and these attributes can stand in a Set-Cookie field and be nothing but themselves there, and
    /// browsers grant the name (prefixes: RFC 6265bis §4.1.3).
    pub(super) fn check(&self, name: &str) -> Result<(), Unwritable> {
        let plain = |text: &str, no: &[u8]| {
            text.bytes()
                .all(|b| (b == b' ' || b.is_ascii_graphic()) && !no.contains(&b))
        };
        if name.is_empty() || !plain(name, b" ;=") {
            return Err(Unwritable("name"));
        }
        let starts = |prefix: &str| {
            let start = name.as_bytes().get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        let of_host = self.domain.is_none() && &*self.path == "/";
        if (starts("__Secure-") && !self.secure) || (starts("__Host-") && !(self.secure && of_host))
        {
            return Err(Unwritable("name"));
        }
        if !self.path.starts_with('/') || !plain(&self.path, b";") {
            return Err(Unwritable("path"));
        }
        let label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        match &self.domain {
            Some(domain) if domain.is_empty() || !domain.bytes().all(label) => {
                Err(Unwritable("domain"))
            }
            _ => Ok(()),
        }
    }
}

/// A cookie of ours in a request.
#[derive(Debug)]
pub(super) struct Came<'h> {
    pub(super) name: &'h str,
    /// Of the first cookie of this name, which is the one that is read. As sent.
    pub(super) value: &'h [u8],
    /// Whether the name stands there again: two jars of the browser hold it, for this host and for a domain above.
    pub(super) twice: bool,
}

/// The cookies whose name `own` accepts, each name once, in the order of the request.
pub(super) fn came(headers: &HeaderMap, own: impl Fn(&[u8]) -> bool) -> Vec<Came<'_>> {
    let mut found: Vec<Came<'_>> = Vec::new();
    let mut places = HashMap::new();
    for (name, value) in cookies::pairs(headers).filter(|(name, _)| own(name)) {
        if let Some(known) = places.get(name).and_then(|&at: &usize| found.get_mut(at)) {
            known.twice = true;
        } else if let Ok(text) = std::str::from_utf8(name) {
            places.insert(name, found.len());
            found.push(Came {
                name: text,
                value,
                twice: false,
            });
        }
    }
    found
}

/// Where a cookie is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The host that answers.
    Host,
    /// Where we write: the configured domain, or the host when there is none.
    Ours,
}

/// How one format writes its fields.
pub(super) trait Lines {
    /// The attributes, for the scopes of removal.
    fn attributes(&self) -> &Attributes;
    /// A field that sets a cookie.
    fn set(&self, name: &str, value: &str) -> String;
    /// A field that removes a cookie.
    fn clear(&self, name: &str, scope: Scope) -> String;
}

/// The fields that put the cookies `new` into the place of those that came: first the removals, for this host and then
/// for the domain, then what `unchanged` does not know in the browser already.
///
/// With a domain, a name that came twice also goes for this host: the older cookie would be read instead of ours for
/// good, and a session whose refresh token is spent would be all that the next request holds.
pub(super) fn replacing<'a>(
    lines: &impl Lines,
    came: &[Came<'_>],
    new: &'a [(String, String)],
    unchanged: impl Fn(&Came<'_>, &'a str) -> bool,
) -> Vec<HeaderValue> {
    let known: HashMap<&str, &Came<'_>> = came.iter().map(|came| (came.name, came)).collect();
    let kept: HashSet<&str> = new.iter().map(|(name, _)| &**name).collect();
    let stale = |came: &&Came<'_>| !kept.contains(came.name);
    let mut fields = Vec::new();
    if lines.attributes().domain.is_some() {
        let at_host = came.iter().filter(|came| came.twice || stale(came));
        fields.extend(at_host.map(|came| lines.clear(came.name, Scope::Host)));
    }
    let cleared = came.iter().filter(stale);
    fields.extend(cleared.map(|came| lines.clear(came.name, Scope::Ours)));
    let changed = new.iter().filter(|(name, value)| {
        !known
            .get(&**name)
            .is_some_and(|came| !came.twice && unchanged(came, value))
    });
    fields.extend(changed.map(|(name, value)| lines.set(name, value)));
    // Names, attributes and values have been seen to before: all of them are field values.
    let values = fields
        .into_iter()
        .filter_map(|field| HeaderValue::try_from(field).ok());
    values
        .map(|mut value| {
            value.set_sensitive(true);
            value
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        Attributes {
            domain: None,
            path: "/".into(),
            secure: true,
            http_only: true,
            partitioned: false,
            same_site: SameSite::Lax,
        }
    }

    #[test]
    fn what_no_browser_keeps_is_not_written() {
        let check = |name: &str, change: fn(&mut Attributes), expected: Option<&str>| {
            let mut changed = attributes();
            change(&mut changed);
            let found = changed.check(name).err().map(|Unwritable(what)| what);
            assert_eq!(found, expected, "{name} {changed:?}");
        };
        let nothing: fn(&mut Attributes) = |_| {};
        for name in [
            "a",
            "sb-[::1]-auth-token",
            "__Host-a",
            "__secure-a",
            "__Hosta",
        ] {
            check(name, nothing, None);
        }
        for name in ["", "a b", "a;b", "a=b", "a\r\nb", "é", "a\0"] {
            check(name, nothing, Some("name"));
        }
        check("__Secure-a", |a| a.secure = false, Some("name"));
        check("__host-a", |a| a.secure = false, Some("name"));
        check("__Host-a", |a| a.path = "/app".into(), Some("name"));
        check(
            "__Host-a",
            |a| a.domain = Some("example.com".into()),
            Some("name"),
        );
        check("a", |a| a.path = "/a b".into(), None);
        check("a", |a| a.path = "a".into(), Some("path"));
        check("a", |a| a.path = "/;Domain=com".into(), Some("path"));
        check("a", |a| a.path = "/\n".into(), Some("path"));
        check("a", |a| a.domain = Some(".example.com".into()), None);
        check("a", |a| a.domain = Some("".into()), Some("domain"));
        check(
            "a",
            |a| a.domain = Some("example.com; x".into()),
            Some("domain"),
        );
    }
}
