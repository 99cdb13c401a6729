// `tollhouse demo` as a command: what it prints, where it listens, and what its file is good for.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { artefacts, binary, freePort, run, start, startDemo, startTollhouse, until } from "./support/processes.mjs";
import { send } from "./support/http.mjs";
import { signInOnServer } from "./support/supabase.mjs";

const claims = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
const page = (origin, cookie) => fetch(`${origin}/api/me`, { headers: { cookie, "sec-fetch-site": "same-origin" } });

test("an application whose project URL is the demo's address has sessions that another gateway accepts", async () => {
  const demo = await startDemo("demo-as-project");
  try {
    assert.equal(demo.issuer, `${demo.origin}/auth/v1`);
    const ada = await signInOnServer(demo, "ada");
    assert.equal(claims(ada.session.access_token).iss, demo.issuer);
    assert.deepEqual(ada.names, ["sb-127-auth-token"]);
    // The demo's own gateway has no eye for the library's cookies: its sessions are sealed.
    assert.equal((await page(demo.origin, ada.cookie)).status, 401);
    const gateway = await startTollhouse("gateway-beside-demo", ({ listen, admin }) => `
[server]
listen = "${listen}"
[admin]
listen = "${admin}"
[providers.main]
kind = "supabase"
url = "${demo.origin}"
publishable_key = "any"
[session]
mode = "shared"
[upstreams.api]
url = "${demo.origin}"
[[routes]]
path = "/api/*"
`);
    try {
      const answer = await page(gateway.origin, ada.cookie);
      assert.equal(answer.status, 200, await answer.clone().text());
      const { headers } = await answer.json();
      assert.deepEqual(headers.filter(([name]) => name === "x-user-id").map(([, id]) => id), [ada.session.user.id]);
    } finally {
      await gateway.process.stop();
    }
  } finally {
    await demo.process.stop();
  }
});

describe("wherever it listens, issuer and session follow", () => {
  for (const host of ["localhost", "127.0.0.2", "[::1]"]) {
    test(host, async (t) => {
      const demo = start("demo-elsewhere", binary, ["demo", "--listen", `${host}:0`]);
      try {
        const origin = await until("its address", () => demo.over ? "over" : /Open (http:\S+)/.exec(demo.output)?.[1]);
        // A machine without IPv6.
        if (host === "[::1]" && /cannot listen/.test(demo.output)) return t.skip(demo.output);
        assert.match(origin, new RegExp(`^http://${host.replace(/[[\].]/g, "\\$&")}:[1-9]\\d*$`));
        const password = await until("a password", () => /ada@example\.com\s+(\S+)/.exec(demo.output)?.[1]);
        const answer = await until("an answer", () => fetch(`${origin}/.auth/login`, {
          method: "POST",
          headers: { origin, "content-type": "application/json" },
          body: JSON.stringify({ email: "ada@example.com", password }),
        }));
        assert.equal(answer.status, 200, await answer.clone().text());
        const lines = answer.headers.getSetCookie();
        assert.equal(lines.length, 1);
        // Not Secure, and so without its prefix: a browser need not send such a cookie in the clear, even on loopback.
        assert.match(lines[0], /^tollhouse=[^;]+; HttpOnly; SameSite=Lax; Path=\/; Max-Age=\d+$/);
        const me = await page(origin, lines[0].split(";")[0]);
        assert.equal(me.status, 200, await me.clone().text());
        const { headers } = await me.json();
        const [, bearer] = headers.find(([name]) => name === "authorization");
        assert.equal(claims(bearer).iss, `${origin}/auth/v1`);
        assert.ok(headers.every(([name]) => name !== "cookie"));
      } finally {
        await demo.stop();
      }
    });
  }
});

test("into a pipe: the passwords, then one JSON object a line", async () => {
  const demo = await startDemo("demo-piped");
  assert.equal((await fetch(`${demo.origin}/api/me`)).status, 401);
  await until("the access log", () => /"msg":"request"/.test(demo.process.output));
  assert.equal(await demo.process.stop(), 0);
  const { output } = demo.process;
  // eslint-disable-next-line no-control-regex -- that is what must not be there
  assert.ok(!/\u001b/.test(output));
  const lines = output.split("\n");
  const json = lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  const ready = json.find((line) => line.msg === "ready");
  assert.deepEqual([ready.listen, ready.warnings], [[demo.origin], []]);
  assert.ok(json.some((line) => line.msg === "request" && line.path === "/api/me" && line.status === 401));
  // A sealing key, a token or a password belongs in no line of the log.
  assert.ok(!json.some((line) => JSON.stringify(line).includes(demo.passwords.ada)));
  const [first] = lines.filter((line) => /^ +ada@example\.com +[a-z0-9]{16,} /.test(line));
  assert.ok(first, output);
  assert.ok(lines.indexOf(first) < lines.findIndex((line) => /"msg":"ready"/.test(line)));
  assert.match(output, /for development only/i);
});

test("its file is right, has no warnings and runs", async () => {
  const port = await freePort();
  const { code, output } = await run(binary, ["demo", "--listen", `127.0.0.1:${port}`, "--print-config"]);
  assert.equal(code, 0, output);
  const file = path.join(artefacts, "demo-printed.toml");
  writeFileSync(file, output);
  const checked = await run(binary, ["check", "-c", file]);
  assert.equal(checked.code, 0, checked.output);
  assert.doesNotMatch(checked.output, /warning/);
  const gateway = start("demo-printed", binary, ["run", "-c", file]);
  try {
    await gateway.ready("an answer", async () => (await fetch(`http://127.0.0.1:${port}/nowhere`)).status === 404);
    // Its provider and upstreams ended with the command that printed it: nobody is let in.
    assert.equal((await fetch(`http://127.0.0.1:${port}/api/me`)).status, 401);
  } finally {
    assert.equal(await gateway.stop(), 0);
  }
});

test("an address in use is said with a command that works, before any password", async () => {
  const demo = await startDemo("demo-first");
  try {
    const { host } = new URL(demo.origin);
    const { code, output } = await run(binary, ["demo", "--listen", host]);
    assert.equal(code, 1);
    assert.match(output, new RegExp(`^error: ${host} is in use by another process; .*tollhouse demo --listen 127\\.0\\.0\\.1:\\d+\n$`));
  } finally {
    await demo.process.stop();
  }
});

test("others cannot reach it: only loopback is listened on, and foreign names are misdirected", async () => {
  for (const listen of ["0.0.0.0:0", "[::]:0", "8080", "example.com:80"]) {
    const { code, output } = await run(binary, ["demo", "--listen", listen]);
    assert.equal(code, 2, output);
    assert.doesNotMatch(output, /@example\.com +\S/);
  }
  const demo = await startDemo("demo-foreign");
  try {
    for (const target of ["/", "/auth/v1/.well-known/jwks.json", "/api/public/hello"]) {
      assert.equal((await send(demo.origin, target, { headers: { host: "rebound.example" } })).status, 421, target);
    }
  } finally {
    await demo.process.stop();
  }
});
