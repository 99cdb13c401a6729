// The promise: a session cookie written by the real @supabase/ssr comes out at a real FastAPI as a Bearer token
// that the app itself can verify, with X-User-Id. Around it: what must not come out.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { binary, freePort, here, run, startDemo, startFastApi, startTollhouse, until } from "./support/processes.mjs";
import { got, open, send, text } from "./support/http.mjs";
import { signInInBrowser, signInOnServer } from "./support/supabase.mjs";

let demo, backend, gateway, nowhere, ada, grace;

/** What a project's URL is: the issuer without the path of its auth API. */
const projectUrl = () => demo.issuer.replace(/\/auth\/v1$/, "");

const configuration = ({ listen, admin }) => `
[server]
listen = "${listen}"

[admin]
listen = "${admin}"

[providers.main]
kind = "supabase"
url = "${projectUrl()}"
publishable_key = "${demo.key}"

[session]
mode = "shared"

[upstreams.api]
url = "${backend.origin}"

[upstreams.nowhere]
url = "http://127.0.0.1:${nowhere}"

[[routes]]
path = "/health"
upstream = "api"
auth = "public"

[[routes]]
path = "/api/*"
upstream = "api"

[[routes]]
path = "/api/admin/*"
upstream = "api"
require = { any_role = ["admin"] }

[[routes]]
path = "/nowhere"
upstream = "nowhere"

[[tests]]
request = "GET /api/admin/users"
as = { roles = ["user"] }
status = 403
`;

before(async () => {
  demo = await startDemo();
  backend = await startFastApi("backend", here, "backend:app", { AUTH_URL: demo.issuer });
  nowhere = await freePort();
  gateway = await startTollhouse("gateway", configuration);
  ada = await signInOnServer(demo, "ada");
  grace = await signInOnServer(demo, "grace");
});

after(async () => {
  for (const started of [gateway, backend, demo]) await started?.process.stop();
});

const ask = (target, options) => send(gateway.origin, target, options);
const as = (user, headers = {}) => ({ headers: { cookie: user.cookie, ...headers } });
/** An unsafe request as a page of ours sends it. */
const fromOurPage = (user, headers = {}) => as(user, { origin: gateway.origin, "sec-fetch-site": "same-origin", ...headers });

function isProblem(answer, status, code) {
  assert.equal(answer.status, status, answer.text);
  assert.match(answer.headers["content-type"], /^application\/problem\+json/);
  assert.equal(answer.json.type, `urn:tollhouse:problem:${code}`);
  assert.equal(answer.json.code, code);
  assert.equal(answer.json.status, status);
  assert.equal(answer.json.request_id, answer.headers["x-request-id"]);
  assert.equal(typeof answer.json.title, "string");
  assert.equal(typeof answer.json.detail, "string");
}

test("a cookie written by the real @supabase/ssr reaches a real FastAPI as a Bearer with X-User-Id", async () => {
  const answer = await ask("/api/echo", as(ada));
  assert.equal(answer.status, 200, answer.text);
  assert.deepEqual(got(answer.json, "authorization"), [`Bearer ${ada.session.access_token}`]);
  assert.deepEqual(got(answer.json, "x-user-id"), [ada.session.user.id]);
  assert.equal(answer.json.claims.sub, ada.session.user.id);
});

describe("every cookie form the library writes", () => {
  const metadata = { bio: "à propos 🎫 ".repeat(500), quote: '"%22"; path=/' };
  for (const [where, signIn] of [["server", signInOnServer], ["browser", signInInBrowser]]) {
    for (const encoding of ["base64url", "raw"]) {
      for (const large of [false, true]) {
        test(`${where} client, ${encoding}, ${large ? "a large profile in pieces" : "a small profile"}`, async () => {
          const user = await signIn(demo, "ada", { encoding, metadata: large ? metadata : undefined });
          if (large) assert.ok(user.names.length >= 3, `expected pieces, got ${user.names}`);
          const answer = await ask("/api/echo", as(user));
          assert.equal(answer.status, 200, answer.text);
          assert.equal(answer.json.claims.sub, user.session.user.id);
          assert.deepEqual(got(answer.json, "x-user-id"), [user.session.user.id]);
        });
      }
    }
  }
});

describe("what the backend receives", () => {
  test("no session cookie, and every other cookie as it was", async () => {
    const cookie = `theme=dark; ${ada.cookie}; sb-127-auth-token-code-verifier=base64-IngiCg; locale=de; quoted="a b"`;
    const answer = await ask("/api/echo", { headers: { cookie } });
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(got(answer.json, "cookie"), ['theme=dark; sb-127-auth-token-code-verifier=base64-IngiCg; locale=de; quoted="a b"']);
  });

  test("no Cookie header at all when the session was the only one", async () => {
    const answer = await ask("/api/echo", as(ada));
    assert.deepEqual(got(answer.json, "cookie"), []);
  });

  test("one X-User-Id, and it is never the client's, in whatever spelling", async () => {
    const forged = { "X-User-Id": ["evil", "eviler"], x_user_id: "evil", "X-USER_ID": "evil", "X-User-Role": "admin", "x_user-role": "admin", Connection: "close, X-User-Id, Authorization" };
    const answer = await ask("/api/echo", as(ada, forged));
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(got(answer.json, "x-user-id"), [ada.session.user.id]);
    assert.equal(got(answer.json, "authorization").length, 1);
    const anySpelling = answer.json.headers.filter(([name]) => name.toLowerCase().replaceAll("_", "-").startsWith("x-user-"));
    assert.ok(anySpelling.every(([, value]) => !/evil|admin/.test(value)), JSON.stringify(anySpelling));
  });

  test("the role of an administrator", async () => {
    const answer = await ask("/api/echo", as(grace));
    assert.match(got(answer.json, "x-user-role").join(), /\badmin\b/);
  });

  test("one X-Request-Id, ours, which the answer carries, too", async () => {
    const answer = await ask("/api/echo", as(ada, { "x-request-id": "chosen-by-the-client" }));
    const [id, ...more] = got(answer.json, "x-request-id");
    assert.deepEqual(more, []);
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.equal(answer.headers["x-request-id"], id);
  });

  test("the client's address, and none that the client invents", async () => {
    const answer = await ask("/api/echo", as(ada, { "x-forwarded-for": "203.0.113.9", forwarded: "for=203.0.113.9", "x-real-ip": "203.0.113.9" }));
    assert.deepEqual(got(answer.json, "x-forwarded-for"), ["127.0.0.1"]);
    assert.ok(!JSON.stringify(answer.json.headers).includes("203.0.113.9"));
  });

  test("path and query as they were matched", async () => {
    const answer = await ask("/api//%65cho?q=%2e%2e/&q=a+b", as(ada));
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.json.path, "/api/echo");
    assert.equal(answer.json.query, "q=%2e%2e/&q=a+b");
  });

  test("on a public route: no token, no cookie of the session, no forged identity", async () => {
    const answer = await ask("/health", as(ada, { "x-user-id": "evil", authorization: "Bearer evil" }));
    assert.equal(answer.status, 200, answer.text);
    for (const name of ["authorization", "cookie", "x-user-id", "x-user-role"]) assert.deepEqual(got(answer.json, name), [], name);
  });
});

describe("who may pass", () => {
  test("nobody without a credential: a problem that says so", async () => {
    const answer = await ask("/api/echo");
    isProblem(answer, 401, "missing_credentials");
    assert.equal(answer.headers["www-authenticate"], 'Bearer realm="tollhouse"');
    assert.equal(answer.json.forwarded, false);
  });

  test("a public route is open to everybody", async () => {
    assert.equal((await ask("/health")).status, 200);
  });

  test("an administrator, where a role is required; nobody else, and the backend never hears of it", async () => {
    const before = (await send(backend.origin, "/control/seen")).json.length;
    isProblem(await ask("/api/admin/users", as(ada)), 403, "forbidden");
    isProblem(await ask("/api/admin/users"), 401, "missing_credentials");
    const seen = (await send(backend.origin, "/control/seen")).json.slice(before);
    assert.deepEqual(seen.filter((target) => target.startsWith("/api")), []);
    assert.equal((await ask("/api/admin/users", as(grace))).status, 200);
  });

  test("a Bearer token as well as a cookie", async () => {
    const answer = await ask("/api/echo", { headers: { authorization: `Bearer ${ada.session.access_token}` } });
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(got(answer.json, "x-user-id"), [ada.session.user.id]);
  });

  test("a Bearer token that does not verify is refused, even beside a good cookie", async () => {
    const [head, payload, signature] = ada.session.access_token.split(".");
    const flipped = (signature[0] === "A" ? "B" : "A") + signature.slice(1);
    const answer = await ask("/api/echo", as(ada, { authorization: `Bearer ${head}.${payload}.${flipped}` }));
    isProblem(answer, 401, "invalid_token");
    assert.match(answer.headers["www-authenticate"], /^Bearer realm="tollhouse", *error="invalid_token"/);
  });

  test("a cookie whose token says another user than was signed is nobody's", async () => {
    const [head, payload, signature] = ada.session.access_token.split(".");
    const claims = JSON.parse(Buffer.from(payload, "base64url"));
    const forged = Buffer.from(JSON.stringify({ ...claims, sub: grace.session.user.id })).toString("base64url");
    const session = { ...ada.session, access_token: `${head}.${forged}.${signature}` };
    const cookie = `sb-127-auth-token=base64-${Buffer.from(JSON.stringify(session)).toString("base64url")}`;
    const answer = await ask("/api/echo", { headers: { cookie } });
    assert.equal(answer.status, 401, answer.text);
    assert.match(answer.headers["content-type"], /^application\/problem\+json/);
  });

  test("a cookie that is no session at all", async () => {
    for (const value of ["", "base64-", "base64-!!", "base64-e30", "%7B%7D", "null", "x".repeat(3000)]) {
      isProblem(await ask("/api/echo", { headers: { cookie: `sb-127-auth-token=${value}` } }), 401, "missing_credentials");
    }
  });
});

describe("what a page elsewhere can do with the cookie", () => {
  test("an unsafe request from our own page passes", async () => {
    const answer = await ask("/api/echo", { method: "POST", ...fromOurPage(ada) });
    assert.equal(answer.status, 200, answer.text);
  });

  test("one from another page, or from nowhere, does not", async () => {
    const elsewhere = [
      { origin: "https://evil.example", "sec-fetch-site": "cross-site" },
      { origin: "https://evil.example" },
      { origin: "null" },
      { origin: gateway.origin, "sec-fetch-site": "cross-site" },
      {},
    ];
    for (const headers of elsewhere) {
      isProblem(await ask("/api/echo", { method: "POST", ...as(ada, headers) }), 403, "csrf_rejected");
    }
  });

  test("a Bearer token is nothing that a browser sends by itself", async () => {
    const headers = { authorization: `Bearer ${ada.session.access_token}`, origin: "https://evil.example" };
    assert.equal((await ask("/api/echo", { method: "POST", headers })).status, 200);
  });
});

describe("bodies and answers", () => {
  test("an event stream arrives event by event", async () => {
    const { response } = open(gateway.origin, "/api/events", as(ada));
    const answer = (await response).setEncoding("utf8");
    assert.equal(answer.statusCode, 200);
    const events = answer[Symbol.asyncIterator]();
    assert.equal((await events.next()).value, "data: first\n\n");
    // Only now may the backend go on: whoever buffers never gets here.
    await send(backend.origin, "/control/release", { method: "POST" });
    assert.equal((await events.next()).value, "data: second\n\n");
    assert.equal((await events.next()).done, true);
  });

  test("an upload arrives while it is still being sent", async () => {
    const piece = Buffer.alloc(64 * 1024, "x");
    const options = { method: "POST", ...fromOurPage(ada, { "transfer-encoding": "chunked" }), body: piece, end: false };
    const { request, response } = open(gateway.origin, "/api/upload", options);
    const received = async () => (await send(backend.origin, "/control/upload")).json.received;
    await until("the first piece at the backend", async () => (await received()) === piece.length);
    request.end(piece);
    const answer = await response;
    assert.equal(answer.statusCode, 200);
    assert.deepEqual(JSON.parse(await text(answer)), { received: 2 * piece.length });
  });

  test("an answer for one user is kept by no shared cache and tells nothing of the identity", async () => {
    const answer = await ask("/api/echo", as(ada));
    assert.match(answer.headers["cache-control"], /private/);
    assert.match(answer.headers["cache-control"], /no-store/);
    for (const name of ["x-user-id", "x-user-role", "authorization", "server"]) assert.equal(answer.headers[name], undefined, name);
    assert.equal(answer.headers["x-content-type-options"], "nosniff");
  });

  test("a path with two readings is refused before anyone reads it", async () => {
    for (const target of ["/api/../health", "/api/%2e%2e/health", "/api/a%2fb", "/api/a%5cb", "/api/%252e%252e/", "/api/a;b", "/api/%zz", "/api/%ff"]) {
      isProblem(await ask(target, as(grace)), 400, "bad_request");
    }
  });

  test("an unknown path and a backend that is not there are problems, too", async () => {
    isProblem(await ask("/elsewhere", as(ada)), 404, "no_route");
    const answer = await ask("/nowhere", as(ada));
    isProblem(answer, 502, "upstream_unreachable");
    assert.equal(answer.json.forwarded, false);
    assert.ok(!answer.text.includes(String(nowhere)), "the upstream's address is not the client's to know");
  });
});

describe("the files people start from", () => {
  const check = (...args) => run(binary, args);

  test("check accepts the file of these tests, whose policy tests pass", async () => {
    const { code, output } = await check("check", "-c", gateway.file);
    assert.equal(code, 0, output);
  });

  test("check names a wrong key, its place and the right one", async () => {
    const { code, output } = await check("check", "-c", `${here}/support/misspelt.toml`);
    assert.equal(code, 1, output);
    assert.match(output, /unknown-key/);
    assert.match(output, /misspelt\.toml:\d+:\d+/);
    assert.match(output, /did you mean `rate_limits`\?/);
  });

  test("the FastAPI example runs as its README says", async () => {
    const folder = `${here}/../../examples/fastapi`;
    const app = await startFastApi("example-app", folder, "app:app", {});
    const env = { SUPABASE_URL: projectUrl(), SUPABASE_PUBLISHABLE_KEY: demo.key, BACKEND_URL: app.origin };
    const example = readFileSync(`${folder}/tollhouse.toml`, "utf8");
    const moved = ({ listen, admin }) => {
      assert.ok(example.includes('listen = "127.0.0.1:8080"'), "the example listens where its README says");
      return example.replace('listen = "127.0.0.1:8080"', `listen = "${listen}"`) + `\n[admin]\nlisten = "${admin}"\n`;
    };
    const front = await startTollhouse("example", moved, env);
    try {
      assert.equal((await send(front.origin, "/health")).status, 200);
      assert.equal((await send(front.origin, "/api/me")).status, 401);
      const me = await send(front.origin, "/api/me", as(ada));
      assert.equal(me.json.user_id, ada.session.user.id, me.text);
      assert.equal((await send(front.origin, "/api/admin/users", as(ada))).status, 403);
      assert.equal((await send(front.origin, "/api/admin/users", as(grace))).status, 200);
      // And as curl does it, without an app.
      const form = `email=ada@example.com&password=${demo.passwords.ada}`;
      const login = await send(front.origin, "/.auth/login", {
        method: "POST",
        headers: { "sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded", "content-length": form.length },
        body: form,
      });
      assert.equal(login.status, 200, login.text);
      const cookie = login.headers["set-cookie"].map((line) => line.split(";")[0]).join("; ");
      assert.equal((await send(front.origin, "/api/me", { headers: { cookie } })).json.user_id, ada.session.user.id);
    } finally {
      await front.process.stop();
      await app.process.stop();
    }
  });

  test("a gateway that is told to stop stops, and says that nothing was cut", async () => {
    const other = await startTollhouse("stopped", configuration);
    assert.equal((await send(other.origin, "/health")).status, 200);
    assert.equal(await other.process.stop(), 0, other.process.output);
  });
});
