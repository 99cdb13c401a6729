// Sessions of the real @supabase/ssr that get old in front of three gateways, which know nothing of each other: renewed in
// one exchange, read by the real library afterwards, and over only when the provider says so.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { createServerClient, parseCookieHeader, serializeCookieHeader } from "@supabase/ssr";
import { opening } from "./support/configuration.mjs";
import { got, send } from "./support/http.mjs";
import { startTollhouse } from "./support/processes.mjs";
import { startProvider } from "./support/provider.mjs";
import { Jar, signInInBrowser, signInOnServer } from "./support/supabase.mjs";
import { startUpstream } from "./support/upstream.mjs";

/** Seconds. A fifth of it is when a session is renewed at the earliest. */
const LIFE = 10;
const HOUR = 3600;
/** Several pieces in every encoding, and still within the 16 KiB of a head that Node's client reads. */
const profile = { bio: "à propos 🎫 ".repeat(200), quote: '"%22"; path=/' };

let provider, upstream, gateways, forms, storm, leaver;

const configuration = (addresses) => `${opening(addresses, provider)}
[upstreams.app]
url = "${upstream.origin}"

[[routes]]
path = "/*"
`;

/** Signs somebody in whose token lives for `life` seconds; everybody's later ones live for an hour. */
async function person(user, signIn = signInOnServer, encoding = "base64url", life = LIFE) {
  provider.life = life;
  try {
    const { cookie, names, session } = await signIn(provider, user, { encoding });
    return { user, encoding, names, session, jar: new Jar(cookie), life, until: session.expires_at * 1000 };
  } finally {
    provider.life = HOUR;
  }
}

before(async () => {
  provider = await startProvider();
  upstream = await startUpstream();
  gateways = await Promise.all([1, 2, 3].map((n) => startTollhouse(`refresh-${n}`, configuration)));
  for (const user of ["large", "shrinking", "growing"]) provider.profiles.set(user, profile);
  provider.profiles.delete("growing");
  forms = [];
  for (const [where, signIn] of [["server", signInOnServer], ["browser", signInInBrowser]]) {
    for (const encoding of ["base64url", "raw"]) {
      for (const user of ["small", "large", "shrinking", "growing"]) forms.push({ where, ...(await person(user, signIn, encoding)) });
    }
  }
  provider.profiles.delete("shrinking");
  provider.profiles.set("growing", profile);
  storm = await person("storm");
  leaver = await person("leaver");
});

after(async () => {
  for (const gateway of gateways ?? []) await gateway.process.stop();
  upstream?.stop();
  await provider?.stop();
});

const ask = (gateway, cookie) => send(gateway.origin, "/echo", { headers: { cookie } });

/** What a browser does with an answer. */
function take(jar, answer) {
  const lines = answer.headers["set-cookie"] ?? [];
  lines.forEach((line) => jar.set(line));
  return lines;
}

const token = (answer) => got(answer.json, "authorization").join().replace(/^Bearer /, "");

/** The real library of a server on this jar. */
function library({ jar, encoding }) {
  const written = [];
  const { auth } = createServerClient(provider.origin, provider.key, {
    cookieEncoding: encoding,
    cookies: {
      getAll: () => parseCookieHeader(jar.header),
      setAll: (cookies) => cookies.forEach(({ name, value, options }) => {
        written.push(name);
        jar.set(serializeCookieHeader(name, value, options));
      }),
    },
  });
  return { auth, written };
}

/** Waits until a session is due, and its token still serves for a while. */
const due = ({ until, life }) => pause(Math.max(0, until - (life / 5) * 1000 + 50 - Date.now()));
/** Waits until its token is over. */
const over = ({ until }) => pause(Math.max(0, until + 50 - Date.now()));

/** Asks nobody about user objects that are looked at. */
async function quietly(work) {
  const warn = console.warn;
  console.warn = () => {};
  try {
    return await work();
  } finally {
    console.warn = warn;
  }
}

test("a session that is not due is left alone", async () => {
  const answer = await ask(gateways[0], storm.jar.header);
  assert.equal(answer.status, 200, answer.text);
  assert.equal(answer.headers["set-cookie"], undefined);
  assert.equal(token(answer), storm.session.access_token);
  assert.deepEqual(provider.refreshed, []);
});

test("every cookie form is renewed in one exchange, read by the library, and renewed further by it", async () => {
  await due(forms.at(-1));
  for (const [index, form] of forms.entries()) {
    const what = `${form.where} client, ${form.encoding}, ${form.user}`;
    const pieces = form.names.length;
    assert.equal(pieces > 1, form.user === "large" || form.user === "shrinking", `${what}: ${form.names}`);
    const calls = provider.refreshed.length;
    const answer = await ask(gateways[index % 3], form.jar.header);
    assert.equal(answer.status, 200, `${what}: ${answer.text}`);
    assert.deepEqual(provider.refreshed.slice(calls), [form.session.refresh_token], what);
    assert.deepEqual(got(answer.json, "x-user-id"), [form.session.user.id], what);
    assert.notEqual(token(answer), form.session.access_token, what);
    assert.match(answer.headers["cache-control"], /no-store/, what);
    assert.ok(take(form.jar, answer).length > 0, what);
    assert.equal(form.jar.names.length > 1, form.user === "large" || form.user === "growing", `${what}: ${form.jar.names}`);

    await quietly(async () => {
      const { auth, written } = library(form);
      const { data: { session } } = await auth.getSession();
      assert.equal(session?.access_token, token(answer), what);
      assert.equal(session.user.id, form.session.user.id, what);
      assert.deepEqual(session.user.user_metadata, provider.profiles.get(form.user) ?? { name: "à propos 🎫" }, what);
      const { data, error } = await auth.getClaims();
      assert.equal(error, null, what);
      assert.equal(data.claims.sub, form.session.user.id, what);
      assert.deepEqual([written, provider.refreshed.length], [[], calls + 1], `${what}: reading is not renewing`);

      const renewed = await auth.refreshSession();
      assert.equal(renewed.error, null, what);
      await auth.dispose();
      assert.ok(written.length > 0, what);
      const next = await ask(gateways[(index + 1) % 3], form.jar.header);
      assert.equal(next.status, 200, `${what}: ${next.text}`);
      assert.equal(token(next), renewed.data.session.access_token, what);
      assert.equal(next.headers["set-cookie"], undefined, what);
    });
  }
  assert.deepEqual(provider.refusals, []);
});

test("twenty tabs on three gateways with one due cookie: nobody is logged out, and every answer's session goes on", async () => {
  await over(storm);
  const old = storm.jar.header;
  const calls = provider.refreshed.length;
  const answers = await Promise.all(Array.from({ length: 20 }, (_, tab) => ask(gateways[tab % 3], old)));
  for (const answer of answers) {
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(got(answer.json, "x-user-id"), [storm.session.user.id]);
    const one = new Jar(old);
    assert.ok(take(one, answer).length > 0);
    const later = await ask(gateways[2], one.header);
    assert.equal(later.status, 200, later.text);
    assert.equal(token(later), token(answer), "the browser has the session that the upstream was told of");
  }
  // The jar of the tabs, whichever answer came last.
  for (const answer of answers.toReversed()) take(storm.jar, answer);
  for (const gateway of gateways) assert.equal((await ask(gateway, storm.jar.header)).status, 200);
  const made = provider.refreshed.slice(calls);
  assert.deepEqual([...new Set(made)], [storm.session.refresh_token]);
  assert.ok(made.length <= 3, `one call for each gateway, not ${made.length}`);
  await quietly(async () => {
    const { auth } = library(storm);
    assert.equal((await auth.refreshSession()).error, null);
    await auth.dispose();
  });
  assert.deepEqual(provider.refusals, []);
});

test("a provider that goes away costs nothing while the token serves, a 503 when it is over, and no session", async () => {
  // A request waits two seconds for what it can do without: they must end before its token does.
  const outage = await person("outage", signInOnServer, "base64url", 15);
  await due(outage);
  await provider.stop();
  let back = false;
  try {
    const serving = await ask(gateways[0], outage.jar.header);
    assert.equal(serving.status, 200, serving.text);
    assert.equal(serving.headers["set-cookie"], undefined);
    assert.equal(token(serving), outage.session.access_token);
    await over(outage);
    for (const gateway of gateways.slice(0, 2)) {
      const answer = await ask(gateway, outage.jar.header);
      assert.equal(answer.status, 503, answer.text);
      assert.equal(answer.json.code, "auth_unavailable");
      assert.ok(Number(answer.headers["retry-after"]) >= 1);
      assert.equal(answer.headers["set-cookie"], undefined);
    }
    await provider.comeBack();
    back = true;
  } finally {
    if (!back) await provider.comeBack();
  }
  await pause(1_100);
  for (const gateway of gateways) {
    const answer = await ask(gateway, outage.jar.header);
    assert.equal(answer.status, 200, answer.text);
    take(outage.jar, answer);
  }
  const { auth, written } = library(outage);
  assert.equal((await auth.getSession()).data.session?.refresh_token.length, 12);
  await auth.dispose();
  assert.deepEqual(written, []);
  assert.deepEqual(provider.refusals, []);
});

test("a logout at the provider ends the session when its token is over, and the library finds it gone", async () => {
  const { auth } = library({ jar: new Jar(leaver.jar.header), encoding: "base64url" });
  // Long over by now: the library renews it and leaves. The browser still has the cookies of before.
  assert.equal((await auth.signOut({ scope: "local" })).error, null);
  await auth.dispose();
  leaver.jar.set("theme=dark");
  for (const gateway of gateways) {
    const jar = new Jar(leaver.jar.header);
    const answer = await ask(gateway, jar.header);
    assert.equal(answer.status, 401, answer.text);
    assert.equal(answer.json.code, "session_expired");
    const lines = take(jar, answer);
    assert.ok(lines.length > 0 && lines.every((line) => /max-age=0/i.test(line)), lines.join("\n"));
    assert.deepEqual(jar.names, ["theme"]);
    const gone = library({ jar, encoding: "base64url" });
    assert.equal((await gone.auth.getSession()).data.session, null);
    await gone.auth.dispose();
    assert.deepEqual(gone.written, []);
    assert.equal((await ask(gateway, jar.header)).json.code, "missing_credentials");
  }
  assert.deepEqual(new Set(provider.refusals), new Set(["refresh_token_not_found"]));
});
