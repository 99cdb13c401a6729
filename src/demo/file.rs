//! The configuration of the demo's gateway, as a file that a person can read, keep and change.

use super::{Addresses, Listen};
use std::fmt::Write;
use std::net::SocketAddr;

/// The file's text. `listen` is where the gateway answers; `admin` where its admin socket does, `None` for none.
pub fn file(
    listen: &Listen,
    admin: Option<SocketAddr>,
    addresses: &Addresses,
    api_key: &str,
) -> String {
    let admin = admin.map_or_else(|| String::from("off"), |admin| admin.to_string());
    let Addresses {
        provider,
        echo,
        page,
    } = addresses;
    let (address, url, storage_key) = (listen.address(), listen.url(), listen.storage_key());
    let hosts: Vec<String> = listen.names().iter().map(|n| format!("\"{n}\"")).collect();
    let hosts = hosts.join(", ");
    let mut text = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        r#"# The configuration of `tollhouse demo`, for development only. It is a whole file: `tollhouse check` and
# `tollhouse run -c` take it as it is.
# The addresses of the provider and of the upstreams are those of this moment. They are in one process with the
# demo's gateway, get other ports at each start, and end with it: to go on from here, put your own in their place.

[server]
listen = "{address}"
# Names the gateway answers to. A page elsewhere that points its own name at this machine gets 421.
hosts = [{hosts}]

[admin]
listen = "{admin}"

# Whoever issues the tokens. The development provider speaks the Supabase protocol. Browsers reach it through the
# gateway, so its tokens name the gateway's address; the gateway fetches its keys directly. With a project of your
# own, `url` and `publishable_key` are the project's, and there is no `internal_url`.
[providers.demo]
kind = "supabase"
url = "{url}"
internal_url = "http://{provider}"
publishable_key = "{api_key}"

# The browser has the cookies of the Supabase library ({storage_key}). The gateway reads them and never writes
# them: the page renews its session itself, as that library does. A session that is over is 401 `token_expired`.
[session]
mode = "shared"

# Tells the page what arrived.
[upstreams.demo]
url = "http://{echo}"

[upstreams.page]
url = "http://{page}"

[upstreams.provider]
url = "http://{provider}"

# What upstreams are told of the caller. Whatever a client sends under these names is removed.
[identity_headers]
X-User-Id = "sub"
X-User-Email = "email"
X-User-Role = "@roles"

[rate_limits.demo]
rate = "5/min"
by = "user"

[[routes]]
name = "page"
path = ["/", "/demo.css", "/demo.js", "/demo-session.js"]
methods = ["GET"]
auth = "public"
upstream = "page"

# The browser talks to the provider through here, as it would to the project's own URL: with the tokens it has, which
# the provider verifies itself.
[[routes]]
name = "provider"
path = "/auth/v1/*"
auth = "public"
upstream = "provider"
forward_credentials = true
allow_lints = ["unverified-credentials"]

# auth = "required" is the default: nobody gets here without a session or a token that verifies.
[[routes]]
name = "api"
path = "/api/*"
upstream = "demo"

[[routes]]
name = "admin"
path = "/api/admin/*"
upstream = "demo"
require = {{ any_role = ["admin"] }}

[[routes]]
name = "public"
path = "/api/public/*"
auth = "public"
upstream = "demo"

[[routes]]
name = "limited"
path = "/api/limited"
upstream = "demo"
rate_limits = ["demo"]

# What must stay true of the routes above. Run by `tollhouse check`, and before `tollhouse run` serves.
[[tests]]
request = "GET /"
as = "nobody"
upstream = "page"

[[tests]]
request = "GET /api/me"
as = "nobody"
status = 401

[[tests]]
request = "GET /api/me"
as = {{ user = "ada", roles = ["user"] }}
upstream = "demo"
headers = {{ X-User-Id = "ada" }}

[[tests]]
request = "GET /api/admin/users"
as = {{ roles = ["user"] }}
status = 403

[[tests]]
request = "GET /api/admin/users"
as = {{ roles = ["admin"] }}
upstream = "demo"

[[tests]]
request = "GET /api/public/hello"
as = "nobody"
upstream = "demo"
"#
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::interpolate::ProcessEnvironment;
    use crate::config::{Options, load};
    use std::path::Path;

    #[test]
    fn the_gateway_takes_the_file_without_a_warning() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Addresses {
            provider: at(1001),
            echo: at(1002),
            page: at(1003),
        };
        for address in [
            "127.0.0.1:8080",
            "127.0.0.2:9000",
            "localhost:80",
            "[::1]:8080",
        ] {
            let listen: Listen = address.parse().unwrap();
            let text = file(&listen, None, &addresses, "sb_publishable_x");
            let environment = ProcessEnvironment::default();
            let config = load(&text, Path::new("(demo)"), &environment, Options::default());
            let config = config.unwrap_or_else(|problems| panic!("{address}: {problems}"));
            assert!(config.warnings.is_empty(), "{address}");
            let provider = &config.providers[0];
            assert_eq!(provider.cookie_name, Some(listen.storage_key()));
            let issuer = provider.issuer.as_deref();
            assert_eq!(issuer, Some(&*listen.issuer()), "{address}");
            assert!(!listen.storage_key().is_empty());
        }
    }

    #[test]
    fn the_rules_that_the_page_shows_stand_in_the_file() {
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let addresses = Addresses {
            provider: at,
            echo: at,
            page: at,
        };
        let listen: Listen = "127.0.0.1:8080".parse().unwrap();
        let text = file(&listen, None, &addresses, "k");
        let script = include_str!("page.js");
        let shown: Vec<&str> = script
            .split('`')
            .filter(|t| t.contains("[[routes]]"))
            .collect();
        assert_eq!(shown.len(), 4);
        for table in shown.iter().flat_map(|rule| rule.split("\n\n")) {
            assert!(text.contains(&format!("\n{table}\n")), "{table}");
        }
    }

    #[test]
    fn the_file_is_toml_and_names_every_address() {
        let addresses = Addresses {
            provider: SocketAddr::from(([127, 0, 0, 1], 1001)),
            echo: SocketAddr::from(([127, 0, 0, 1], 1002)),
            page: SocketAddr::from(([127, 0, 0, 1], 1003)),
        };
        let listen: Listen = "localhost:8080".parse().unwrap();
        let text = file(&listen, None, &addresses, "sb_publishable_x");
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["server"]["listen"].as_str(), Some("127.0.0.1:8080"));
        assert_eq!(table["admin"]["listen"].as_str(), Some("off"));
        let url = |name: &str| table["upstreams"][name]["url"].as_str().map(String::from);
        assert_eq!(url("demo").as_deref(), Some("http://127.0.0.1:1002"));
        assert_eq!(url("page").as_deref(), Some("http://127.0.0.1:1003"));
        let provider = &table["providers"]["demo"];
        assert_eq!(provider["url"].as_str(), Some("http://localhost:8080"));
        let internal = provider["internal_url"].as_str();
        assert_eq!(internal, Some("http://127.0.0.1:1001"));
        assert_eq!(
            provider["publishable_key"].as_str(),
            Some("sb_publishable_x")
        );
        let admin = Some(SocketAddr::from(([127, 0, 0, 1], 9901)));
        assert!(file(&listen, admin, &addresses, "k").contains("listen = \"127.0.0.1:9901\""));
    }
}
