//! A cookie whose value is an access token, and nothing else: written by the application, read and at logout removed by
//! us, never renewed.

use super::set_cookie::Attributes;
use crate::headers::cookies;
use cookie::Cookie;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;

/// The cookie of a configuration.
#[derive(Debug)]
pub struct RawCookie {
    /// Its name.
    pub name: Arc<str>,
    /// What the application gave it, as far as removing it must say so: domain and path.
    pub attributes: Attributes,
}

impl RawCookie {
    /// The first value, unless it is empty.
    pub(super) fn value<'h>(&self, headers: &'h HeaderMap) -> Option<&'h [u8]> {
        cookies::pairs(headers)
            .find(|(name, _)| *name == self.name.as_bytes())
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    }

    /// The Set-Cookie fields that remove it, for this host and for the domain. None when it is not there.
    pub(super) fn clear(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        if cookies::pairs(headers).all(|(name, _)| name != self.name.as_bytes()) {
            return Vec::new();
        }
        let field = |domain: Option<&str>| {
            let mut cookie = Cookie::build((&*self.name, ""))
                .path(&*self.attributes.path)
                .secure(self.attributes.secure)
                .http_only(self.attributes.http_only)
                .max_age(cookie::time::Duration::ZERO);
            if let Some(domain) = domain {
                cookie = cookie.domain(domain.to_owned());
            }
            HeaderValue::try_from(cookie.build().to_string()).ok()
        };
        let domain = self.attributes.domain.as_deref();
        let at_domain = domain.and_then(|domain| field(Some(domain)));
        field(None).into_iter().chain(at_domain).collect()
    }
}
