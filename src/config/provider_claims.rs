//! What a token of a provider must say: issuer, audience, algorithm.

use super::decode::Either;
use super::provider::{KeySource, KindWord, ProviderKeys};
use super::provider_build::under;
use super::read::{Entries, Reader};
use jsonwebtoken::Algorithm;
use std::sync::Arc;
use url::Url;

impl ProviderKeys {
    /// Outer `None`: wrong. Inner `None`: `issuer = false`.
    pub(super) fn issuer(
        &self,
        name: &str,
        entries: &Entries,
        url: Option<&Url>,
        reader: &Reader<'_>,
    ) -> Option<Option<Arc<str>>> {
        match &self.issuer {
            Some(Either::Other(issuer)) => Some(Some(issuer.value.as_str().into())),
            Some(Either::Flag(false)) => {
                let message = format!("the provider `{name}` takes tokens of any issuer");
                reader.warn(
                    "any-issuer",
                    &entries.value_place("issuer"),
                    message,
                    "name the issuer if you can",
                );
                Some(None)
            }
            Some(Either::Flag(true)) => {
                let hint = "write the `iss` of its tokens, or false for any";
                reader.error(
                    "bad-value",
                    &entries.value_place("issuer"),
                    "`issuer` must be a string, or false",
                    hint,
                );
                None
            }
            None if self.kind == KindWord::Supabase => url
                .and_then(|url| under(url, "auth/v1"))
                .map(|url| Some(url.as_str().into())),
            None => {
                if !entries.has("issuer") {
                    let hint = "write the `iss` of its tokens, or `issuer = false` for any";
                    reader.error(
                        "missing-key",
                        &entries.place,
                        format!("the provider `{name}` needs `issuer`"),
                        hint,
                    );
                }
                None
            }
        }
    }

    pub(super) fn audiences(
        &self,
        name: &str,
        entries: &Entries,
        reader: &Reader<'_>,
    ) -> Option<Option<Vec<Arc<str>>>> {
        match &self.audiences {
            Some(Either::Other(list)) if list.is_empty() => {
                let hint = "name at least one, or say `audiences = false` for any";
                reader.error(
                    "empty-list",
                    &entries.value_place("audiences"),
                    "`audiences` is empty",
                    hint,
                );
                None
            }
            Some(Either::Other(list)) => {
                Some(Some(list.iter().map(|a| a.value.as_str().into()).collect()))
            }
            Some(Either::Flag(false)) => {
                let message = format!("the provider `{name}` takes tokens for any audience");
                reader.warn(
                    "any-audience",
                    &entries.value_place("audiences"),
                    message,
                    "tokens meant for others pass, too",
                );
                Some(None)
            }
            Some(Either::Flag(true)) => {
                let hint = "write the `aud` of its tokens, or false for any";
                reader.error(
                    "bad-value",
                    &entries.value_place("audiences"),
                    "`audiences` must be a list, or false",
                    hint,
                );
                None
            }
            None if self.kind == KindWord::Supabase => Some(Some(vec!["authenticated".into()])),
            None => {
                if !entries.has("audiences") {
                    let hint = "write the `aud` of its tokens, or `audiences = false` for any";
                    reader.error(
                        "missing-key",
                        &entries.place,
                        format!("the provider `{name}` needs `audiences`"),
                        hint,
                    );
                }
                None
            }
        }
    }

    /// Each algorithm needs a key of its family: a secret never verifies RS256, a public key never HS256.
    pub(super) fn algorithms(
        &self,
        keys: &KeySource,
        entries: &Entries,
        reader: &Reader<'_>,
    ) -> Vec<Algorithm> {
        use Algorithm::{ES256, EdDSA, HS256, HS384, HS512, PS256, RS256};
        let with_secret = ["jwt_secret", "secret"].iter().any(|key| entries.has(key));
        let with_public = keys.jwks_url.is_some() || entries.has("public_key_file");
        let Some(given) = &self.algorithms else {
            let mut algorithms = Vec::new();
            if with_public {
                algorithms.extend([ES256, RS256, EdDSA]);
                if self.kind == KindWord::Jwt {
                    algorithms.push(PS256);
                }
            }
            if keys.secret.is_some() {
                algorithms.push(HS256);
            }
            return algorithms;
        };
        if given.is_empty() {
            let hint = "name at least one, or leave the key out";
            reader.error(
                "empty-list",
                &entries.value_place("algorithms"),
                "`algorithms` is empty",
                hint,
            );
        }
        for one in given.iter().filter(|one| one.known) {
            let symmetric = matches!(one.value, HS256 | HS384 | HS512);
            if symmetric && !with_secret {
                let hint = "HS… needs a secret, and a public key never verifies it";
                reader.error(
                    "algorithm-without-key",
                    &one.place,
                    format!("there is no key for `{}`", one.shown),
                    hint,
                );
            } else if !symmetric && !with_public {
                let hint = "a secret verifies only HS256, HS384 and HS512";
                reader.error(
                    "algorithm-without-key",
                    &one.place,
                    format!("there is no key for `{}`", one.shown),
                    hint,
                );
            }
        }
        given.iter().map(|one| one.value).collect()
    }
}
