// The page of `tollhouse demo` as people meet it: in a browser, as nobody, as Ada, as Grace and as somebody new.
// Screenshots go to artefacts/, for eyes.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { chromium } from "playwright-core";
import { artefacts, startDemo } from "./support/processes.mjs";

const PHONE = { width: 360, height: 740 };
const DESK = { width: 1280, height: 800 };
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

let demo, browser;

before(async () => {
  demo = await startDemo("demo-page");
  // A fresh profile each time; the flags keep a browser in a container quiet and on this machine.
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server"],
  });
});

after(async () => {
  await browser?.close();
  await demo?.process.stop();
});

/** A visitor with a browser of their own. */
async function visit({ viewport = DESK, colorScheme = "light" } = {}) {
  const context = await browser.newContext({ viewport, colorScheme, reducedMotion: "reduce" });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  const troubles = [];
  page.on("pageerror", (error) => troubles.push(String(error)));
  // The browser itself notes each refusal ("Failed to load resource"); nothing else may be said.
  page.on("console", (message) => { if (!/^Failed to load resource/.test(message.text())) troubles.push(message.text()); });
  await page.goto(demo.origin);
  assert.deepEqual(troubles, [], "the page starts");

  return {
    page,
    async logIn(user, password = demo.passwords[user]) {
      await page.getByRole("radio", { name: new RegExp(user, "i") }).check({ force: true });
      await page.getByLabel("Password").fill(password);
      await page.getByRole("button", { name: "Log in" }).click();
    },
    /** Presses one of the request buttons; gives what the page then shows. */
    async press(title) {
      await page.locator("#requests button", { hasText: title }).click();
      await page.locator("#result:not([aria-busy])").waitFor();
      return page.locator("#outcome").evaluate((outcome) => {
        const headers = (pane) => [...(pane?.querySelectorAll(".headers li") ?? [])].map((line) =>
          [line.querySelector("b").textContent.replace(/: $/, "").toLowerCase(), line.querySelector(".value").textContent]);
        const [sent, received] = outcome.querySelectorAll(".pane");
        return {
          statuses: [...outcome.querySelectorAll(".status")].map((status) => Number(status.textContent)),
          sent: headers(sent),
          received: headers(received),
          receivedText: received?.textContent ?? "",
          events: outcome.querySelectorAll(".events li").length,
          claims: outcome.querySelector(".claims")?.textContent ?? "",
        };
      });
    },
    /** What of the session lies in the cookie. */
    async session() {
      return page.evaluate(() => {
        const [, text] = /sb-127-auth-token=base64-([^;]+)/.exec(document.cookie) ?? [];
        return text ? JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0)))) : null;
      });
    },
    async setSession(session) {
      await page.evaluate((text) => { document.cookie = `sb-127-auth-token=base64-${btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}; Path=/`; },
        JSON.stringify(session));
    },
    /** Texts whose colours are closer than WCAG 2.2 AA allows: 4.5 to 1, or 3 to 1 when large. */
    async pale() {
      return page.evaluate(faintTexts);
    },
    async shot(name) {
      await page.evaluate(() => window.scrollTo(0, 0));
      await page.screenshot({ path: path.join(artefacts, `${name}.png`), fullPage: true });
    },
    async overflows() {
      return page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    },
    async leave() {
      await context.close();
      assert.deepEqual(troubles, [], "the page had no errors of its own");
    },
  };
}

/** Runs in the page. */
function faintTexts() {
  const rgba = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = rgba(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
      if (a !== 0) throw new Error("a half transparent ground");
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, .visually-hidden")) continue;
    const style = getComputedStyle(element);
    const [over, under] = [light(rgba(style.color).slice(0, 3)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (over + 0.05) / (under + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return found;
}

const value = (headers, name) => headers.filter(([field]) => field === name).map(([, text]) => text);

describe("nobody in particular", () => {
  let visitor;
  before(async () => { visitor = await visit(); });
  after(() => visitor.leave());

  for (const title of ["A protected route", "An admin route", "A forged header", "A limited route", "A stream"]) {
    test(`${title}: 401, and the upstream hears nothing`, async () => {
      const shown = await visitor.press(title);
      assert.deepEqual(shown.statuses, [401]);
      assert.deepEqual(shown.received, []);
      if (title !== "A stream") assert.match(shown.receivedText, /missing_credentials/);
    });
  }

  test("A forged token: 401, and the upstream hears nothing", async () => {
    const shown = await visitor.press("A forged token");
    assert.deepEqual(shown.statuses, [401]);
    assert.deepEqual(shown.received, []);
    assert.match(shown.receivedText, /invalid_token/);
  });

  test("A public route: 200, with no identity", async () => {
    const shown = await visitor.press("A public route");
    assert.deepEqual(shown.statuses, [200]);
    assert.equal(value(shown.received, "x-request-id").length, 1);
    for (const name of ["authorization", "x-user-id", "x-user-role"]) assert.deepEqual(value(shown.received, name), [], name);
  });

  test("a wrong password is refused in words", async () => {
    await visitor.logIn("ada", "not the password");
    await visitor.page.locator("#form-error:visible").waitFor();
    assert.notEqual(await visitor.page.locator("#form-error").textContent(), "");
    assert.ok(await visitor.page.locator("#signed-in").isHidden());
  });
});

describe("Ada, who is a user", () => {
  let visitor;
  before(async () => {
    visitor = await visit();
    await visitor.logIn("ada");
    await visitor.page.locator("#signed-in:visible").waitFor();
  });
  after(() => visitor.leave());

  test("she sees that she is signed in", async () => {
    assert.equal(await visitor.page.locator("#account-email").textContent(), "ada@example.com");
    assert.match(await visitor.page.locator("#account-cookies").textContent(), /^sb-127-auth-token/);
  });

  test("A protected route: her cookie became a Bearer token with her id", async () => {
    const shown = await visitor.press("A protected route");
    assert.deepEqual(shown.statuses, [200]);
    assert.match(value(shown.received, "authorization").join(), /^Bearer eyJ/);
    assert.match(value(shown.received, "x-user-id").join(), UUID);
    assert.ok(value(shown.received, "cookie").every((cookie) => !cookie.includes("sb-127-auth-token")));
    assert.ok(shown.sent.some(([name]) => name.startsWith("cookie sb-127-auth-token")));
    assert.match(shown.claims, /ada@example\.com/);
  });

  test("A forged header: the one she is given is her own", async () => {
    const shown = await visitor.press("A forged header");
    assert.deepEqual(shown.statuses, [200]);
    assert.deepEqual(value(shown.sent, "x-user-id"), ["root"]);
    assert.equal(value(shown.received, "x-user-id").length, 1);
    assert.match(value(shown.received, "x-user-id").join(), UUID);
  });

  test("A forged token: 401, though her cookie is good", async () => {
    const shown = await visitor.press("A forged token");
    assert.deepEqual(shown.statuses, [401]);
    assert.match(shown.receivedText, /invalid_token/);
  });

  test("An admin route: 403", async () => {
    const shown = await visitor.press("An admin route");
    assert.deepEqual(shown.statuses, [403]);
    assert.deepEqual(shown.received, []);
    assert.match(shown.receivedText, /forbidden/);
  });

  test("A public route: 200, and her session stays at the gateway", async () => {
    const shown = await visitor.press("A public route");
    assert.deepEqual(shown.statuses, [200]);
    for (const name of ["authorization", "cookie", "x-user-id"]) assert.deepEqual(value(shown.received, name), [], name);
  });

  test("A stream: five events", async () => {
    const shown = await visitor.press("A stream");
    assert.deepEqual(shown.statuses, [200]);
    assert.equal(shown.events, 5);
  });

  test("Send 8 at once: five pass at most, the others are told to come back", async () => {
    const first = await visitor.press("A limited route");
    assert.deepEqual(first.statuses, [200]);
    const { statuses } = await visitor.press("Send 8 at once");
    assert.equal(statuses.length, 8);
    const passed = statuses.filter((status) => status === 200).length;
    assert.equal(statuses.filter((status) => status === 429).length, 8 - passed);
    assert.ok(passed >= 4 && passed <= 5, `four were left, and one may have come back meanwhile: ${statuses}`);
    const again = await visitor.press("A limited route");
    if (again.statuses[0] === 429) assert.match(again.receivedText, /rate_limited/);
  });

  test("she logs out, and is nobody again", async () => {
    await visitor.page.getByRole("button", { name: "Log out" }).click();
    await visitor.page.locator("#signed-out:visible").waitFor();
    const left = await visitor.page.evaluate(() => document.cookie);
    assert.ok(!left.includes("sb-127-auth-token"), left);
    assert.deepEqual((await visitor.press("A protected route")).statuses, [401]);
  });
});

describe("Grace, who is an administrator", () => {
  let visitor;
  before(async () => {
    visitor = await visit();
    await visitor.logIn("grace");
    await visitor.page.locator("#signed-in:visible").waitFor();
  });
  after(() => visitor.leave());

  test("An admin route: 200, with her role", async () => {
    const shown = await visitor.press("An admin route");
    assert.deepEqual(shown.statuses, [200]);
    assert.match(value(shown.received, "x-user-role").join(), /\badmin\b/);
  });

  test("a session that is about to end is renewed before it is used", async () => {
    const old = await visitor.session();
    await visitor.setSession({ ...old, expires_at: Math.floor(Date.now() / 1000) + 30 });
    assert.deepEqual((await visitor.press("A protected route")).statuses, [200]);
    const renewed = await visitor.session();
    assert.notEqual(renewed.refresh_token, old.refresh_token);
    assert.ok(renewed.expires_at > Date.now() / 1000 + 3000);
  });

  test("a reload finds her still signed in", async () => {
    await visitor.page.reload();
    await visitor.page.locator("#signed-in:visible").waitFor();
    assert.deepEqual((await visitor.press("A protected route")).statuses, [200]);
  });
});

describe("a session that is over", () => {
  for (const [what, spoil, when] of [
    ["of an earlier run, when the page opens", (session) => ({ ...session, access_token: `${session.access_token.slice(0, -8)}AAAAAAAA` }), (page) => page.reload()],
    ["that cannot be renewed, when it is used", (session) => ({ ...session, expires_at: 1, refresh_token: "gone" }), (page) => page.locator("#requests button").first().click()],
  ]) {
    test(`${what}: the page says so, and shows the login`, async () => {
      const visitor = await visit();
      await visitor.logIn("ada");
      await visitor.page.locator("#signed-in:visible").waitFor();
      await visitor.setSession(spoil(await visitor.session()));
      await when(visitor.page);
      await visitor.page.locator("#notice:visible").waitFor();
      await visitor.page.locator("#signed-out:visible").waitFor();
      assert.equal(await visitor.session(), null);
      await visitor.leave();
    });
  }
});

test("with the keyboard alone: log in, and Enter sends the first request", async () => {
  const visitor = await visit();
  const { page } = visitor;
  for (let steps = 0; !(await page.evaluate(() => document.activeElement?.id === "password")); steps += 1) {
    assert.ok(steps < 6, "the password field is near");
    await page.keyboard.press("Tab");
  }
  await page.keyboard.type(demo.passwords.ada);
  await page.keyboard.press("Enter");
  await page.locator("#signed-in:visible").waitFor();
  await page.keyboard.press("Enter");
  await page.locator("#outcome .status").waitFor();
  assert.equal(await page.locator("#outcome .status").textContent(), "200");
  await visitor.leave();
});

test("what nobody was refused is offered again after the login", async () => {
  const visitor = await visit();
  await visitor.press("An admin route");
  await visitor.logIn("grace");
  await visitor.page.locator("#signed-in:visible").waitFor();
  assert.equal(await visitor.page.locator("#outcome .status").count(), 0, "the refusal is no longer shown");
  assert.match(await visitor.page.evaluate(() => document.activeElement.textContent), /^An admin route/);
  await visitor.page.keyboard.press("Enter");
  await visitor.page.locator("#outcome .status").waitFor();
  assert.equal(await visitor.page.locator("#outcome .status").textContent(), "200");
  await visitor.leave();
});

test("somebody new signs up and is a user at once", async () => {
  const visitor = await visit();
  await visitor.page.getByRole("radio", { name: /new/i }).check({ force: true });
  await visitor.page.getByLabel("Email").fill("hedy@example.com");
  await visitor.page.getByLabel("Password").fill("spread-spectrum-1942");
  await visitor.page.getByRole("button", { name: "Sign up" }).click();
  await visitor.page.locator("#signed-in:visible").waitFor();
  assert.deepEqual((await visitor.press("A protected route")).statuses, [200]);
  assert.deepEqual((await visitor.press("An admin route")).statuses, [403]);
  await visitor.leave();
});

describe("how it looks", () => {
  for (const [device, viewport] of [["phone", PHONE], ["desk", DESK]]) {
    for (const colorScheme of ["light", "dark"]) {
      test(`${device}, ${colorScheme}: nothing is wider than the screen`, async () => {
        const visitor = await visit({ viewport, colorScheme });
        const look = async (moment) => {
          await visitor.shot(`${device}-${colorScheme}-${moment}`);
          assert.ok(!(await visitor.overflows()), `${moment} scrolls sideways`);
          assert.deepEqual(await visitor.pale(), [], `${moment}: contrast`);
        };
        await look("1-nobody");
        await visitor.press("A protected route");
        await look("2-refused");
        await visitor.logIn("ada", "wrong");
        await visitor.page.locator("#form-error:visible").waitFor();
        await look("2-wrong-password");
        await visitor.logIn("grace");
        await visitor.page.locator("#signed-in:visible").waitFor();
        await look("3-logged-in");
        await visitor.press("A protected route");
        await look("4-passed");
        await visitor.press("A forged header");
        await look("5-forged");
        await visitor.press("Send 8 at once");
        await look("6-limited");
        await visitor.press("A public route");
        await look("7-public");
        await visitor.press("A stream");
        await look("8-stream");
        await visitor.leave();
      });
    }
  }
});
