// What the configurations of the suites begin with.

/** The tables of every gateway that has the sessions of a demo; `server` are more lines of its `[server]`, `session` those of `[session]`. */
export const opening = ({ listen, admin }, demo, server = "", session = 'mode = "shared"') => `
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
${session}
`;

const KEYS = 'keys = ["MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"]';

/** `[session]` of a gateway, by mode; `redis` is needed by one of them. */
export const sessionTable = (mode, redis) => ({
  shared: 'mode = "shared"',
  sealed: `mode = "sealed"\n${KEYS}`,
  stored: `mode = "stored"\n${KEYS}\n\n[redis]\nurl = "${redis?.url}"`,
})[mode];


/** A listener with a certificate; `pairs` are `{ cert, key }`, chosen by name, the first when there is none. */
export const tlsListener = (port, ...pairs) => `
[[listeners]]
address = "127.0.0.1:${port}"
tls = [${pairs.map(({ cert, key }) => `{ cert = "${cert}", key = "${key}" }`).join(", ")}]
`;
