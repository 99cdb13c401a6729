// Sessions in a browser, in every mode, over https: what a page's own scripts can see of them, logins with a form, elsewhere
// and with the link of a message, and what pages of other origins can do, which is nothing. Screenshots of the page behind
// that link go to artefacts/, for eyes.

import assert from "node:assert/strict";
import https from "node:https";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { faintTexts, launch, visitor } from "./support/browser.mjs";
import { makeAuthority } from "./support/certificates.mjs";
import { opening, sessionTable, tlsListener } from "./support/configuration.mjs";
import { got } from "./support/http.mjs";
import { artefacts, freePort, startRedis, startTollhouse, until } from "./support/processes.mjs";
import { startProvider } from "./support/provider.mjs";
import { claimsOnServer } from "./support/supabase.mjs";
import { startUpstream } from "./support/upstream.mjs";

const MODES = ["shared", "sealed", "stored"];
const PHONE = { width: 360, height: 740 };
const DESK = { width: 1280, height: 800 };
const PASSWORD = "correct-horse-9";

const html = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}`;
const field = (name, value) => `<label>${name} <input name="${name}" value="${value ?? ""}"></label>`;

const PAGES = {
  "/": html("Home", ""),
  "/account": html("Account", ""),
  "/login": html("Login", `<form method="post" action="/.auth/login">
    ${field("email")}${field("password")}<input type="hidden" name="return_to" value="/account"><button>Log in</button></form>
    <form method="post" action="/.auth/otp">${field("address").replace('name="address"', 'name="email"')}
    <input type="hidden" name="return_to" value="/"><button>Send me a link</button></form>
    <a href="/.auth/login?provider=github&amp;return_to=/account%3Ftab%3D2">With GitHub</a>`),
};

let provider, redis, upstream, authority, strangers, browser;
/** By mode: the process, and where browsers find it. */
const houses = {};

const configuration = (mode, port, pair) => (addresses) => `
${opening(addresses, provider, `public_url = "https://app.test:${port}"`, sessionTable(mode, redis))}
${tlsListener(port, pair)}
# The tests log in more often than people do.
[rate_limits.logins]
rate = "off"
applies_to = "login"

[upstreams.app]
url = "${upstream.origin}"

[[routes]]
path = ["/", "/login", "/favicon.ico"]
auth = "public"

[[routes]]
path = ["/account", "/echo"]
`;

before(async () => {
  provider = await startProvider();
  provider.profiles.set("large", { bio: "à propos 🎫 ".repeat(300) });
  redis = await startRedis("browser-session-redis");
  upstream = await startUpstream(PAGES);
  authority = makeAuthority();
  const pair = authority.issue("app.test", "DNS:app.test", "DNS:evil.test");
  await Promise.all(MODES.map(async (mode) => {
    const port = await freePort();
    const started = await startTollhouse(`browser-session-${mode}`, configuration(mode, port, pair));
    houses[mode] = { process: started.process, origin: `https://app.test:${port}` };
    provider.redirects.push(`https://app.test:${port}/.auth/callback`);
  }));
  strangers = await startStrangers(pair);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  for (const started of [...Object.values(houses), redis]) await started?.process.stop();
  strangers?.stop();
  upstream?.stop();
  authority?.remove();
  await provider?.stop();
});

/** Pages of other origins, of our own site and of another one, that try what they can against the origin in their query. */
async function startStrangers({ cert, key }) {
  const page = (origin) => {
    const form = (id, target, fields) => `<form id="${id}" method="post" action="${origin}/.auth/${target}">
      ${Object.entries(fields).map(([name, value]) => field(name, value)).join("")}<button>${id}</button></form>`;
    return html("A stranger's page", [
      form("log-in", "login", { email: "mallory@example.com", password: PASSWORD }),
      form("confirm", "verify", { type: "email", token_hash: provider.mails.get("mallory@example.com") }),
      form("log-out", "logout", {}), form("refresh", "refresh", {}),
    ].join(""));
  };
  const server = https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (request, response) => {
    const { searchParams } = new URL(request.url, "https://stranger");
    response.setHeader("content-type", "text/html; charset=utf-8").end(page(searchParams.get("against")));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  return {
    neighbour: `https://app.test:${port}`,
    foreigner: `https://evil.test:${port}`,
    stop() { server.close(); server.closeAllConnections(); },
  };
}

/** Somebody at the pages of one gateway. */
async function visit(mode, options) {
  const visit = await visitor(browser, options);
  const { origin } = houses[mode];
  const { page, context } = visit;
  return {
    ...visit,
    origin,
    /** The browser's cookies for us, whoever may see them. */
    cookies: () => context.cookies(origin),
    /** A request by a script of the page: status, and JSON where it is some. */
    fetch: (target, init) => page.evaluate(async ([target, init]) => {
      const answer = await fetch(target, init);
      const text = await answer.text();
      return { status: answer.status, text, json: /json/.test(answer.headers.get("content-type")) ? JSON.parse(text) : null };
    }, [target, init]),
    /** Logs in as a script of the page does. */
    async logIn(user) {
      await page.goto(`${origin}/`);
      const body = JSON.stringify({ email: `${user}@example.com`, password: PASSWORD });
      return this.fetch("/.auth/login", { method: "POST", headers: { "content-type": "application/json" }, body });
    },
    async whoAmI() {
      const { status, json } = await this.fetch("/.auth/session");
      return status === 200 ? json.user.email : status;
    },
  };
}

/** Everything that the page's scripts can read without asking. */
const seen = (page) => page.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }, document.documentElement.outerHTML, location.href]));

/** Nothing of a token, in whatever way it may be wrapped. */
function assertNoToken(text, what) {
  const parts = [text, ...text.split(/[^A-Za-z0-9_+/-]+/).map((part) => Buffer.from(part.replace(/^base64-/, ""), "base64url").toString("latin1"))];
  for (const part of parts) assert.doesNotMatch(part, /eyJhbGciOi|access_token|refresh_token/, what);
}

for (const mode of MODES) {
  const visible = mode === "shared";

  describe(mode, () => {
    for (const user of ["small", "large"]) {
      test(`a login by a script, ${user}: what scripts see of it, and where it leads`, async () => {
        const { page, leave, troubles, ...visitor } = await visit(mode);
        const answer = await visitor.logIn(user);
        assert.equal(answer.status, 200, answer.text);
        assert.equal(answer.json.user.email, `${user}@example.com`);
        assertNoToken(answer.text, "the answer");
        const cookies = await visitor.cookies();
        for (const cookie of cookies) {
          assert.equal(cookie.httpOnly, !visible, cookie.name);
          assert.equal(cookie.sameSite, "Lax", cookie.name);
          assert.equal(cookie.path, "/", cookie.name);
          assert.equal(cookie.domain, "app.test", cookie.name);
        }
        const readable = await page.evaluate(() => document.cookie);
        if (visible) {
          assert.ok(cookies.every(({ name }) => name.startsWith("sb-127-auth-token")));
          assert.equal(cookies.length > 1, user === "large");
          const claims = await claimsOnServer(provider, readable);
          assert.equal(claims.email, `${user}@example.com`, "the library reads what a page's scripts see");
          assert.throws(() => assertNoToken(readable));
        } else {
          assert.equal(readable, "");
          assert.ok(cookies.length > 0 && cookies.every(({ name, secure }) => secure && name.startsWith("__Host-tollhouse")));
          for (const { value } of cookies) assertNoToken(value, "the cookie");
          assertNoToken(await seen(page), "the page");
        }
        const { json: echo } = await visitor.fetch("/echo");
        assert.match(got(echo, "authorization").join(), /^Bearer eyJ/);
        assert.deepEqual(got(echo, "cookie"), []);
        assert.equal(await visitor.whoAmI(), `${user}@example.com`);

        assert.equal((await visitor.fetch("/.auth/logout", { method: "POST" })).status, 204);
        assert.deepEqual(await visitor.cookies(), []);
        assert.equal((await visitor.fetch("/echo")).status, 401);
        assert.equal(await visitor.whoAmI(), 401);
        assert.deepEqual(troubles, []);
        await leave();
      });
    }

    test("a login with a form, in a browser without scripts", async () => {
      const { page, leave, ...visitor } = await visit(mode, { javaScriptEnabled: false });
      await page.goto(`${visitor.origin}/login`);
      const logIn = async (password) => {
        await page.getByLabel("email").fill("ada@example.com");
        await page.getByLabel("password").fill(password);
        const [answer] = await Promise.all([page.waitForNavigation(), page.getByRole("button", { name: "Log in" }).click()]);
        return answer;
      };
      assert.equal((await logIn("wrong")).status(), 401);
      assert.deepEqual(await visitor.cookies(), []);
      assert.match(await page.locator("body").textContent(), /Nobody can be signed in/);
      await page.goBack();
      assert.equal((await logIn(PASSWORD)).url(), `${visitor.origin}/account`);
      assert.equal(await page.getByRole("heading").textContent(), "Account");
      assert.ok((await visitor.cookies()).length > 0);
      await leave();
    });

    test("a login elsewhere comes back to where it began, once, in this browser", async () => {
      const { page, leave, troubles, ...visitor } = await visit(mode);
      await page.goto(`${visitor.origin}/login`);
      const opened = provider.opened;
      await page.getByRole("link", { name: "With GitHub" }).click();
      await page.getByRole("heading", { name: "Log in with github" }).waitFor();
      const attempts = await visitor.cookies();
      assert.equal(attempts.length, 1);
      assert.ok(attempts[0].name.startsWith("__Host-tollhouse-login-") && attempts[0].httpOnly && attempts[0].secure);
      const back = await page.getByRole("link", { name: "Yes" }).getAttribute("href");

      // Whoever is sent the way back has begun nothing, and the code is not spent by it.
      const other = await visit(mode);
      const refused = await other.page.goto(back);
      assert.equal(refused.status(), 400);
      assert.deepEqual(await other.cookies(), []);
      await other.leave();
      assert.equal(provider.opened, opened);

      await page.getByRole("link", { name: "Yes" }).click();
      await page.waitForURL(`${visitor.origin}/account?tab=2`);
      assert.equal(await visitor.whoAmI(), "octo@example.com");
      assert.ok((await visitor.cookies()).every(({ name }) => !name.includes("login")), "the attempt is over");
      if (!visible) assertNoToken(await seen(page), "the page");
      assert.equal(provider.opened, opened + 1);

      // The same way once more.
      assert.equal((await page.goto(back)).status(), 400);
      await page.goto(`${visitor.origin}/`);
      assert.equal(await visitor.whoAmI(), "octo@example.com");
      assert.equal(provider.opened, opened + 1);
      assert.deepEqual(troubles, []);
      await leave();
    });

    test("who declines elsewhere is back at the login page", async () => {
      const { page, leave, ...visitor } = await visit(mode);
      await page.goto(`${visitor.origin}/.auth/login?provider=github&return_to=https://evil.test/`);
      await page.getByRole("link", { name: "No" }).click();
      await page.waitForURL(`${visitor.origin}/login?error=access_denied`);
      assert.equal(await visitor.whoAmI(), 401);
      // A page that nobody may be sent to is none to return to.
      await page.goto(`${visitor.origin}/.auth/login?provider=github&return_to=https://evil.test/`);
      await page.getByRole("link", { name: "Yes" }).click();
      await page.waitForURL(`${visitor.origin}/`);
      await leave();
    });

    test("the link of a message opens a page, and its button logs in", async () => {
      const { page, leave, troubles, ...visitor } = await visit(mode);
      await page.goto(`${visitor.origin}/login`);
      await page.getByLabel("address").fill("ada@example.com");
      await page.getByRole("button", { name: "Send me a link" }).click();
      await page.waitForURL(`${visitor.origin}/`);
      const opened = provider.opened;
      const link = `${visitor.origin}/.auth/confirm?token_hash=${provider.mails.get("ada@example.com")}&type=email&return_to=/account`;
      await page.goto(link);
      await page.reload();
      assert.equal(provider.opened, opened, "looking spends nothing");
      assert.deepEqual(await visitor.cookies(), []);
      // With the keyboard: the button is the first thing on the page.
      await page.keyboard.press("Tab");
      assert.equal(await page.evaluate(() => document.activeElement.textContent), "Sign in");
      await page.keyboard.press("Enter");
      await page.waitForURL(`${visitor.origin}/account`);
      assert.equal(await visitor.whoAmI(), "ada@example.com");
      assert.equal(provider.opened, opened + 1);

      await page.goto(link);
      const [again] = await Promise.all([page.waitForNavigation(), page.getByRole("button").click()]);
      assert.equal(again.status(), 401);
      await page.goto(`${visitor.origin}/`);
      assert.equal(await visitor.whoAmI(), "ada@example.com", "and who was there is there");
      assert.deepEqual(troubles, []);
      await leave();
    });

    test("a page of another origin logs nobody in or out", async () => {
      const { page, leave, ...visitor } = await visit(mode);
      provider.mails.set("mallory@example.com", "feedc0de");
      const strange = async (stranger, forms, session) => {
        const before = { cookies: await visitor.cookies(), opened: provider.opened, refreshed: provider.refreshed.length };
        const from = houses[mode].process.output.length;
        for (const id of forms) {
          await page.goto(`${strangers[stranger]}/?against=${encodeURIComponent(visitor.origin)}`);
          const [answer] = await Promise.all([page.waitForNavigation(), page.getByRole("button", { name: id }).click()]);
          assert.equal(answer.url().startsWith(visitor.origin), true);
          assert.equal(answer.status(), 403, `${stranger}: ${id}`);
          assert.match(await page.locator("body").textContent(), /csrf_rejected/, `${stranger}: ${id}`);
        }
        await page.goto(`${strangers[stranger]}/`);
        // What a script can send without being asked for permission first.
        await page.evaluate(async ([origin, password]) => {
          const body = JSON.stringify({ email: "mallory@example.com", password });
          const send = (target) => fetch(`${origin}/.auth/${target}`, { method: "POST", mode: "no-cors", credentials: "include", body }).catch(() => {});
          for (const target of ["login", "logout", "refresh"]) await send(target);
        }, [visitor.origin, PASSWORD]);
        // Nor is a login elsewhere begun in a frame or an image.
        await page.evaluate((origin) => Promise.all(["iframe", "img"].map((tag) => new Promise((resolve) => {
          const element = document.createElement(tag);
          element.onload = element.onerror = resolve;
          element.src = `${origin}/.auth/login?provider=github`;
          document.body.append(element);
        }))), visitor.origin);
        const now = { cookies: await visitor.cookies(), opened: provider.opened, refreshed: provider.refreshed.length };
        assert.deepEqual(now, before, stranger);
        // Every one of them was here, and was told no.
        const told = (code) => houses[mode].process.lines(from).filter((line) => line.msg === "request" && line.code === code).length;
        await until("the log", () => told("csrf_rejected") === forms.length + 3 && told("bad_request") === 2);
        await page.goto(`${visitor.origin}/`);
        assert.equal(await visitor.whoAmI(), session);
      };
      // The site is the same, so its requests bring the cookie.
      await strange("neighbour", ["log-in", "confirm"], 401);
      assert.equal((await visitor.logIn("ada")).status, 200);
      await strange("neighbour", ["log-in", "confirm", "log-out", "refresh"], "ada@example.com");
      await strange("foreigner", ["log-in", "log-out"], "ada@example.com");
      await leave();
    });
  });
}

describe("how the page behind a link looks", () => {
  for (const [device, viewport] of [["phone", PHONE], ["desk", DESK]]) {
    for (const colorScheme of ["light", "dark"]) {
      test(`${device}, ${colorScheme}`, async () => {
        const { page, leave, troubles, origin } = await visit("sealed", { viewport, colorScheme });
        for (const type of ["email", "recovery", "invite"]) {
          await page.goto(`${origin}/.auth/confirm?token_hash=ab12&type=${type}`);
          await page.keyboard.press("Tab");
          await page.screenshot({ path: path.join(artefacts, `confirm-${device}-${colorScheme}-${type}.png`) });
          assert.deepEqual(await page.evaluate(faintTexts), [], `${type}: contrast`);
          assert.ok(!(await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth)), `${type} scrolls sideways`);
          const { width, height } = await page.getByRole("button").boundingBox();
          assert.ok(width >= 44 && height >= 44, `${type}: a thumb finds the button`);
        }
        assert.deepEqual(troubles, []);
        await leave();
      });
    }
  }
});
