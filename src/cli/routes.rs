//! `tollhouse routes`: the plan in the order in which it matches.

use super::{File, Outcome, fail, load, run};
use crate::config::Config;
use crate::config::endpoint::Endpoint;
use crate::config::route::{Auth, Route, Target};
use crate::config::value::HostPattern;
use crate::route::table::{Listed, Table};
use std::io::{self, Write};

/// Prints one line for each host and path.
pub(super) fn execute(file: &File) -> io::Result<Outcome> {
    let loaded = match load::load(file, true) {
        Ok(loaded) => loaded,
        Err(error) => return run::report(&error),
    };
    let config = loaded.config;
    let table = match Table::build(config.routes.iter().enumerate()) {
        Ok(table) => table,
        Err(conflicts) => {
            return fail(format!(
                "{} pairs of routes match the same requests; see `tollhouse check`",
                conflicts.len()
            ));
        }
    };
    let rows: Vec<[String; 5]> = table
        .order()
        .into_iter()
        .filter_map(|listed| {
            config
                .routes
                .get(listed.route)
                .map(|route| row(&config, route, &listed))
        })
        .collect();
    let heads = ["METHODS", "HOST AND PATH", "AUTH", "REQUIRES", "TARGET"];
    let widths: Vec<usize> = (0..4)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
                .max(heads[column].len())
        })
        .collect();
    let mut out = io::stdout().lock();
    for row in std::iter::once(heads.map(str::to_owned)).chain(rows) {
        for (column, width) in widths.iter().enumerate() {
            write!(out, "{:width$}  ", row[column])?;
        }
        writeln!(out, "{}", row[4])?;
    }
    Ok(Outcome::Fine)
}

fn row(config: &Config, route: &Route, listed: &Listed) -> [String; 5] {
    let methods = route.methods.as_ref().map_or_else(
        || "any".to_owned(),
        |m| m.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(","),
    );
    let auth = match route.auth {
        Auth::Required => "required",
        Auth::Optional => "optional",
        Auth::Public => "public",
    };
    let require = &route.require;
    let mut requires = Vec::new();
    if !require.any_role.is_empty() {
        requires.push(format!("role {}", require.any_role.join("|")));
    }
    if !require.all_scopes.is_empty() {
        requires.push(format!("scope {}", require.all_scopes.join("+")));
    }
    if let Some(aal) = &require.aal {
        requires.push(aal.to_string());
    }
    if !require.provider.is_empty() {
        requires.push(format!("provider {}", require.provider.join("|")));
    }
    requires.extend(
        require
            .claims
            .iter()
            .map(|(path, _)| format!("claim {}", path.0.join("."))),
    );
    let target = match &route.target {
        Target::Upstream(index) => config
            .upstreams
            .get(*index)
            .map_or_else(String::new, |u| u.name.to_string()),
        Target::Redirect { to, status } => format!("{} → {to}", status.as_u16()),
        Target::Respond { status, .. } => status.as_u16().to_string(),
        Target::Endpoint(Endpoint::Session) => "(who the caller is)".to_owned(),
        Target::Endpoint(Endpoint::Nothing) => "(nothing: 404)".to_owned(),
        Target::Endpoint(_) => "(session endpoint)".to_owned(),
    };
    let host = match &listed.host {
        None => String::new(),
        Some(HostPattern::Exact(name)) => name.to_string(),
        Some(HostPattern::Wildcard { suffix }) => format!("*{suffix}"),
        Some(HostPattern::Capture { name, suffix }) => format!("{{{name}}}{suffix}"),
    };
    [
        methods,
        format!("{host}{}", listed.path.text),
        auth.to_owned(),
        requires.join(", "),
        target,
    ]
}
