// What the configurations of the suites begin with.

/** The tables of every gateway that has the sessions of a demo; `server` are more lines of its `[server]`. */
export const opening = ({ listen, admin }, demo, server = "") => `
[server]
listen = "${listen}"
${server}

[admin]
listen = "${admin}"

[providers.main]
kind = "supabase"
url = "${demo.issuer.replace(/\/auth\/v1$/, "")}"
publishable_key = "${demo.key}"

[session]
mode = "shared"
`;

/** A listener with a certificate; `pairs` are `{ cert, key }`, chosen by name, the first when there is none. */
export const tlsListener = (port, ...pairs) => `
[[listeners]]
address = "127.0.0.1:${port}"
tls = [${pairs.map(({ cert, key }) => `{ cert = "${cert}", key = "${key}" }`).join(", ")}]
`;
