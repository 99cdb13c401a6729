// Twenty thousand requests with h2load, each with a credential that is checked, and not one of them lost.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { artefacts, freePort, run, startDemo, startTollhouse } from "./support/processes.mjs";
import { signInOnServer } from "./support/supabase.mjs";
import { makeAuthority } from "./support/certificates.mjs";
import { opening, tlsListener } from "./support/configuration.mjs";
import { startUpstream } from "./support/upstream.mjs";

const REQUESTS = 20_000;

let demo, upstream, authority, gateway, ports, ada;

before(async () => {
  demo = await startDemo("demo-h2load");
  upstream = await startUpstream();
  authority = makeAuthority();
  const pair = authority.issue("localhost", "DNS:localhost", "IP:127.0.0.1");
  ports = { tls: await freePort(), h2c: await freePort() };
  gateway = await startTollhouse("gateway-h2load", (at) => `${opening(at, demo)}
[log]
access = false

${tlsListener(ports.tls, pair)}
[[listeners]]
address = "127.0.0.1:${ports.h2c}"
h2c = true

[upstreams.api]
url = "${upstream.origin}"

[[routes]]
path = "/api/*"
`);
  ada = await signInOnServer(demo, "ada");
});

after(async () => {
  for (const started of [gateway, demo]) await started?.process.stop();
  upstream?.stop();
  authority?.remove();
});

const bearer = () => `authorization: Bearer ${ada.session.access_token}`;
const cookie = () => `cookie: ${ada.cookie}`;

for (const [name, flags, origin, credential, protocol] of [
  ["HTTP/2 over TLS, with a Bearer token", ["-m", "10"], () => `https://127.0.0.1:${ports.tls}`, bearer, /^Application protocol: h2$/m],
  ["h2c, with the session's cookie", ["-m", "10"], () => `http://127.0.0.1:${ports.h2c}`, cookie, /^Application protocol: h2c$/m],
  ["HTTP/1.1 over TLS, ten in a row, with a Bearer token", ["-m", "10", "--h1"], () => `https://127.0.0.1:${ports.tls}`, bearer, /^Application protocol: http\/1\.1$/m],
]) {
  test(name, async () => {
    const before = upstream.seen.length;
    const args = ["-n", String(REQUESTS), "-c", "10", ...flags, "-H", credential(), `${origin()}/api/small`];
    const { code, output } = await run("h2load", args, {}, { milliseconds: 120_000 });
    writeFileSync(path.join(artefacts, `h2load-${name.replace(/\W+/g, "-").toLowerCase()}.log`), output);
    assert.equal(code, 0, output);
    assert.match(output, protocol);
    const summary = /^requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$/m.exec(output);
    assert.deepEqual(summary?.slice(1).map(Number), [REQUESTS, REQUESTS, REQUESTS, REQUESTS, 0, 0, 0], output);
    assert.match(output, new RegExp(`^status codes: ${REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx$`, "m"));
    assert.equal(upstream.seen.length - before, REQUESTS, "each request reaches the upstream once");
  });
}
