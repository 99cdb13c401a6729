// gRPC through the gateway: grpcio on both ends, over HTTP/2 with and without TLS.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { freePort, startClient, startDemo, startPython, startTollhouse, told, until } from "./support/processes.mjs";
import { signInOnServer } from "./support/supabase.mjs";
import { makeAuthority } from "./support/certificates.mjs";
import { opening, tlsListener } from "./support/configuration.mjs";

let demo, server, authority, gateway, plain, secure, nowhere, ada, grace;

const configuration = (at) => `${opening(at, demo)}
${tlsListener(secure, authority.issue("localhost", "DNS:localhost", "IP:127.0.0.1"))}
[[listeners]]
address = "127.0.0.1:${plain}"
h2c = true

[upstreams.told]
url = "${server.origin}"
protocol = "h2c"

[upstreams.guessed]
url = "${server.origin}"

[upstreams.nowhere]
url = "http://127.0.0.1:${nowhere}"
protocol = "h2c"

[rate_limits.two]
rate = "2/5m"
by = "user"

[[routes]]
path = "/door.Told/*"
upstream = "told"

[[routes]]
path = "/door.Guessed/*"
upstream = "guessed"

[[routes]]
path = "/door.Limited/*"
upstream = "told"
rate_limits = ["two"]

[[routes]]
path = "/door.Admin/*"
upstream = "told"
require = { any_role = ["admin"] }

[[routes]]
path = "/door.Nowhere/*"
upstream = "nowhere"
`;

before(async () => {
  demo = await startDemo("demo-grpc");
  server = await startPython("grpc-server", "grpc_server.py");
  authority = makeAuthority();
  [plain, secure, nowhere] = [await freePort(), await freePort(), await freePort()];
  gateway = await startTollhouse("gateway-grpc", configuration);
  ada = await signInOnServer(demo, "ada");
  grace = await signInOnServer(demo, "grace");
});

after(async () => {
  for (const started of [gateway, server, demo]) await started?.process.stop();
  authority?.remove();
});

const bearer = (user) => [["authorization", `Bearer ${user.session.access_token}`]];
const overPlain = () => ({ target: `127.0.0.1:${plain}` });
const overTls = () => ({ target: `127.0.0.1:${secure}`, ca: authority.ca });

const client = (order) => startClient("grpc_client.py", { ...overPlain(), service: "door.Told", metadata: bearer(ada), ...order });

/** One exchange of `grpc_client.py`. */
async function call(order) {
  const process = client(order);
  try {
    return await told(process);
  } finally {
    await process.stop();
  }
}

const lines = [
  ["h2c, to an upstream that is said to speak it", "door.Told", overPlain],
  ["h2c, to an upstream of which nothing is said", "door.Guessed", overPlain],
  ["TLS", "door.Told", overTls],
];
for (const [line, service, where] of lines) {
  describe(`over ${line}`, () => {
    const ask = (what) => call({ ...where(), service, do: what });

    test("one question, one answer, with metadata before and after it", async () => {
      const { got, leading, trailing } = await ask("unary");
      assert.equal(got, "got a question");
      assert.equal(leading.leading, "first");
      assert.deepEqual(trailing, { trailing: "last", "trailing-bin": "00ff10" });
    });

    test("a status with its details and metadata", async () => {
      const { status, details, trailing } = await ask("not_found");
      assert.deepEqual([status, details], ["NOT_FOUND", "no such thing: 100 % – ünknown"]);
      assert.equal(trailing.trailing, "with an error");
    });

    test("a message of 3 MiB, both ways", async () => {
      assert.deepEqual(await ask("large"), { length: 3 << 20, same: true });
    });

    test("a stream from the server", async () => {
      assert.deepEqual(await ask("server_stream"), { count: 1000, in_order: true });
    });

    test("a stream from the client", async () => {
      assert.deepEqual(await ask("client_stream"), { count: 1000, bytes: (999 * 1000) / 2 });
    });

    test("streams both ways at once", async () => {
      assert.deepEqual(await ask("both_ways"), { count: 1000, same: true });
    });

    test("each side waits for the other, a hundred times: nothing is held back", async () => {
      assert.deepEqual(await ask("ping_pong"), { rounds: 100, more: 0 });
    });

    test("a method that the server does not have", async () => {
      const { status, details } = await ask("unimplemented");
      // The words are those of grpcio: it was the server that answered.
      assert.deepEqual([status, details], ["UNIMPLEMENTED", "Method not found!"]);
    });
  });
}

describe("calls that end early", () => {
  /** When the server saw the end of the call with this `id`. */
  const ended = (id) => until(`the server to see the end of ${id}`, () => {
    const found = new RegExp(`^ended ${id} ([\\d.]+)$`, "m").exec(server.process.output);
    return found && Number(found[1]);
  });

  for (const [line, service, where] of lines) {
    test(`a deadline is the server's as well, over ${line}`, async () => {
      const id = `deadline-${service}-${where.name}`;
      const { status, time } = await call({ ...where(), service, do: "deadline", id });
      assert.equal(status, "DEADLINE_EXCEEDED");
      assert.ok((await ended(id)) - time < 1, "within a second");
    });

    test(`so is a cancellation in the middle of a stream, over ${line}`, async () => {
      const id = `cancel-${service}-${where.name}`;
      // Its connection stays open: what the server sees is the end of the call alone.
      const process = client({ ...where(), service, do: "cancel", id });
      try {
        const { first, status, time } = await told(process);
        assert.deepEqual([first, status], ["a first message", "CANCELLED"]);
        assert.ok((await ended(id)) - time < 1, "within a second");
        assert.ok(!process.over);
      } finally {
        await process.stop();
      }
    });
  }
});

describe("what the server receives", () => {
  test("the token and the id, and nothing that the client made up", async () => {
    const made = [["x-user-id", "evil"], ["x-user-role", "admin"], ["x-forwarded-for", "203.0.113.9"], ["x-own", "kept"]];
    const { metadata } = await call({ do: "received", metadata: [...bearer(ada), ...made] });
    const values = (name) => metadata.filter(([field]) => field === name).map(([, value]) => value);
    assert.deepEqual(values("authorization"), [`Bearer ${ada.session.access_token}`]);
    assert.deepEqual(values("x-user-id"), [ada.session.user.id]);
    assert.ok(!values("x-user-role").join().includes("admin"));
    assert.deepEqual(values("x-forwarded-for"), ["127.0.0.1"]);
    assert.deepEqual(values("x-own"), ["kept"]);
    assert.equal(values("x-request-id").length, 1);
  });

  test("a session's cookie becomes a token here as well, when an Origin says that the page is ours", async () => {
    const origin = `http://127.0.0.1:${plain}`;
    const { metadata } = await call({ do: "received", metadata: [["cookie", ada.cookie], ["origin", origin]] });
    const values = (name) => metadata.filter(([field]) => field === name).map(([, value]) => value);
    assert.deepEqual(values("authorization"), [`Bearer ${ada.session.access_token}`]);
    assert.deepEqual(values("cookie"), []);
  });
});

describe("refusals are statuses of gRPC", () => {
  const refused = async (number, status, order) => {
    for (const where of [overPlain, overTls]) {
      const answer = await call({ ...where(), do: "unary", ...order });
      assert.deepEqual([answer.number, answer.status], [number, status], JSON.stringify(answer));
      assert.notEqual(answer.details, "");
    }
  };

  test("no credential: UNAUTHENTICATED", () => refused(16, "UNAUTHENTICATED", { metadata: [] }));

  test("a token that does not verify: UNAUTHENTICATED", async () => {
    const [head, payload, signature] = ada.session.access_token.split(".");
    const flipped = (signature[0] === "A" ? "B" : "A") + signature.slice(1);
    await refused(16, "UNAUTHENTICATED", { metadata: [["authorization", `Bearer ${head}.${payload}.${flipped}`]] });
  });

  test("a cookie, and nothing that says whose page it is: PERMISSION_DENIED", () => refused(7, "PERMISSION_DENIED", { metadata: [["cookie", ada.cookie]] }));

  test("a role is missing: PERMISSION_DENIED", async () => {
    await refused(7, "PERMISSION_DENIED", { service: "door.Admin" });
    assert.equal((await call({ service: "door.Admin", do: "unary", metadata: bearer(grace) })).got, "got a question");
  });

  test("over a rate limit: RESOURCE_EXHAUSTED", async () => {
    for (let calls = 0; calls < 2; calls += 1) assert.equal((await call({ service: "door.Limited", do: "unary" })).got, "got a question");
    await refused(8, "RESOURCE_EXHAUSTED", { service: "door.Limited" });
  });

  test("the upstream is down: UNAVAILABLE", () => refused(14, "UNAVAILABLE", { service: "door.Nowhere" }));

  test("a service without a route: UNIMPLEMENTED", () => refused(12, "UNIMPLEMENTED", { service: "door.Unknown" }));
});
