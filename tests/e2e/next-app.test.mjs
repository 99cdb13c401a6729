// A real Next.js application behind the gateway in every mode: pages, a route handler, a server action and code in the
// browser, with the session in cookies as Supabase's guide has it, or with the token that the gateway brings. Whoever
// renews a session, nobody is in another's way.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { launch, visitor } from "./support/browser.mjs";
import { opening, sessionTable } from "./support/configuration.mjs";
import { got, send } from "./support/http.mjs";
import { buildNext, startNext } from "./support/next.mjs";
import { startRedis, startTollhouse } from "./support/processes.mjs";
import { startProvider } from "./support/provider.mjs";
import { Jar } from "./support/supabase.mjs";

const ADA = "ada@example.com";
/** Seconds. Both the gateway and the library renew a session that has a minute left. */
const [LIFE, DUE] = [3600, 3540];

/** What the application is told in each: the session's cookies, a token, or both; and whether the browser's code sees them. */
const MODES = [
  { name: "shared, cookies", mode: "shared", forward: "cookies", cookies: true, bearer: false, visible: true },
  { name: "shared, both", mode: "shared", forward: "both", cookies: true, bearer: true, visible: true },
  { name: "shared, bearer", mode: "shared", forward: "bearer", cookies: false, bearer: true, visible: true },
  { name: "sealed", mode: "sealed", forward: "bearer", cookies: false, bearer: true, visible: false },
  { name: "stored", mode: "stored", forward: "bearer", cookies: false, bearer: true, visible: false },
];

let provider, redis, app, browser, rsc;
const gateways = new Map();

const configuration = ({ mode, forward }) => (addresses) => `
${opening(addresses, provider, `public_url = "http://${addresses.listen}"`, sessionTable(mode, redis))}
[upstreams.app]
url = "${app.origin}"

[[routes]]
path = "/*"
auth = "optional"
forward_session = "${forward}"

[[routes]]
path = ["/login", "/_next/static/*"]
auth = "public"
`;

before(async () => {
  provider = await startProvider();
  redis = await startRedis("next-redis");
  await buildNext();
  app = await startNext("next", provider);
  await Promise.all(MODES.map(async (mode) => gateways.set(mode, await startTollhouse(`next-${mode.name.replace(", ", "-")}`, configuration(mode)))));
  // Where the application's own navigations fetch what its page shows.
  rsc = (await send(app.origin, "/", { headers: { rsc: "1" } })).headers.location;
  browser = await launch();
}, { timeout: 300_000 });

after(async () => {
  await browser?.close();
  for (const gateway of gateways.values()) await gateway.process.stop();
  for (const started of [app, redis]) await started?.process.stop();
  await provider?.stop();
});

/** Somebody whose browser is at the pages of one gateway. */
class Person {
  constructor(mode, jar = new Jar()) {
    this.mode = mode;
    this.origin = gateways.get(mode).origin;
    this.jar = jar;
  }

  async ask(target, { method = "GET", headers = {}, body } = {}) {
    const ours = { "sec-fetch-site": "same-origin", ...(method === "POST" && { origin: this.origin }) };
    const cookie = this.jar.header && { cookie: this.jar.header };
    const answer = await send(this.origin, target, { method, headers: { ...ours, ...cookie, ...headers }, body });
    for (const line of answer.headers["set-cookie"] ?? []) this.jar.set(line);
    return answer;
  }

  /** Logs in with a token of which so many seconds of its life are over, or which lives only so long. */
  async logIn({ age = 0, life = LIFE } = {}) {
    Object.assign(provider, { age, life });
    try {
      const body = JSON.stringify({ email: ADA, password: provider.passwords[ADA] });
      const answer = await this.ask("/.auth/login", { method: "POST", headers: { "content-type": "application/json" }, body });
      assert.equal(answer.status, 200, answer.text);
      assert.ok(this.jar.names.length > 0);
    } finally {
      Object.assign(provider, { age: 0, life: LIFE });
    }
    return this;
  }
}

const shown = (answer, id) => new RegExp(`<p id="${id}">([^<]*)</p>`).exec(answer.text)?.[1];
const nobodyBut = (told) => (told ? ADA : "nobody");

const claims = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

/** Renewals that the provider refused. */
const refused = () => provider.refusals.filter((code) => code.startsWith("refresh_token"));

/** Who renewed what since `from`. */
const renewals = (from) => provider.refreshers.slice(from).map((client) => client.split("/")[0]);

for (const mode of MODES) {
  describe(mode.name, () => {
    test("nobody is nobody", async () => {
      const nobody = new Person(mode);
      for (const page of ["/", "/bearer"]) {
        const answer = await nobody.ask(page);
        assert.equal(answer.status, 200, answer.text);
        assert.equal(shown(answer, "email"), "nobody");
      }
      assert.deepEqual(nobody.jar.names, []);
    });

    test("a login at the gateway is one in the application", async () => {
      const ada = await new Person(mode).logIn();
      const from = provider.refreshers.length;
      assert.equal(shown(await ada.ask("/"), "email"), nobodyBut(mode.cookies));
      const page = await ada.ask("/bearer");
      assert.equal(shown(page, "email"), nobodyBut(mode.bearer));
      assert.match(shown(page, "user"), /^[0-9a-f-]{36}$/);
      const { json } = await ada.ask("/api/me", { headers: { cookie: `theme=dark; ${ada.jar.header}` } });
      assert.equal(json.email, mode.cookies ? ADA : null);
      assert.equal(got(json, "authorization").length, mode.bearer ? 1 : 0);
      const cookies = new Jar(got(json, "cookie").join("; ")).names;
      assert.deepEqual(cookies, mode.cookies ? ["theme", ...ada.jar.names] : ["theme"]);
      assert.deepEqual(renewals(from), []);
    });

    test("a session that is due is renewed once, by the gateway, and the application has the new one", async () => {
      const ada = await new Person(mode).logIn({ age: DUE });
      const [from, old] = [provider.refreshers.length, ada.jar.header];
      const targets = ["/", "/bearer", "/api/me", rsc];
      const answers = await Promise.all(Array.from({ length: 20 }, async (_, tab) => {
        const one = new Person(mode, new Jar(old));
        const target = targets[tab % targets.length];
        return { one, target, answer: await one.ask(target, target === rsc ? { headers: { rsc: "1" } } : {}) };
      }));
      for (const { one, target, answer } of answers) {
        assert.equal(answer.status, 200, `${target}: ${answer.text}`);
        if (target === "/") assert.equal(shown(answer, "email"), nobodyBut(mode.cookies));
        if (target === "/bearer") assert.equal(shown(answer, "email"), nobodyBut(mode.bearer));
        if (target === "/api/me") assert.equal(answer.json.email, mode.cookies ? ADA : null);
        if (target === rsc) assert.equal(answer.text.includes(ADA), mode.cookies);
        // An id stays what it is: what it stands for is new.
        assert.equal(one.jar.header === old, mode.mode === "stored", target);
        assert.match(answer.headers["cache-control"], /no-store/, target);
        const [token] = target === "/api/me" ? got(answer.json, "authorization") : [];
        if (token) assert.ok(claims(token).exp > Date.now() / 1000 + DUE - 60, target);
      }
      assert.deepEqual(renewals(from), ["tollhouse"]);
      const { one } = answers[0];
      for (const target of targets) assert.equal((await one.ask(target)).headers["set-cookie"], undefined, target);
      assert.deepEqual(renewals(from), ["tollhouse"]);
    });

    test("an application that renews the session itself goes on with it, where it has it", async () => {
      const ada = await new Person(mode).logIn();
      const [from, tab] = [provider.refreshers.length, new Person(mode, new Jar(ada.jar.header))];
      const renewed = await ada.ask("/api/renew", { method: "POST" });
      assert.equal(renewed.status, 200, renewed.text);
      assert.equal(renewed.json.email, mode.cookies ? ADA : null);
      assert.deepEqual(renewals(from), mode.cookies ? ["supabase-ssr"] : []);
      assert.equal(ada.jar.header === tab.jar.header, !mode.cookies, "its Set-Cookie passes");
      // The tab beside it has the cookies of before, and a token that still serves.
      for (const one of [ada, tab]) {
        assert.equal(shown(await one.ask("/"), "email"), nobodyBut(mode.cookies));
        assert.equal(shown(await one.ask("/bearer"), "email"), nobodyBut(mode.bearer));
      }
      assert.deepEqual(renewals(from), mode.cookies ? ["supabase-ssr"] : []);
      // Even its refresh token, which has been used, leads on.
      assert.equal((await tab.ask("/.auth/refresh", { method: "POST" })).status, 200);
      for (const one of [ada, tab]) assert.match(shown(await one.ask("/bearer"), "user"), /^[0-9a-f-]{36}$/);
      assert.deepEqual(refused(), []);
    });

    test("a session that is due when the application renews it by itself is renewed by both, one after the other", async () => {
      const ada = await new Person(mode).logIn({ age: DUE });
      const [from, old] = [provider.refreshers.length, ada.jar.header];
      const people = Array.from({ length: 8 }, () => new Person(mode, new Jar(old)));
      await Promise.all(people.map((one, tab) => (tab === 0 ? one.ask("/api/renew", { method: "POST" }) : one.ask("/"))));
      assert.deepEqual(renewals(from), mode.cookies ? ["tollhouse", "supabase-ssr"] : ["tollhouse"]);
      for (const one of people) {
        assert.equal((await one.ask("/.auth/session")).status, 200);
        assert.equal(shown(await one.ask("/"), "email"), nobodyBut(mode.cookies));
      }
      assert.deepEqual(renewals(from).length, mode.cookies ? 2 : 1);
      assert.deepEqual(refused(), []);
    });

    test("in a browser: the login page, the pages, their code and a server action", async () => {
      const { page, troubles, leave } = await visitor(browser);
      const { origin } = gateways.get(mode);
      const text = (selector) => page.locator(selector).textContent();
      const from = provider.refreshers.length;
      await page.goto(`${origin}/login`);
      await page.getByLabel("Email").fill(ADA);
      await page.getByLabel("Password").fill(provider.passwords[ADA]);
      await page.getByRole("button", { name: "Log in" }).click();
      await page.waitForURL(`${origin}/bearer`);
      assert.equal(await text("#email"), nobodyBut(mode.bearer));
      // A navigation inside the page: the application fetches what has changed.
      await page.getByRole("link", { name: "The other page" }).click();
      await page.getByRole("heading", { name: "Cookies" }).waitFor();
      assert.equal(await text("#email"), nobodyBut(mode.cookies));
      await page.locator("#by-gateway:not(:empty)").waitFor();
      assert.equal(await text("#by-gateway"), ADA);
      assert.equal(await text("#by-library"), nobodyBut(mode.visible));
      await page.getByRole("button", { name: "Greet" }).click();
      await page.waitForFunction(() => document.cookie.includes("greeted="));
      const cookies = await page.evaluate(() => document.cookie);
      assert.ok(cookies.includes(`greeted=${encodeURIComponent(nobodyBut(mode.cookies))}`), cookies);
      assert.equal(cookies.includes("sb-127-auth-token"), mode.visible, cookies);
      assert.deepEqual(renewals(from), []);
      assert.deepEqual(troubles, []);
      await leave();
    });
  });
}

test("a session that has ended at the provider ends everywhere, and the application does not hold on to it", async () => {
  const people = [];
  for (const mode of MODES) people.push(await new Person(mode).logIn({ life: 3 }));
  const over = Date.now() + 3_100;
  provider.endSessions();
  const from = provider.refreshers.length;
  await pause(over - Date.now());
  for (const ada of people) {
    const what = ada.mode.name;
    const answer = await ada.ask("/");
    assert.equal(answer.status, 200, `${what}: ${answer.text}`);
    assert.equal(shown(answer, "email"), "nobody", what);
    assert.deepEqual(ada.jar.names, [], what);
    assert.equal(shown(await ada.ask("/bearer"), "user"), "nobody", what);
  }
  assert.ok(renewals(from).every((client) => client === "tollhouse"), renewals(from).join());
});

test("the application has complained of nothing", () => {
  assert.doesNotMatch(app.process.output, /⨯|error/i);
});
