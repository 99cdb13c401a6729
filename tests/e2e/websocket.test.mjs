// WebSockets through the gateway: the Python package `websockets` on both ends, the session of a real library in between.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { freePort, startClient, startDemo, startPython, startTollhouse, told, until } from "./support/processes.mjs";
import { send } from "./support/http.mjs";
import { signInOnServer } from "./support/supabase.mjs";
import { makeAuthority } from "./support/certificates.mjs";
import { opening, tlsListener } from "./support/configuration.mjs";

let demo, server, authority, gateway, secure, ada, grace;

/** The upstream with more lines of its own, and the routes with more lines of the first. */
const backend = (upstream = "", route = "") => `
[upstreams.sockets]
url = "${server.origin}"
${upstream}

[[routes]]
path = "/ws/*"
${route}

[[routes]]
path = "/ws/admin/*"
require = { any_role = ["admin"] }

[[routes]]
path = "/ws/none/*"
websocket = false
`;

before(async () => {
  demo = await startDemo("demo-websocket");
  server = await startPython("ws-server", "ws_server.py");
  authority = makeAuthority();
  const pair = authority.issue("localhost", "DNS:localhost", "IP:127.0.0.1");
  const port = await freePort();
  secure = `https://127.0.0.1:${port}`;
  gateway = await startTollhouse("gateway-websocket", (at) => opening(at, demo) + tlsListener(port, pair) + backend());
  ada = await signInOnServer(demo, "ada");
  grace = await signInOnServer(demo, "grace");
});

after(async () => {
  for (const started of [gateway, server, demo]) await started?.process.stop();
  authority?.remove();
});

const toSocket = (origin, target) => origin.replace(/^http/, "ws") + target;
const bearer = (user) => ({ headers: { authorization: `Bearer ${user.session.access_token}` } });
/** As a page of ours connects: the browser adds the cookie and the Origin. */
const fromOurPage = (user, origin = gateway.origin) => ({ origin, headers: { cookie: user.cookie } });

/** One exchange of `ws_client.py` at `target`. */
async function exchange(target, order, origin = gateway.origin) {
  const client = startClient("ws_client.py", { url: toSocket(origin, target), ca: origin.startsWith("https:") ? authority.ca : undefined, ...order });
  try {
    return await told(client);
  } finally {
    await client.stop();
  }
}

/** How often the server saw a connection of `echo` end with this code and reason. */
const closes = async (code, reason) => {
  const all = JSON.parse((await send(server.origin, "/control/closes")).text);
  return all.filter((end) => end.code === code && end.reason === reason).length;
};

function isProblem({ refused }, status, code) {
  assert.ok(refused, "the handshake is refused");
  assert.equal(refused.status, status, refused.text);
  assert.match(refused.headers["content-type"], /^application\/problem\+json/);
  const problem = JSON.parse(refused.text);
  assert.equal(problem.code, code);
  assert.equal(problem.forwarded, false);
}

const ways = [
  ["with the session's cookie", () => fromOurPage(ada), () => gateway.origin],
  ["with a Bearer token", () => bearer(ada), () => gateway.origin],
  ["with the session's cookie, over TLS", () => fromOurPage(ada, secure), () => secure],
];
for (const [way, credential, origin] of ways) {
  describe(way, () => {
    const through = (target, order) => exchange(target, { ...credential(), ...order }, origin());

    test("text", async () => {
      assert.deepEqual(await through("/ws/echo", { do: "text" }), { got: "Grüße, 世界 🎫" });
    });

    test("4 MiB of binary", async () => {
      assert.deepEqual(await through("/ws/echo", { do: "binary", bytes: 4 << 20 }), { type: "bytes", length: 4 << 20, same: true });
    });

    test("empty messages", async () => {
      assert.deepEqual(await through("/ws/echo", { do: "empty" }), { got: [["str", 0], ["bytes", 0], ["str", 5]] });
    });

    test("permessage-deflate, agreed between the two ends", async () => {
      assert.deepEqual(await through("/ws/echo", { do: "deflate", compression: "deflate" }), { extensions: ["permessage-deflate"], same: true });
      const { got } = await through("/ws/about", { do: "listen", compression: "deflate" });
      assert.deepEqual(got.extensions, ["permessage-deflate"]);
    });

    test("messages in fragments, both ways", async () => {
      assert.deepEqual(await through("/ws/fragments", { do: "fragments" }), { lengths: [5, 0, 5, 100_000, 5, 0], same: true });
    });

    test("ping and pong, both ways", async () => {
      assert.deepEqual(await through("/ws/pings", { do: "pings" }), { seen: { "from the client": 1 } });
      assert.deepEqual(await through("/ws/ping", { do: "say" }), { got: "the pong is here" });
    });

    test("200 connections at once, each with its own answers", async () => {
      assert.deepEqual(await through("/ws/echo", { do: "many", sockets: 200 }), { right: 200 });
    });

    test("close codes and reasons, both ways", async () => {
      assert.deepEqual(await through("/ws/close", { do: "closed" }), { code: 4001, reason: "the server has had enough" });
      const end = [4002, "the client has had enough"];
      const before = await closes(...end);
      assert.deepEqual(await through("/ws/echo", { do: "close" }), { code: end[0], reason: end[1] });
      await until("the server to know", async () => (await closes(...end)) === before + 1);
    });
  });
}

describe("what the server receives", () => {
  for (const [way, credential] of ways.slice(0, 2)) {
    test(`${way}: the token and the id, and no cookie of the session`, async () => {
      const order = credential();
      order.headers = { ...order.headers, "x-user-id": "evil", "x-forwarded-for": "203.0.113.9" };
      if (order.headers.cookie) order.headers.cookie += "; theme=dark";
      const { got } = await exchange("/ws/about?room=1", { do: "listen", ...order });
      const values = (name) => got.headers.filter(([field]) => field === name).map(([, value]) => value);
      assert.equal(got.path, "/ws/about?room=1");
      assert.deepEqual(values("authorization"), [`Bearer ${ada.session.access_token}`]);
      assert.deepEqual(values("x-user-id"), [ada.session.user.id]);
      assert.deepEqual(values("x-forwarded-for"), ["127.0.0.1"]);
      assert.deepEqual(values("cookie"), order.headers.cookie ? ["theme=dark"] : []);
      assert.equal(values("x-request-id").length, 1);
      assert.deepEqual(values("upgrade"), ["websocket"]);
      assert.equal(values("sec-websocket-key").length, 1);
    });
  }
});

describe("who may connect", () => {
  test("nobody without a credential", async () => {
    const answer = await exchange("/ws/echo", { do: "text", origin: gateway.origin });
    isProblem(answer, 401, "missing_credentials");
    assert.equal(answer.refused.headers["www-authenticate"], 'Bearer realm="tollhouse"');
  });

  test("a cookie without an Origin is not a page of ours", async () => {
    isProblem(await exchange("/ws/echo", { do: "text", headers: { cookie: ada.cookie } }), 403, "csrf_rejected");
  });

  test("a page from elsewhere is not a page of ours", async () => {
    for (const origin of ["https://evil.example", "null", demo.origin, gateway.origin.replace("127.0.0.1", "127.0.0.2")]) {
      isProblem(await exchange("/ws/echo", { do: "text", ...fromOurPage(ada, origin) }), 403, "csrf_rejected");
    }
  });

  test("a Bearer token is nothing that a browser sends by itself: its Origin does not matter", async () => {
    assert.ok((await exchange("/ws/echo", { do: "text", ...bearer(ada) })).got);
    assert.ok((await exchange("/ws/echo", { do: "text", ...bearer(ada), origin: "https://evil.example" })).got);
  });

  test("a role that a route asks for", async () => {
    isProblem(await exchange("/ws/admin/echo", { do: "text", ...fromOurPage(ada) }), 403, "forbidden");
    isProblem(await exchange("/ws/admin/echo", { do: "text", ...bearer(ada) }), 403, "forbidden");
    assert.ok((await exchange("/ws/admin/echo", { do: "text", ...fromOurPage(grace) })).got);
  });

  test("a route without WebSockets has none", async () => {
    isProblem(await exchange("/ws/none/echo", { do: "text", ...fromOurPage(ada) }), 404, "not_supported");
  });

  test("a refusal of the server's own passes as it is", async () => {
    const { refused } = await exchange("/ws/refuse", { do: "text", ...fromOurPage(ada) });
    assert.equal(refused.status, 403);
    assert.equal(refused.text, "the server lets nobody in here\n");
    assert.equal(refused.headers["x-refused-by"], "server");
  });
});

describe("how long a connection lives", () => {
  test("silence is no reason to end it, whatever the timeouts of requests are", async () => {
    const short = await startTollhouse("gateway-websocket-short", (at) =>
      opening(at, demo, 'keep_alive = "1s"\nheader_timeout = "1s"\nbody_idle_timeout = "1s"\nwrite_idle_timeout = "1s"') +
      backend('idle_timeout = "1s"', 'timeout = "1s"\nidle_timeout = "1s"'));
    try {
      const answer = await exchange("/ws/echo", { do: "silence", seconds: 3, ...fromOurPage(ada, short.origin) }, short.origin);
      assert.deepEqual(answer, { got: "still here" });
    } finally {
      await short.process.stop();
    }
  });

  test("where there is room for two, the third is told so, and comes in when one has left", async () => {
    const narrow = await startTollhouse("gateway-websocket-narrow", (at) => opening(at, demo, "max_upgrades = 2") + backend());
    try {
      const { third, works } = await exchange("/ws/echo", { do: "one_too_many", sockets: 2, ...bearer(ada) }, narrow.origin);
      isProblem({ refused: third }, 503, "overloaded");
      assert.match(third.headers["retry-after"], /^\d+$/);
      assert.deepEqual(works, ["works", "works"]);
    } finally {
      await narrow.process.stop();
    }
  });

  test("a gateway that is told to stop closes it with 1001, and ends in time", async () => {
    const stopped = await startTollhouse("gateway-websocket-stopped", (at) => opening(at, demo, 'drain_timeout = "10s"') + backend());
    const client = startClient("ws_client.py", { url: toSocket(stopped.origin, "/ws/echo"), do: "closed", ...bearer(ada) });
    try {
      await client.ready("an echo", () => client.output.includes("received please"));
      const asked = Date.now();
      stopped.process.child.kill("SIGTERM");
      assert.equal((await told(client)).code, 1001);
      assert.equal(await stopped.process.ended, 0, stopped.process.output);
      assert.ok(Date.now() - asked < 10_000, `took ${Date.now() - asked} ms`);
    } finally {
      await client.stop();
      await stopped.process.stop();
    }
  });
});
