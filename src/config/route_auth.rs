//! Who may use a route: which credentials it takes, and what a caller must have.

use super::decode::At;
use super::diagnostic::suggest;
use super::parse;
use super::read::{Entries, Kind, Reader};
use super::route::{Accept, Auth, OnUnauthenticated, Require, Wanted};
use super::route_build::Known;
use super::route_keys::{RequireKeys, RouteKeys};
use super::route_path::Captures;
use crate::exchange::Credential;

impl RouteKeys {
    pub(super) fn check_auth(&self, entries: &Entries, known: &Known<'_>, reader: &Reader<'_>) {
        if self.auth != Auth::Required && self.require.is_some() {
            let word = if self.auth == Auth::Public {
                "public"
            } else {
                "optional"
            };
            let message = format!("`require` on a route with `auth = \"{word}\"`");
            let hint = "nobody could be asked for it; leave `auth` out, or `require`";
            reader.error(
                "require-without-auth",
                &entries.key_place("require"),
                message,
                hint,
            );
        }
        if self.auth != Auth::Public && self.forward_credentials {
            let message = "`forward_credentials` is only for public routes";
            let hint = "what verified is forwarded anyway: see `forward_session`";
            reader.error(
                "contradiction",
                &entries.key_place("forward_credentials"),
                message,
                hint,
            );
        }
        if self.on_unauthenticated == OnUnauthenticated::Login {
            let place = entries.value_place("on_unauthenticated");
            if !known.session {
                let hint = "add [session]: it has the `login_url`";
                reader.error(
                    "login-without-session",
                    &place,
                    "`on_unauthenticated = \"login\"` without `[session]`",
                    hint,
                );
            }
            if self.auth != Auth::Required {
                let hint = "nobody is unauthenticated here";
                reader.error(
                    "contradiction",
                    &place,
                    "`on_unauthenticated = \"login\"` on a route that is not protected",
                    hint,
                );
            }
        }
    }

    pub(super) fn credentials(&self, known: &Known<'_>, reader: &Reader<'_>) -> Vec<Accept> {
        let every = |credential| Accept {
            credential,
            source: None,
        };
        let Some(given) = &self.credentials else {
            return [Credential::Session, Credential::Bearer, Credential::ApiKey]
                .map(every)
                .into();
        };
        let mut accepted = Vec::new();
        for word in given.iter().filter(|word| word.known) {
            match word.value.split_once(':') {
                None if word.value == "session" => {
                    if !known.session {
                        let hint = "add [session]";
                        reader.error(
                            "unknown-credential",
                            &word.place,
                            "`session` without `[session]`",
                            hint,
                        );
                    }
                    accepted.push(every(Credential::Session));
                }
                None if word.value == "bearer" => accepted.push(every(Credential::Bearer)),
                Some(("bearer", name)) => {
                    if !known.provider_names.contains(&name) {
                        let hint = if word.literal {
                            suggest(name, known.provider_names.iter().copied())
                        } else {
                            String::new()
                        };
                        let message = format!("there is no provider for `{}`", word.shown);
                        reader.error("unknown-provider", &word.place, message, hint);
                    }
                    accepted.push(Accept {
                        credential: Credential::Bearer,
                        source: Some(name.into()),
                    });
                }
                None | Some(("api_key", _)) if word.value.starts_with("api_key") => {
                    let message = "`api_key` is not supported yet";
                    reader.error("not-supported-yet", &word.place, message, "remove it");
                }
                _ => {
                    let hint = word.suggest(["session", "bearer", "bearer:NAME"]);
                    reader.error(
                        "unknown-credential",
                        &word.place,
                        format!("there is no credential `{}`", word.shown),
                        hint,
                    );
                }
            }
        }
        if accepted.is_empty() {
            vec![every(Credential::Bearer)]
        } else {
            accepted
        }
    }
}

pub(super) fn require(
    keys: &RequireKeys,
    own: &Entries,
    captures: &Captures<'_>,
    known: &Known<'_>,
    reader: &Reader<'_>,
) -> Require {
    for (key, empty) in [
        (
            "any_role",
            keys.any_role.as_ref().is_some_and(Vec::is_empty),
        ),
        (
            "all_scopes",
            keys.all_scopes.as_ref().is_some_and(Vec::is_empty),
        ),
        (
            "provider",
            keys.provider.as_ref().is_some_and(Vec::is_empty),
        ),
        (
            "claims",
            keys.claims
                .as_ref()
                .is_some_and(|claims| claims.list.is_empty()),
        ),
    ] {
        if empty {
            let hint = "it would ask nothing; name at least one, or leave the key out";
            reader.error(
                "empty-list",
                &own.value_place(key),
                format!("`{key}` is empty"),
                hint,
            );
        }
    }
    if own.list.is_empty() {
        reader.error(
            "empty-list",
            &own.place,
            "`require` is empty",
            "leave it out: any verified caller passes",
        );
    }
    for name in keys.provider.iter().flatten() {
        if name.known && !known.provider_names.contains(&name.value.as_str()) {
            let hint = name.suggest(known.provider_names.iter().copied());
            reader.error(
                "unknown-provider",
                &name.place,
                format!("there is no provider `{}`", name.shown),
                hint,
            );
        }
    }
    let mut claims = Vec::new();
    if let Some(entries) = &keys.claims {
        wanted("", entries, captures, reader, &mut claims);
    }
    Require {
        any_role: keys.any_role.clone().unwrap_or_default(),
        all_scopes: keys.all_scopes.clone().unwrap_or_default(),
        aal: keys.aal.map(Into::into),
        provider: keys
            .provider
            .iter()
            .flatten()
            .map(|name| name.value.as_str().into())
            .collect(),
        claims,
    }
}

/// `"app_metadata.tenant" = "x"`; without the quotes TOML makes tables of it, which is the same.
fn wanted(
    before: &str,
    entries: &Entries,
    captures: &Captures<'_>,
    reader: &Reader<'_>,
    claims: &mut Vec<(super::value::ClaimPath, Wanted)>,
) {
    for entry in &entries.list {
        let text = if before.is_empty() {
            entry.key.clone()
        } else {
            format!("{before}.{}", entry.key)
        };
        let path = match parse::claim(&text) {
            Ok(path) => path,
            Err(hint) => {
                reader.error(
                    "bad-value",
                    &entry.key_place,
                    format!("`{text}` is not a claim path"),
                    hint,
                );
                continue;
            }
        };
        let value = match &entry.node.kind {
            Kind::Table(inner) => {
                wanted(&text, inner, captures, reader, claims);
                continue;
            }
            Kind::Text(value) => match value
                .shown
                .strip_prefix('{')
                .and_then(|v| v.strip_suffix('}'))
            {
                Some(name) => {
                    captures.check(name, &entry.node.place, true, reader);
                    Wanted::Capture(name.into())
                }
                None => Wanted::Value(value.value.clone().into()),
            },
            Kind::Int(Some(value)) => Wanted::Value((*value).into()),
            Kind::Float(Some(value)) => Wanted::Value((*value).into()),
            Kind::Bool(value) => Wanted::Value((*value).into()),
            Kind::Broken { .. } => continue,
            kind => {
                let message = format!(
                    "the claim `{text}` must be compared with a string, a number or a boolean"
                );
                reader.error(
                    "wrong-type",
                    &entry.node.place,
                    message,
                    format!("this is {}", kind.is()),
                );
                continue;
            }
        };
        let at = At {
            value: path,
            place: entry.key_place.clone(),
            shown: text,
            known: true,
            literal: true,
        };
        super::provider_build::refuse_user_metadata(&at, reader);
        claims.push((at.value, value));
    }
}
