//! Sessions of the provider's own library that become ours (contract, section 5, "Adopt"): a user who has logged in before
//! Tollhouse came stays logged in. Each refresh token is taken over once: a copy of the cookies that turns up later is not.

use super::Brought;
use super::set_cookie::{Attributes, Unwritable};
use super::supabase::{Malformed, SupabaseCookies, SupabaseWriter};
use crate::base::secret::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName, HeaderValue};
use quick_cache::sync::Cache;
use std::sync::Arc;

/// For how long the requests that a page sends at the same time may all bring the old cookies, in seconds: as long as a
/// used refresh token gets the same new session again.
const AT_ONCE_SECONDS: u64 = 10;
/// Sessions that are remembered as taken over; 32 bytes each and a time. Over it the one seen longest ago is forgotten, and
/// then only the provider's own rules keep its token from being used again.
const REMEMBERED_MAX: usize = 100_000;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is taken over, and what was.
#[derive(Debug)]
pub struct Adopt {
    cookies: SupabaseCookies,
    /// One for each scope that the cookies may have: this host, and domains around it.
    writers: Vec<SupabaseWriter>,
    /// Hash of a refresh token → Unix seconds when it was first brought.
    taken: Cache<[u8; 32], u64>,
}

impl Adopt {
    /// The sessions that the library keeps under `storage_key`, for the host alone or for one of `domains`.
    pub fn new(storage_key: &str, domains: &[Arc<str>]) -> Result<Self, Unwritable> {
        let domains = domains.iter().cloned().map(Some);
        let writers = std::iter::once(None).chain(domains).map(|domain| {
            // They are only ever removed: of their attributes nothing else matters.
            let attributes = Attributes {
                domain,
                ..SupabaseWriter::library_attributes()
            };
            SupabaseWriter::new(storage_key, attributes)
        });
        Ok(Self {
            cookies: SupabaseCookies::new(storage_key),
            writers: writers.collect::<Result<_, _>>()?,
            taken: Cache::new(REMEMBERED_MAX),
        })
    }

    /// Whether a cookie of this name holds a session that could be taken over. PKCE verifiers do not.
    pub fn owns(&self, name: &[u8]) -> bool {
        self.cookies.owns(name)
    }

    /// The session of a request that comes from a page of ours or was typed in: a page of somebody else's cannot send the
    /// browser here and have it logged in with cookies that it planted.
    pub fn read(&self, headers: &HeaderMap) -> Result<Option<Brought>, Malformed> {
        let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
        let ours = match (sites.next(), sites.next()) {
            (Some(site), None) => matches!(site.as_bytes(), b"same-origin" | b"none"),
            _ => false,
        };
        if ours {
            Ok(self.cookies.read(headers)?.map(Brought::shared))
        } else {
            Ok(None)
        }
    }

    /// The session of a request, wherever that comes from: for its end.
    pub fn find(&self, headers: &HeaderMap) -> Option<Brought> {
        let found = self.cookies.read(headers).ok()?;
        found.map(Brought::shared)
    }

    /// Nobody takes it over any more.
    pub fn spend(&self, refresh_token: &Secret<String>) {
        self.taken.insert(hash(refresh_token), 0);
    }

    /// Whether this token may be taken over now (Unix seconds): nobody has brought it before, or only just now.
    pub fn may(&self, refresh_token: &Secret<String>, now: u64) -> bool {
        let key = hash(refresh_token);
        let first = self.taken.get(&key);
        first.is_none_or(|first| now <= first.saturating_add(AT_ONCE_SECONDS))
    }

    /// It has been taken over.
    pub fn done(&self, refresh_token: &Secret<String>, now: u64) {
        let key = hash(refresh_token);
        if self.taken.get(&key).is_none() {
            self.taken.insert(key, now);
        }
    }

    /// The Set-Cookie fields that remove every session of the library, for this host and for the domains; verifiers stay.
    pub fn clear(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        let mut fields = Vec::new();
        for field in self.writers.iter().flat_map(|writer| writer.clear(headers)) {
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        fields
    }
}

/// Of the whole token, so that none is kept.
fn hash(token: &Secret<String>) -> [u8; 32] {
    let hash = digest(&SHA256, token.expose().as_bytes());
    let mut key = [0; 32];
    for (to, from) in key.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::COOKIE;

    fn adopt() -> Adopt {
        let domains = ["app.example.com".into(), "example.com".into()];
        Adopt::new("sb-x-auth-token", &domains).unwrap()
    }

    #[test]
    fn only_pages_of_ours_bring_sessions() {
        let adopt = adopt();
        let read = |sites: &[&'static str]| {
            let mut headers = HeaderMap::new();
            let cookie =
                r#"sb-x-auth-token={"access_token":"a","refresh_token":"r","expires_at":1}"#;
            headers.insert(COOKIE, HeaderValue::from_static(cookie));
            for site in sites {
                headers.append(SEC_FETCH_SITE, HeaderValue::from_static(site));
            }
            adopt.read(&headers).unwrap().is_some()
        };
        assert!(read(&["same-origin"]));
        assert!(read(&["none"]));
        for sites in [
            &[][..],
            &["same-site"],
            &["cross-site"],
            &["Same-Origin"],
            &[""],
            &["same-origin", "same-origin"],
        ] {
            assert!(!read(sites), "{sites:?}");
        }
    }

    #[test]
    fn every_piece_goes_at_every_scope_and_no_verifier() {
        let mut headers = HeaderMap::new();
        let cookie = "sb-x-auth-token.0=a; other=1; sb-x-auth-token-code-verifier=v";
        headers.insert(COOKIE, HeaderValue::from_static(cookie));
        let cleared = adopt().clear(&headers);
        let expected = ["", "; Domain=app.example.com", "; Domain=example.com"]
            .map(|at| format!("sb-x-auth-token.0=; Max-Age=0{at}; Path=/; SameSite=Lax"));
        assert_eq!(cleared, expected);
    }

    #[test]
    fn a_token_is_taken_over_once_and_by_those_who_come_at_the_same_time() {
        let adopt = adopt();
        let token = |text: &str| Secret::new(text.to_owned());
        assert!(adopt.may(&token("one"), 1_000));
        assert!(adopt.may(&token("one"), 9_000), "nothing came of it yet");
        adopt.done(&token("one"), 9_000);
        adopt.done(&token("one"), 9_009);
        assert!(adopt.may(&token("one"), 9_010));
        assert!(!adopt.may(&token("one"), 9_011));
        assert!(adopt.may(&token("other"), 9_011));
    }
}
