// Chromium at the door: HTTP/2 over TLS, a page behind the gateway, its session's cookie, and WebSockets.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, test } from "node:test";
import { launch } from "./support/browser.mjs";
import { artefacts, freePort, startDemo, startPython, startTollhouse, until } from "./support/processes.mjs";
import { got } from "./support/http.mjs";
import { signInOnServer } from "./support/supabase.mjs";
import { makeAuthority } from "./support/certificates.mjs";
import { opening, tlsListener } from "./support/configuration.mjs";
import { startUpstream } from "./support/upstream.mjs";

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>A page behind the gateway</title>
<style>body { font: 1.1rem/1.5 sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }</style>
<h1>A page behind the gateway</h1>
<dl>
  <dt>This page came over</dt><dd id="protocol"></dd>
  <dt>A protected route answers</dt><dd id="fetched"></dd>
  <dt>The WebSocket says</dt><dd id="socket"></dd>
</dl>
<script>
  const show = (id, text) => { document.getElementById(id).textContent = text; };
  show("protocol", performance.getEntriesByType("navigation")[0].nextHopProtocol);
  // Says something and gives the echo, or how the connection failed.
  window.talk = (url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    const events = [];
    socket.onopen = () => { events.push("open"); socket.send("hello from the page"); };
    socket.onmessage = ({ data }) => { events.push(data); socket.close(1000, "enough"); };
    socket.onclose = ({ code }) => resolve([...events, code]);
  });
</script>
`;

let demo, upstream, sockets, authority, gateway, ports, browser, ada;

before(async () => {
  demo = await startDemo("demo-browser-tls");
  upstream = await startUpstream({ "/": PAGE });
  sockets = await startPython("ws-server-browser", "ws_server.py");
  authority = makeAuthority();
  const pair = authority.issue("localhost", "DNS:localhost", "IP:127.0.0.1");
  ports = { ours: await freePort(), other: await freePort() };
  gateway = await startTollhouse("gateway-browser-tls", (at) => `${opening(at, demo)}
[log]
format = "json"

${tlsListener(ports.ours, pair)}
${tlsListener(ports.other, pair)}
[upstreams.pages]
url = "${upstream.origin}"

[upstreams.sockets]
url = "${sockets.origin}"

[[routes]]
path = "/"
upstream = "pages"
auth = "public"

[[routes]]
path = "/api/*"
upstream = "pages"

[[routes]]
path = "/ws/*"
upstream = "sockets"
`);
  ada = await signInOnServer(demo, "ada");
  browser = await launch();
});

after(async () => {
  await browser?.close();
  for (const started of [gateway, sockets, demo]) await started?.process.stop();
  upstream?.stop();
  authority?.remove();
});

const ours = () => `https://localhost:${ports.ours}`;
const other = () => `https://localhost:${ports.other}`;

/** A page at `origin` in a browser that has Ada's session; cookies know no ports, so every port of this host has it. */
async function visit(origin) {
  const context = await browser.newContext({ viewport: { width: 800, height: 500 }, ignoreHTTPSErrors: true });
  context.setDefaultTimeout(15_000);
  await context.addCookies(ada.cookie.split("; ").map((pair) => {
    const [name, value] = [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)];
    return { name, value, domain: "localhost", path: "/", secure: true, httpOnly: false, sameSite: "Lax" };
  }));
  const page = await context.newPage();
  const answer = await page.goto(`${origin}/`);
  assert.equal(answer.status(), 200);
  return { page, context };
}

const talk = (page, url) => page.evaluate((to) => window.talk(to), url);

test("a page comes over HTTP/2, and its requests and WebSockets carry the session", async () => {
  const { page, context } = await visit(ours());
  try {
    assert.equal(await page.locator("#protocol").textContent(), "h2");
    const { status, echo, protocol } = await page.evaluate(async () => {
      const response = await fetch("/api/echo");
      const fetched = { status: response.status, echo: await response.json() };
      document.getElementById("fetched").textContent = String(response.status);
      return { ...fetched, protocol: performance.getEntriesByName(new URL("/api/echo", location).href)[0].nextHopProtocol };
    });
    assert.deepEqual([status, protocol], [200, "h2"]);
    assert.deepEqual(got(echo, "authorization"), [`Bearer ${ada.session.access_token}`]);
    assert.deepEqual(got(echo, "x-user-id"), [ada.session.user.id]);
    assert.deepEqual(got(echo, "cookie"), []);

    const heard = await talk(page, `wss://localhost:${ports.ours}/ws/echo`);
    assert.deepEqual(heard, ["open", "hello from the page", 1000]);
    await page.locator("#socket").evaluate((element, text) => (element.textContent = text), heard[1]);
    await page.screenshot({ path: path.join(artefacts, "browser-tls.png") });
  } finally {
    await context.close();
  }
});

test("a request that changes something is let in from our page and not from another", async () => {
  for (const [origin, status] of [[ours(), 200], [other(), 403]]) {
    const { page, context } = await visit(origin);
    try {
      const seen = upstream.seen.length;
      const post = (url) => fetch(url, { method: "POST", credentials: "include", mode: "no-cors" }).then((response) => response.type);
      const found = await page.evaluate(post, `${ours()}/api/echo`);
      assert.equal(found, status === 200 ? "basic" : "opaque");
      assert.equal(upstream.seen.slice(seen).includes("/api/echo"), status === 200);
    } finally {
      await context.close();
    }
  }
});

test("a page from elsewhere, whose browser sends the cookie along, gets no WebSocket", async () => {
  const { page, context } = await visit(other());
  try {
    // Its own is open to it: the cookie is there, and so is the way.
    assert.deepEqual(await talk(page, `wss://localhost:${ports.other}/ws/echo`), ["open", "hello from the page", 1000]);
    const said = gateway.process.output.length;
    assert.deepEqual(await talk(page, `wss://localhost:${ports.ours}/ws/echo`), [1006]);
    const refusal = await until("the refusal in the log", () =>
      gateway.process.lines(said).find(({ msg, path: to, status }) => msg === "request" && to === "/ws/echo" && status !== 101));
    assert.deepEqual([refusal.status, refusal.code], [403, "csrf_rejected"]);
  } finally {
    await context.close();
  }
});
