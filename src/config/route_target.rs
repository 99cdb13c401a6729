//! Who answers a route: an upstream by name or URL, the gateway itself, or an endpoint of ours.

use super::decode::At;
use super::diagnostic::suggest;
use super::parse;
use super::read::{Entries, Reader};
use super::route::{Auth, Target};
use super::route_build::Known;
use super::route_keys::RouteKeys;
use super::upstream::{UpstreamKeys, is_url};
use http::Method;

impl RouteKeys {
    pub(super) fn target(
        &self,
        entries: &Entries,
        known: &mut Known<'_>,
        reader: &Reader<'_>,
    ) -> Option<Target> {
        let given: Vec<&str> = ["upstream", "redirect", "respond", "endpoint"]
            .into_iter()
            .filter(|key| entries.has(key))
            .collect();
        if let [first, second, ..] = given.as_slice() {
            let message = format!("a route has both `{first}` and `{second}`");
            reader.error(
                "contradiction",
                &entries.key_place(second),
                message,
                "keep one of them",
            );
            return None;
        }
        if let Some((redirect, _)) = &self.redirect {
            return Some(Target::Redirect {
                to: redirect.to.clone(),
                status: redirect.status,
            });
        }
        if let Some((respond, _)) = &self.respond {
            let (status, body) = (respond.status, respond.body.clone());
            return Some(Target::Respond {
                status,
                body,
                content_type: respond.content_type.clone(),
            });
        }
        if let Some(word) = self.endpoint {
            self.check_endpoint(entries, known, reader);
            return Some(Target::Endpoint(word));
        }
        match &self.upstream {
            Some(name) => upstream(name, known, reader),
            // Given, but wrong: told already.
            None if !given.is_empty() => None,
            None if known.upstream_names.len() == 1 => {
                (!known.upstreams.is_empty()).then_some(Target::Upstream(0))
            }
            None if known.upstream_names.is_empty() => {
                let hint = "say `upstream = \"http://127.0.0.1:8000\"`, or add [upstreams.api]";
                reader.error(
                    "missing-key",
                    &entries.place,
                    "a route has nobody to answer it",
                    hint,
                );
                None
            }
            None => {
                let hint = suggest("\u{0}", known.upstream_names.iter().copied());
                let message = "a route must say which `upstream`, since there are several";
                reader.error("missing-key", &entries.place, message, hint);
                None
            }
        }
    }

    fn check_endpoint(&self, entries: &Entries, known: &Known<'_>, reader: &Reader<'_>) {
        let place = entries.key_place("endpoint");
        if !known.session {
            let hint = "add [session]: there is no session to tell of";
            let message = "`endpoint = \"session\"` without `[session]`";
            reader.error("endpoint-without-session", &place, message, hint);
        }
        if self.auth == Auth::Public {
            let hint = "credentials are not looked at there; leave `auth` out, or say \"optional\"";
            let message = "`endpoint = \"session\"` on a public route would know nobody";
            reader.error("contradiction", &place, message, hint);
        }
        let reads = |method: &Method| matches!(*method, Method::GET | Method::HEAD);
        if !self.methods.iter().flatten().all(reads) {
            let hint = "leave `methods` out";
            let message = "`endpoint = \"session\"` answers GET and HEAD alone";
            reader.error(
                "contradiction",
                &entries.value_place("methods"),
                message,
                hint,
            );
        }
    }
}

fn upstream(name: &At<String>, known: &mut Known<'_>, reader: &Reader<'_>) -> Option<Target> {
    if !name.known && !known.upstreams.is_empty() {
        return Some(Target::Upstream(0));
    }
    let url = if name.known {
        name.value.as_str()
    } else {
        "http://placeholder.invalid"
    };
    if is_url(url) {
        if let Err(hint) = parse::endpoint(url) {
            reader.error(
                "bad-value",
                &name.place,
                "`upstream` must be the name of an upstream, or a URL",
                hint,
            );
            return None;
        }
        // Named as it stands in the file: names show in logs and metrics.
        if let Some(at) = known
            .upstreams
            .iter()
            .position(|upstream| *upstream.name == *name.shown)
        {
            return Some(Target::Upstream(at));
        }
        let mut upstream = UpstreamKeys::of_url(url, reader)?;
        upstream.name = name.shown.as_str().into();
        known.upstreams.push(upstream);
        return Some(Target::Upstream(known.upstreams.len() - 1));
    }
    if let Some(at) = known
        .upstreams
        .iter()
        .position(|upstream| *upstream.name == *name.value)
    {
        return Some(Target::Upstream(at));
    }
    if !known.upstream_names.contains(&name.value.as_str()) {
        let hint = match name.suggest(known.upstream_names.iter().copied()) {
            hint if hint.is_empty() => "add [upstreams.NAME], or write a URL".into(),
            hint => hint,
        };
        reader.error(
            "unknown-upstream",
            &name.place,
            format!("there is no upstream `{}`", name.shown),
            hint,
        );
    }
    None
}
