//! From the keys of a provider to a provider: what is derived from its URL, and what must not be.

use super::decode::{At, Kept};
use super::diagnostic::Place;
use super::parse;
use super::provider::{KeySource, KindWord, Provider, ProviderKeys, ProviderKind};
use super::provider_secret::{
    SECRET_BYTES_MIN, decode_secret, one_key_source, public_key, publishable, read_pem, secret_key,
};
use super::read::{Entries, Entry, Reader};
use super::table::Table as _;
use super::value::ClaimPath;
use crate::base::secret::Secret;
use std::sync::Arc;
use url::{Host, Url};

/// Keys that only one kind has.
const ONLY: &[(&str, KindWord)] = &[
    ("url", KindWord::Supabase),
    ("publishable_key", KindWord::Supabase),
    ("secret_key", KindWord::Supabase),
    ("jwt_secret", KindWord::Supabase),
    ("anonymous_users", KindWord::Supabase),
    ("service_role", KindWord::Supabase),
    ("internal_url", KindWord::Supabase),
    ("secret", KindWord::Jwt),
    ("public_key_file", KindWord::Jwt),
];

/// A provider and where its secret stands.
pub(super) struct Built {
    pub(super) provider: Provider,
    /// For comparing secrets of providers. `None`: no secret, or a placeholder.
    pub(super) secret_place: Option<Place>,
}

impl ProviderKeys {
    pub(super) fn build(self, name: &str, entries: &Entries, reader: &Reader<'_>) -> Option<Built> {
        self.refuse_keys_of_other_kinds(entries, reader);
        for url in [&self.url, &self.internal_url, &self.jwks_url]
            .into_iter()
            .flatten()
        {
            self.check_transport(url, reader);
        }
        for path in self
            .roles
            .iter()
            .flatten()
            .chain(std::iter::once(&self.user_id_claim))
        {
            refuse_user_metadata(path, reader);
        }
        if let Some(url) = &self.url {
            refuse_api_path(url, reader);
        }
        let supabase = self.kind == KindWord::Supabase;
        if supabase && self.url.is_none() {
            if !entries.has("url") {
                let hint = "`url` is the project's, such as \"https://xyz.supabase.co\"";
                reader.error(
                    "missing-key",
                    &entries.place,
                    format!("the provider `{name}` needs `url`"),
                    hint,
                );
            }
            return None;
        }
        let api = |base: &Url, path: &str| under(base, path);
        let public = self.url.as_ref().map(|url| url.value.clone());
        let near = self
            .internal_url
            .as_ref()
            .map(|url| url.value.clone())
            .or_else(|| public.clone());
        let derived_jwks = near
            .as_ref()
            .filter(|_| supabase)
            .and_then(|url| api(url, "auth/v1/.well-known/jwks.json"));
        let given_secret = if supabase {
            self.jwt_secret.clone()
        } else {
            self.secret.clone()
        };
        let (secret, secret_place) = match given_secret.and_then(Kept::given) {
            Some(kept) if kept.known => decode_secret(&kept, reader).unzip(),
            Some(_) => (Some(Secret::new(vec![0; SECRET_BYTES_MIN])), None),
            None => (None, None),
        };
        let keys = KeySource {
            jwks_url: self
                .jwks_url
                .as_ref()
                .map(|url| url.value.clone())
                .or(derived_jwks),
            secret,
            public_key: self
                .public_key_file
                .as_ref()
                .and_then(|path| public_key(path, reader)),
        };
        if !supabase {
            one_key_source(name, entries, reader);
        }
        let issuer = self.issuer(name, entries, public.as_ref(), reader);
        let audiences = self.audiences(name, entries, reader);
        let algorithms = self.algorithms(&keys, entries, reader);
        let kind = match self.kind {
            KindWord::Jwt => ProviderKind::Jwt,
            KindWord::Supabase => {
                if self.service_role {
                    let hint = "whoever holds that key passes every `auth = \"required\"`";
                    let message = "keys of the project count as identities";
                    reader.warn(
                        "service-role-allowed",
                        &entries.key_place("service_role"),
                        message,
                        hint,
                    );
                }
                let publishable_key = publishable(self.publishable_key.clone(), reader);
                let secret_key =
                    secret_key(self.secret_key.clone(), publishable_key.as_ref(), reader);
                ProviderKind::Supabase {
                    auth_api: near.as_ref().and_then(|url| api(url, "auth/v1"))?,
                    public_api: public.as_ref().and_then(|url| api(url, "auth/v1"))?,
                    publishable_key,
                    secret_key,
                    anonymous_users: self.anonymous_users,
                    service_role: self.service_role,
                }
            }
        };
        let derived_cookie = public.as_ref().filter(|_| supabase).and_then(storage_key);
        let default_roles: &[&str] = if supabase {
            &["user_role", "app_metadata.role", "app_metadata.roles"]
        } else {
            &["role", "roles"]
        };
        let provider = Provider {
            name: name.into(),
            kind,
            issuer: issuer?,
            audiences: audiences?,
            keys,
            algorithms,
            leeway: self.leeway,
            jwks_ttl: self.jwks_ttl,
            jwks_max_stale: self.jwks_max_stale,
            jwks_refetch_cooldown: self.jwks_refetch_cooldown,
            roles: match self.roles {
                Some(roles) => roles.into_iter().map(|path| path.value).collect(),
                None => default_roles
                    .iter()
                    .filter_map(|path| parse::claim(path).ok())
                    .collect(),
            },
            user_id_claim: self.user_id_claim.value,
            user_prefix: self.user_prefix,
            max_token_bytes: self.max_token_bytes,
            http_timeout: self.http_timeout,
            ca_file: self
                .ca_file
                .filter(|path| !path.value.is_empty() || !path.known)
                .map(|path| {
                    if path.known {
                        read_pem(&path, "CERTIFICATE", reader);
                    }
                    reader.dir.join(&path.value)
                }),
            allow_insecure_http: self.allow_insecure_http,
            cookie_name: self
                .cookie_name
                .map(|name| name.value.into())
                .or(derived_cookie),
        };
        Some(Built {
            provider,
            secret_place,
        })
    }

    fn refuse_keys_of_other_kinds(&self, entries: &Entries, reader: &Reader<'_>) {
        for (key, kind) in ONLY
            .iter()
            .filter(|(key, kind)| *kind != self.kind && entries.has(key))
        {
            let (own, other) = match kind {
                KindWord::Supabase => ("jwt", "supabase"),
                KindWord::Jwt => ("supabase", "jwt"),
            };
            let hint = match *key {
                "secret" => "did you mean `jwt_secret`?".into(),
                "jwt_secret" => "did you mean `secret`?".into(),
                _ => format!("it belongs to kind `{other}`"),
            };
            let message = format!("a provider of kind `{own}` has no key `{key}`");
            reader.error("unknown-key", &entries.key_place(key), message, hint);
        }
    }

    /// Keys that come over plain http can be replaced by whoever is in between.
    fn check_transport(&self, url: &At<Url>, reader: &Reader<'_>) {
        if !url.known || url.value.scheme() == "https" || is_loopback(&url.value) {
            return;
        }
        if self.allow_insecure_http {
            let hint = "whoever can change that traffic can sign in as anybody";
            reader.warn(
                "insecure-http",
                &url.place,
                "a provider is asked over plain http",
                hint,
            );
        } else {
            let hint = "use https, or say `allow_insecure_http = true`";
            reader.error(
                "insecure-http",
                &url.place,
                "a provider is asked over plain http",
                hint,
            );
        }
    }
}

/// The providers of a file, and what must not hold of two of them.
pub(super) fn read_all(named: &[(&Entry, &Entries)], reader: &Reader<'_>) -> Vec<Provider> {
    let built: Vec<_> = named
        .iter()
        .filter_map(|(entry, own)| ProviderKeys::read(own, reader)?.build(&entry.key, own, reader))
        .collect();
    let mut any = (None::<Arc<str>>, None::<Arc<str>>);
    for (at, one) in built.iter().enumerate() {
        let provider = &one.provider;
        if let (Some(place), Some(secret)) = (&one.secret_place, &provider.keys.secret) {
            let same = |other: &&Built| {
                other.secret_place.is_some() && other.provider.keys.secret.as_ref() == Some(secret)
            };
            if let Some(other) = built[..at].iter().find(same) {
                let message = format!(
                    "the providers `{}` and `{}` share one secret",
                    other.provider.name, provider.name
                );
                reader.error(
                    "shared-secret",
                    place,
                    message,
                    "a token of one would pass as a token of the other",
                );
            }
        }
        let places = named
            .iter()
            .find(|(entry, _)| *entry.key == *provider.name)
            .map(|(_, own)| *own);
        for (key, open, first) in [
            ("issuer", provider.issuer.is_none(), &mut any.0),
            ("audiences", provider.audiences.is_none(), &mut any.1),
        ] {
            let Some(own) = places.filter(|_| open) else {
                continue;
            };
            if let Some(first) = first {
                let message = format!(
                    "`{key} = false` in two providers: `{first}` and `{}`",
                    provider.name
                );
                let hint = "a token could not be told to belong to one of them";
                reader.error("contradiction", &own.value_place(key), message, hint);
            }
            first.get_or_insert_with(|| provider.name.clone());
        }
    }
    built.into_iter().map(|built| built.provider).collect()
}

/// Whether a URL stays on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// `user_metadata` is written by the user: a role there is a role for everybody who asks.
pub(super) fn refuse_user_metadata(path: &At<ClaimPath>, reader: &Reader<'_>) {
    if path.known && is_user_metadata(&path.value) {
        let message = format!("`{}` is writable by the user", path.shown);
        let hint = "anybody could give themselves any role; use `app_metadata`";
        reader.error("user-metadata", &path.place, message, hint);
    }
}

pub(super) fn is_user_metadata(path: &ClaimPath) -> bool {
    path.0
        .iter()
        .any(|step| matches!(&**step, "user_metadata" | "raw_user_meta_data"))
}

/// `…/auth/v1` or `…/rest/v1`, copied from another setting.
fn refuse_api_path(url: &At<Url>, reader: &Reader<'_>) {
    let path = url.value.path().trim_end_matches('/');
    if url.known && (path.ends_with("/auth/v1") || path.ends_with("/rest/v1")) {
        let hint = "leave `/auth/v1` or `/rest/v1` out: it is added";
        reader.error(
            "bad-value",
            &url.place,
            "`url` must be the URL of the project",
            hint,
        );
    }
}

/// A path below a base that may or may not end in a slash.
pub(super) fn under(base: &Url, path: &str) -> Option<Url> {
    let mut url = base.clone();
    let whole = format!("{}/{path}", base.path().trim_end_matches('/'));
    url.set_path(&whole);
    url.host().is_some().then_some(url)
}

/// `sb-`, the first label of the host, `-auth-token`: what `@supabase/ssr` derives.
fn storage_key(url: &Url) -> Option<Arc<str>> {
    let host = url.host_str()?;
    let first = host.split('.').next().unwrap_or(host);
    Some(format!("sb-{first}-auth-token").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_storage_key_is_the_one_the_library_derives() {
        let check = |url: &str, key: &str| {
            assert_eq!(
                storage_key(&Url::parse(url).unwrap()).as_deref(),
                Some(key),
                "{url}"
            );
        };
        check(
            "https://abcdefghijklmnopqrst.supabase.co",
            "sb-abcdefghijklmnopqrst-auth-token",
        );
        check("http://localhost:54321", "sb-localhost-auth-token");
        check("http://127.0.0.1:54321", "sb-127-auth-token");
        check("http://[::1]:54321", "sb-[::1]-auth-token");
        check("https://AUTH.Example.COM/gw/", "sb-auth-auth-token");
        check(
            "https://b\u{fc}cher.example.com",
            "sb-xn--bcher-kva-auth-token",
        );
    }

    #[test]
    fn the_api_is_below_the_project() {
        let check = |url: &str, wanted: &str| {
            assert_eq!(
                under(&Url::parse(url).unwrap(), "auth/v1")
                    .unwrap()
                    .as_str(),
                wanted,
                "{url}"
            );
        };
        check("https://xyz.supabase.co", "https://xyz.supabase.co/auth/v1");
        check(
            "https://xyz.supabase.co/",
            "https://xyz.supabase.co/auth/v1",
        );
        check("https://example.com/gw/", "https://example.com/gw/auth/v1");
    }
}
