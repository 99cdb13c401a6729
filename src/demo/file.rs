//! The configuration of the demo's gateway, as a file that a person can read, keep and change.

use super::{Addresses, Keys, Listen};
use std::fmt::Write;
use std::net::SocketAddr;

/// The file's text, with the sealing key in it. `listen` is where the gateway answers; `admin` where its admin socket
/// does, `None` for none.
pub fn file(
    listen: &Listen,
    admin: Option<SocketAddr>,
    addresses: &Addresses,
    keys: &Keys,
) -> String {
    let admin = admin.map_or_else(|| String::from("off"), |admin| admin.to_string());
    let Addresses {
        provider,
        echo,
        page,
    } = addresses;
    let (address, url) = (listen.address(), listen.url());
    let (api_key, session_key) = (&keys.publishable, keys.session.expose());
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

# Whoever issues the tokens. The development provider speaks the Supabase protocol. Whoever takes it for a project
# reaches it through the gateway, so its tokens name the gateway's address; the gateway asks it directly. With a
# project of your own, `url` and `publishable_key` are the project's, and there is no `internal_url`.
[providers.demo]
kind = "supabase"
url = "{url}"
internal_url = "http://{provider}"
publishable_key = "{api_key}"

# The session is in a cookie of the gateway's own. It is sealed, so that nobody else can read or make one, and
# HttpOnly, so that no script even sees it: no token reaches the browser. The page logs in and out at the endpoints
# below /.auth; what is about to end is renewed on the way.
# The key was made at random for this file. Whoever has it can make sessions: in a file of your own it stays outside,
# as keys = ["${{TOLLHOUSE_SESSION_KEY}}"], and `tollhouse keygen` makes one.
[session]
mode = "sealed"
keys = ["{session_key}"]
login_url = "/"

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

# Takes the place of what is built in for logins, 10 a minute by address: whoever tries this out logs in and out all
# the time.
[rate_limits.logins]
rate = "60/min"
by = "ip"
applies_to = "login"

[[routes]]
name = "page"
path = ["/", "/demo.css", "/demo.js", "/demo-result.js", "/demo-session.js"]
methods = ["GET"]
auth = "public"
upstream = "page"

# The page does not need this. It is for an application that takes the demo for its Supabase project and brings its own
# tokens, which the provider verifies itself.
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
    use crate::base::secret::Secret;
    use crate::config::interpolate::ProcessEnvironment;
    use crate::config::session::SessionMode;
    use crate::config::{Config, Options, load};
    use std::path::Path;

    /// 32 bytes in base64url.
    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";

    fn text(listen: &str, admin: Option<SocketAddr>) -> String {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Addresses {
            provider: at(1001),
            echo: at(1002),
            page: at(1003),
        };
        let keys = Keys {
            publishable: "sb_publishable_x".into(),
            session: Secret::new(KEY.into()),
        };
        file(&listen.parse().unwrap(), admin, &addresses, &keys)
    }

    fn config(listen: &str) -> Config {
        let environment = ProcessEnvironment::default();
        let text = text(listen, None);
        load(&text, Path::new("(demo)"), &environment, Options::default())
            .unwrap_or_else(|problems| panic!("{listen}: {problems}"))
    }

    #[test]
    fn the_gateway_takes_the_file_without_a_warning() {
        for address in [
            "127.0.0.1:8080",
            "127.0.0.2:9000",
            "localhost:80",
            "[::1]:8080",
        ] {
            let listen: Listen = address.parse().unwrap();
            let config = config(address);
            assert!(config.warnings.is_empty(), "{address}");
            let issuer = config.providers[0].issuer.as_deref();
            assert_eq!(issuer, Some(&*listen.issuer()), "{address}");
        }
    }

    #[test]
    fn sessions_are_sealed_and_the_page_names_their_cookie_and_its_attributes() {
        for address in ["127.0.0.1:8080", "localhost:80", "[::1]:8080"] {
            let session = config(address).session.unwrap();
            assert_eq!(session.mode, SessionMode::Sealed);
            assert_eq!(
                session.keys[0].expose(),
                b"0123456789abcdef0123456789abcdef"
            );
            // What makes it `tollhouse` and not `__Host-tollhouse`: browsers keep no Secure cookie of plain http.
            let cookie = &session.cookie;
            assert_eq!((cookie.name.as_deref(), cookie.secure), (None, false));
            assert!(cookie.http_only && &*cookie.path == "/" && cookie.domain.is_none());
            assert_eq!(session.idle_timeout.as_secs(), 7 * 86_400);
            assert_eq!(session.endpoints.as_deref(), Some("/.auth"));
        }
        let (html, script) = (include_str!("page.html"), include_str!("session.js"));
        for said in ["tollhouse", "HttpOnly", "SameSite=Lax", "Path=/", "7 days"] {
            assert!(html.contains(said), "{said}");
        }
        assert!(script.contains("COOKIE = \"tollhouse\""));
    }

    #[test]
    fn the_rules_that_the_page_shows_stand_in_the_file() {
        let text = text("127.0.0.1:8080", None);
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
    fn whoever_clicks_around_is_not_stopped_by_the_limit_of_logins() {
        let limits = config("127.0.0.1:8080").rate_limits;
        let named = |name: &str| limits.iter().find(|limit| &*limit.name == name);
        assert!(named("login").is_none() && named("login_account").is_none());
        assert_eq!(named("logins").unwrap().rate.unwrap().count.get(), 60);
    }

    #[test]
    fn the_file_is_toml_and_names_every_address() {
        let table: toml::Table = text("localhost:8080", None).parse().unwrap();
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
        assert_eq!(table["session"]["keys"][0].as_str(), Some(KEY));
        let admin = Some(SocketAddr::from(([127, 0, 0, 1], 9901)));
        let text = text("localhost:8080", admin);
        assert!(text.contains("listen = \"127.0.0.1:9901\""));
    }
}
