// The door: TLS, HTTP/2, h2c, redirects and a socket in the file system, with the clients that people have.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import http2 from "node:http2";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import tls from "node:tls";
import { artefacts, freePort, run, startDemo, startTollhouse, until } from "./support/processes.mjs";
import { got } from "./support/http.mjs";
import { signInOnServer } from "./support/supabase.mjs";
import { makeAuthority } from "./support/certificates.mjs";
import { opening, tlsListener } from "./support/configuration.mjs";
import { startUpstream } from "./support/upstream.mjs";
import { ask, connect } from "./support/h2.mjs";

const MEGABYTES_50 = 50 << 20;

let demo, upstream, authority, gateway, ports, socket, ada;

const configuration = (at) => `${opening(at, demo)}
${tlsListener(ports.tls, authority.first, authority.second)}
[[listeners]]
address = "127.0.0.1:${ports.h2c}"
h2c = true

[[listeners]]
address = "127.0.0.1:${ports.redirect}"
redirect_https = true

[[listeners]]
address = "unix:${socket}"

${routes()}`;

const routes = () => `
[upstreams.api]
url = "${upstream.origin}"

[[routes]]
path = "/public/*"
auth = "public"

[[routes]]
path = "/api/*"
max_body = "unlimited"

[[routes]]
path = "/api/little/*"
max_body = "1KiB"
`;

before(async () => {
  demo = await startDemo("demo-tls");
  upstream = await startUpstream();
  upstream.large = randomBytes(MEGABYTES_50);
  authority = makeAuthority();
  authority.first = authority.issue("first", "DNS:localhost", "IP:127.0.0.1");
  authority.second = authority.issue("second", "DNS:other.test");
  writeFileSync(path.join(authority.folder, "large"), upstream.large);
  socket = path.join(authority.folder, "door.sock");
  ports = { tls: await freePort(), h2c: await freePort(), redirect: await freePort() };
  gateway = await startTollhouse("gateway-tls", configuration);
  ada = await signInOnServer(demo, "ada");
});

after(async () => {
  for (const started of [gateway, demo]) await started?.process.stop();
  upstream?.stop();
  authority?.remove();
});

const secure = () => `https://127.0.0.1:${ports.tls}`;
const clear = () => `http://127.0.0.1:${ports.h2c}`;
const token = () => `Bearer ${ada.session.access_token}`;
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** What curl says: its exit code, the status, the version of HTTP, the body, and where a redirect leads. */
async function curl(...args) {
  const marked = ["-sS", "--max-time", "30", "--cacert", authority.ca, "-w", "\nmarked %{http_code} %{http_version} %{redirect_url}\n", ...args];
  const { code, output } = await run("curl", marked, {}, { milliseconds: 40_000 });
  const [, body, status, version, location] = /^([^]*)\nmarked (\d+) (\S+) (\S*)\n/.exec(output) ?? [];
  return { code, output, body, status: Number(status), version, location };
}
const withToken = () => ["-H", `authorization: ${token()}`];

/** The certificate that a new connection is given; `name` is for SNI. */
function served(port, name) {
  return new Promise((resolve, reject) => {
    const connection = tls.connect({ host: "127.0.0.1", port, servername: name, ca: readFileSync(authority.ca), checkServerIdentity: () => undefined }, () => {
      const { serialNumber, subject } = connection.getPeerCertificate();
      connection.end();
      resolve({ serial: serialNumber, subject: subject.CN });
    });
    connection.on("error", reject);
  });
}

describe("curl", () => {
  for (const [flags, version] of [[["--http2"], "2"], [["--http1.1"], "1.1"], [[], "2"]]) {
    test(`over TLS, ${flags.join() || "as it likes"}: HTTP/${version}, and the upstream is told of https`, async () => {
      const answer = await curl(...flags, ...withToken(), `${secure()}/api/echo?q=1`);
      assert.deepEqual([answer.code, answer.status, answer.version], [0, 200, version], answer.output);
      const echo = JSON.parse(answer.body);
      assert.equal(echo.target, "/api/echo?q=1");
      assert.deepEqual(got(echo, "x-forwarded-proto"), ["https"]);
      assert.deepEqual(got(echo, "x-forwarded-host"), [`127.0.0.1:${ports.tls}`]);
      assert.deepEqual(got(echo, "host"), [`127.0.0.1:${ports.tls}`]);
      assert.deepEqual(got(echo, "x-user-id"), [ada.session.user.id]);
    });
  }

  test("without a credential, over HTTP/2: the same problem as ever", async () => {
    const answer = await curl("--http2", `${secure()}/api/echo`);
    assert.deepEqual([answer.code, answer.status, answer.version], [0, 401, "2"], answer.output);
    assert.equal(JSON.parse(answer.body).code, "missing_credentials");
  });

  test("h2c: with prior knowledge, and HTTP/1.1 on the same port", async () => {
    for (const [flag, version] of [["--http2-prior-knowledge", "2"], ["--http1.1", "1.1"]]) {
      const answer = await curl(flag, ...withToken(), `${clear()}/api/echo`);
      assert.deepEqual([answer.code, answer.status, answer.version], [0, 200, version], answer.output);
      assert.deepEqual(got(JSON.parse(answer.body), "x-forwarded-proto"), ["http"]);
    }
  });

  test("an offer to upgrade to h2c is not taken, and not passed on", async () => {
    for (const origin of [clear(), gateway.origin]) {
      const answer = await curl("--http2", ...withToken(), `${origin}/api/echo`);
      assert.deepEqual([answer.code, answer.status, answer.version], [0, 200, "1.1"], answer.output);
      for (const name of ["upgrade", "http2-settings"]) assert.deepEqual(got(JSON.parse(answer.body), name), [], name);
    }
  });

  test("HTTP/2 on a port that does not speak it fails at once, and the port goes on", async () => {
    const answer = await curl("--http2-prior-knowledge", "--max-time", "5", `${gateway.origin}/public/small`);
    assert.ok(![0, 28].includes(answer.code), answer.output);
    assert.equal((await curl(`${gateway.origin}/public/small`)).body, "small\n");
  });

  test("plain text on the TLS port is not left hanging, and the port goes on", async () => {
    const answer = await curl("--max-time", "5", `http://127.0.0.1:${ports.tls}/public/small`);
    assert.notEqual(answer.code, 28, answer.output);
    assert.ok(answer.code !== 0 || answer.status === 400, answer.output);
    assert.equal((await curl(`${secure()}/public/small`)).body, "small\n");
  });

  test("a socket in the file system", async () => {
    const answer = await curl("--unix-socket", socket, ...withToken(), "http://localhost/api/echo");
    assert.deepEqual([answer.code, answer.status], [0, 200], answer.output);
    assert.deepEqual(got(JSON.parse(answer.body), "x-user-id"), [ada.session.user.id]);
  });

  test("the port that only redirects: 308, with path and query", async () => {
    for (const method of ["GET", "POST"]) {
      const answer = await curl("-X", method, `http://127.0.0.1:${ports.redirect}/api/a%20b?x=1&y=%2F`);
      assert.deepEqual([answer.code, answer.status], [0, 308], answer.output);
      assert.match(answer.location, /^https:\/\/127\.0\.0\.1(:\d+)?\/api\/a%20b\?x=1&y=%2F$/);
    }
  });

  for (const [line, flag, origin] of [["HTTP/2 over TLS", "--http2", secure], ["h2c", "--http2-prior-knowledge", clear]]) {
    test(`50 MB up and down, over ${line}`, async () => {
      const up = await curl(flag, ...withToken(), "-T", path.join(authority.folder, "large"), `${origin()}/api/upload`);
      assert.deepEqual([up.code, up.status, up.version], [0, 200, "2"], up.output);
      assert.deepEqual(JSON.parse(up.body), { length: MEGABYTES_50, sha256: sha256(upstream.large) });
      const file = path.join(authority.folder, "downloaded");
      const down = await curl(flag, ...withToken(), "-o", file, `${origin()}/api/download`);
      assert.deepEqual([down.code, down.status, down.version], [0, 200, "2"], down.output);
      assert.equal(sha256(readFileSync(file)), sha256(upstream.large));
    });
  }

  test("a body over the limit, over HTTP/2: 413, with and without a length", async () => {
    const file = path.join(authority.folder, "too-large");
    writeFileSync(file, "x".repeat(2000));
    for (const more of [[], ["-H", "content-length:"]]) {
      const answer = await curl("--http2", ...withToken(), ...more, "--data-binary", `@${file}`, `${secure()}/api/little/upload`);
      assert.deepEqual([answer.status, answer.version], [413, "2"], answer.output);
      assert.equal(JSON.parse(answer.body).code, "payload_too_large");
    }
  });

  test("an upload that is refused early, over HTTP/2: its answer is read, however large it is", async () => {
    const large = path.join(authority.folder, "large");
    for (const [more, place, status, code] of [[withToken(), "/api/little/upload", 413, "payload_too_large"], [[], "/api/upload", 401, "missing_credentials"]]) {
      for (const length of [[], ["-H", "content-length:"]]) {
        const answer = await curl("--http2", ...more, ...length, "--data-binary", `@${large}`, secure() + place);
        assert.deepEqual([answer.code, answer.status, answer.version], [0, status, "2"], answer.output);
        assert.equal(JSON.parse(answer.body).code, code);
      }
    }
  });
});

test("where only listeners are named, nothing else is bound", async () => {
  const port = await freePort();
  const only = await startTollhouse("gateway-tls-only", (at) => opening(at, demo).replace(/^listen = .*$/m, "") + tlsListener(port, authority.first) + routes());
  try {
    assert.equal((await curl(`https://127.0.0.1:${port}/public/small`)).body, "small\n");
    const ready = only.process.lines().find((line) => line.msg === "ready");
    assert.equal(ready.listen.length, 1, JSON.stringify(ready));
    assert.ok(ready.listen[0].includes(`127.0.0.1:${port}`), JSON.stringify(ready));
  } finally {
    await only.process.stop();
  }
});

describe("openssl", () => {
  const client = async (...args) => {
    const always = ["s_client", "-connect", `127.0.0.1:${ports.tls}`, "-CAfile", authority.ca, "-verify_return_error"];
    return (await run("openssl", [...always, ...args])).output;
  };

  test("the name chooses the certificate; without one, or with one that nobody has, the first", async () => {
    for (const [args, name] of [[["-servername", "other.test"], /other\.test/], [["-servername", "localhost"], /localhost/],
      [["-servername", "unknown.test"], /localhost/], [["-noservername"], /localhost/]]) {
      const output = await client(...args);
      assert.match(/^subject=.*$/m.exec(output)?.[0] ?? output, name);
      assert.match(output, /Verify return code: 0 \(ok\)/);
    }
    const answer = await curl("--resolve", `other.test:${ports.tls}:127.0.0.1`, `https://other.test:${ports.tls}/public/small`);
    assert.deepEqual([answer.code, answer.body, answer.version], [0, "small\n", "2"], answer.output);
  });

  test("TLS 1.2 and 1.3 are spoken", async () => {
    assert.match(await client("-tls1_2"), /^New, TLSv1\.2, Cipher is ECDHE/m);
    assert.match(await client("-tls1_3"), /^New, TLSv1\.3, Cipher is TLS_/m);
  });

  test("TLS 1.0 and 1.1 are refused, by the server", async () => {
    for (const version of ["-tls1", "-tls1_1"]) {
      // At this level the client offers them; the alert is the server's answer.
      const output = await client(version, "-cipher", "ALL:@SECLEVEL=0");
      assert.match(output, /alert/, output);
      assert.match(output, /no peer certificate available/);
    }
  });

  test("HTTP/2 and HTTP/1.1 are offered by ALPN, and the server's wish is HTTP/2", async () => {
    assert.match(await client("-alpn", "http/1.1,h2"), /^ALPN protocol: h2$/m);
    assert.match(await client("-alpn", "http/1.1"), /^ALPN protocol: http\/1\.1$/m);
    assert.match(await client(), /^No ALPN negotiated$/m);
  });
});

describe("testssl.sh", () => {
  /** What it may find all the same, and why that is not about the gateway. */
  const allowed = {
    cert_revocation: "an authority made for these tests has nowhere to publish revocations",
  };

  test("finds nothing of weight", async () => {
    const report = path.join(artefacts, "testssl.json");
    rmSync(report, { force: true });
    const { code, output } = await run("testssl", ["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1",
      "--add-ca", authority.ca, "--connect-timeout", "5", "--openssl-timeout", "5", "--jsonfile", report,
      "--protocols", "--fs", "--server-defaults", "--vulnerable", `localhost:${ports.tls}`], {}, { milliseconds: 150_000 });
    writeFileSync(path.join(artefacts, "testssl.log"), output);
    const findings = JSON.parse(readFileSync(report, "utf8"));
    const id = (finding) => finding.id.split(" ")[0];
    // It got to the end, and could look at what matters.
    for (const wanted of ["SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "cert_chain_of_trust", "heartbleed", "ROBOT", "secure_renego", "CRIME_TLS",
      "LUCKY13", "RC4", "scanTime"]) {
      assert.ok(findings.some((finding) => id(finding) === wanted && finding.severity !== "WARN"), `nothing about ${wanted}; ended with ${code}\n${output}`);
    }
    const grave = findings.filter((finding) => ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].includes(finding.severity) && !(id(finding) in allowed));
    assert.deepEqual(grave.map((finding) => `${finding.severity} ${finding.id}: ${finding.finding}`), []);
    const found = (name) => findings.find((finding) => id(finding) === name).finding;
    assert.match(found("TLS1"), /^not offered/);
    assert.match(found("TLS1_1"), /^not offered/);
    assert.match(found("TLS1_3"), /^offered/);
  });
});

describe("HTTP/2, stream by stream", () => {
  let sessions = [];
  const open = async (origin) => {
    const session = await connect(origin, authority.ca);
    sessions.push(session);
    return session;
  };
  after(() => sessions.forEach((session) => session.destroy()));

  for (const [line, origin] of [["TLS", secure], ["h2c", clear]]) {
    test(`a hundred at once on one connection, over ${line}`, async () => {
      const session = await open(origin());
      const answers = await Promise.all(Array.from({ length: 100 }, () => ask(session, "/api/hundred", { headers: { authorization: token() } })));
      for (const { status, body } of answers) assert.deepEqual([status, body], [200, "together\n"]);
    });

    test(`one that is cancelled is given up at the upstream, and the others go on, over ${line}`, async () => {
      const session = await open(origin());
      const target = `/api/${line}/hang`;
      let stream;
      const cancelled = assert.rejects(ask(session, target, { headers: { authorization: token() }, opened: (one) => (stream = one) }), /closed with 8/);
      await until("the request at the upstream", () => upstream.seen.includes(target));
      stream.close(http2.constants.NGHTTP2_CANCEL);
      await until("the upstream to be left alone", () => upstream.abandoned.includes(target), { milliseconds: 1000 });
      await cancelled;
      assert.equal((await ask(session, "/public/small")).body, "small\n");
    });

    test(`trailers of an answer arrive, over ${line}`, async () => {
      const { status, body, trailers } = await ask(await open(origin()), "/api/trailers", { headers: { authorization: token(), te: "trailers" } });
      assert.deepEqual([status, body, trailers["x-checksum"]], [200, "with trailers\n", "right"]);
    });
  }

  test("cookies that come one by one are one Cookie header, and a session in pieces is a session", async () => {
    const large = await signInOnServer(demo, "ada", { metadata: { bio: "à propos 🎫 ".repeat(500) } });
    assert.ok(large.names.length >= 3, `expected pieces, got ${large.names}`);
    const crumbs = ["theme=dark", ...large.cookie.split("; "), "locale=de"];
    const { status, body } = await ask(await open(secure()), "/api/echo", { headers: { cookie: crumbs } });
    assert.equal(status, 200, body);
    const echo = JSON.parse(body);
    assert.deepEqual(got(echo, "cookie"), ["theme=dark; locale=de"]);
    assert.deepEqual(got(echo, "authorization"), [`Bearer ${large.session.access_token}`]);
    assert.deepEqual(got(echo, "x-user-id"), [large.session.user.id]);
  });

  test("no answer has a header that belongs to a connection", async () => {
    const { headers } = await ask(await open(secure()), "/public/echo");
    for (const name of ["connection", "keep-alive", "transfer-encoding", "upgrade"]) assert.equal(headers[name], undefined, name);
  });

  test("a gateway that is told to stop says so, finishes what it has begun, and ends", async () => {
    const port = await freePort();
    const stopped = await startTollhouse("gateway-tls-stopped", (at) => opening(at, demo) + tlsListener(port, authority.first) + routes());
    const session = await connect(`https://127.0.0.1:${port}`, authority.ca);
    try {
      const goaway = new Promise((resolve) => session.once("goaway", resolve));
      const held = ask(session, "/public/stopping/held");
      await until("the request at the upstream", () => upstream.seen.includes("/public/stopping/held"));
      stopped.process.child.kill("SIGTERM");
      assert.equal(await goaway, http2.constants.NGHTTP2_NO_ERROR);
      upstream.release();
      assert.equal((await held).body, "released\n");
      assert.equal(await stopped.process.ended, 0, stopped.process.output);
    } finally {
      session.destroy();
      await stopped.process.stop();
    }
  });
});

describe("certificates that change", () => {
  let reloading, at, port, mapped;

  /** Puts a new file in the place of an old one, as a deployment does: nobody ever reads half of it. */
  const replace = (from, to) => {
    copyFileSync(from, `${to}.new`);
    renameSync(`${to}.new`, to);
  };
  /** A version of a ConfigMap: a folder of its own, and a link `..data` that is swapped in one step. */
  const publish = (version, pair) => {
    const folder = path.join(at, "map", `..${version}`);
    mkdirSync(folder, { recursive: true });
    copyFileSync(pair.cert, path.join(folder, "tls.crt"));
    copyFileSync(pair.key, path.join(folder, "tls.key"));
    symlinkSync(`..${version}`, path.join(at, "map", "..data_tmp"));
    renameSync(path.join(at, "map", "..data_tmp"), path.join(at, "map", "..data"));
  };
  const issue = (name) => authority.issue(name, "DNS:localhost", "IP:127.0.0.1");
  const serial = async (of) => (await served(of)).serial;
  const serialOf = (pair) => run("openssl", ["x509", "-noout", "-serial", "-in", pair.cert]).then(({ output }) => output.trim().replace("serial=", ""));
  /** Connects again and again until the certificate of `pair` is served; every single connection must succeed. */
  const becomes = async (of, pair) => {
    const wanted = await serialOf(pair);
    for (const deadline = Date.now() + 10_000; Date.now() < deadline; await pause(50)) {
      if ((await serial(of)) === wanted) return;
    }
    assert.fail(`not served within 10 s: ${pair.cert}\n${reloading.process.output.slice(-2000)}`);
  };

  /** A warning in the log, from a place in it on, that names this file. */
  const complaint = (from, name = "") => reloading.process.lines(from)
    .find(({ level, ...rest }) => /^(warn|error)$/i.test(level) && JSON.stringify(rest).includes(name));

  before(async () => {
    at = path.join(authority.folder, "reloaded");
    mkdirSync(path.join(at, "map"), { recursive: true });
    const first = issue("plain-1");
    replace(first.cert, path.join(at, "cert.pem"));
    replace(first.key, path.join(at, "key.pem"));
    publish("1", issue("map-1"));
    for (const file of ["tls.crt", "tls.key"]) symlinkSync(`..data/${file}`, path.join(at, "map", file));
    [port, mapped] = [await freePort(), await freePort()];
    const pairs = [{ cert: path.join(at, "cert.pem"), key: path.join(at, "key.pem") }, { cert: path.join(at, "map/tls.crt"), key: path.join(at, "map/tls.key") }];
    reloading = await startTollhouse("gateway-tls-reloading", (listen) =>
      opening(listen, demo) + tlsListener(port, pairs[0]) + tlsListener(mapped, pairs[1]) + routes());
  });
  after(() => reloading?.process.stop());

  for (const [way, of, change] of [
    ["files that are replaced", () => port, (pair) => { replace(pair.cert, path.join(at, "cert.pem")); replace(pair.key, path.join(at, "key.pem")); }],
    ["a ConfigMap that is swapped", () => mapped, (pair) => publish("2", pair)],
  ]) {
    test(`${way}: new connections get the new one, and the old ones go on`, async () => {
      const session = await connect(`https://127.0.0.1:${of()}`, authority.ca);
      try {
        const pair = issue(way.includes("ConfigMap") ? "map-2" : "plain-2");
        const held = ask(session, `/public/${of()}/held`);
        await until("the request at the upstream", () => upstream.seen.includes(`/public/${of()}/held`));
        change(pair);
        await becomes(of(), pair);
        upstream.release();
        assert.equal((await held).body, "released\n");
        assert.equal((await ask(session, "/public/small")).body, "small\n");
        assert.ok(!session.closed && !session.destroyed);
      } finally {
        session.destroy();
      }
    });
  }

  test("a certificate without its key changes nothing and is logged, until the key is there", async () => {
    const [old, next] = [await serial(port), issue("plain-3")];
    const said = reloading.process.output.length;
    replace(next.cert, path.join(at, "cert.pem"));
    await until("a complaint in the log", () => complaint(said, "cert.pem"));
    assert.equal(await serial(port), old);
    assert.equal((await curl(`https://127.0.0.1:${port}/public/small`)).body, "small\n");
    replace(next.key, path.join(at, "key.pem"));
    await becomes(port, next);
  });

  test("files that are gone change nothing", async () => {
    const old = await serial(port);
    const said = reloading.process.output.length;
    for (const file of ["cert.pem", "key.pem"]) rmSync(path.join(at, file));
    await until("a complaint in the log", () => complaint(said));
    assert.equal(await serial(port), old);
  });
});
