// The page of `tollhouse demo` as people meet it: in a browser, as nobody, as Ada, as Grace and as somebody new.
// Screenshots go to artefacts/, for eyes.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { faintTexts, launch, visitor } from "./support/browser.mjs";
import { artefacts, startDemo } from "./support/processes.mjs";

const PHONE = { width: 390, height: 844 };
const DESK = { width: 1280, height: 800 };
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

let demo, browser;

before(async () => {
  demo = await startDemo("demo-page");
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await demo?.process.stop();
});

/** A visitor with a browser of their own. */
async function visit({ viewport = DESK, colorScheme = "light", hash = "" } = {}) {
  const { page, context, troubles, leave } = await visitor(browser, { viewport, colorScheme });
  await page.goto(`${demo.origin}/${hash}`);
  assert.deepEqual(troubles, [], "the page starts");

  return {
    page,
    context,
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
    /** The session's cookies, as only the browser itself knows them. */
    async cookies() {
      return (await context.cookies()).filter(({ name }) => name.startsWith("tollhouse"));
    },
    /** What the page says that scripts read, and what they do read. */
    async scripts() {
      return [await page.locator("#script-reads").textContent(), await page.evaluate(() => document.cookie)];
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
      await leave();
      assert.deepEqual(troubles, [], "the page had no errors of its own");
    },
  };
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
    assert.equal(await visitor.page.locator("#account-role").textContent(), "user");
  });

  test("no script can read her session: it is in one cookie, and the page says which", async () => {
    assert.deepEqual(await visitor.scripts(), ['""', ""]);
    assert.match(await visitor.page.locator("#script-words").textContent(), /^Empty/);
    const stored = await visitor.page.evaluate(() => [localStorage.length, sessionStorage.length]);
    assert.deepEqual(stored, [0, 0]);
    const [cookie, ...others] = await visitor.cookies();
    assert.deepEqual(others, []);
    const said = (await visitor.page.locator("#signed-in").textContent()).replace(/\s+/g, " ");
    assert.ok(said.includes(`in the cookie ${cookie.name}.`), said);
    assert.ok(cookie.httpOnly && said.includes("HttpOnly"));
    assert.ok(said.includes(`SameSite=${cookie.sameSite}:`));
    assert.ok(said.includes(`(Path=${cookie.path})`));
    assert.ok(!cookie.secure && said.includes("Behind https"));
    const days = (cookie.expires - Date.now() / 1000) / 86_400;
    assert.ok(said.includes(`for ${Math.round(days)} days`), `${days}`);
    // Nothing in it looks like what is inside.
    assert.ok(!Buffer.from(cookie.value, "base64url").includes("eyJ"));
  });

  test("what else lies in document.cookie is shown, and is not hers", async () => {
    await visitor.page.evaluate(() => { document.cookie = "theme=dark; Path=/"; });
    await visitor.page.reload();
    await visitor.page.locator("#signed-in:visible").waitFor();
    assert.deepEqual(await visitor.scripts(), ['"theme=dark"', "theme=dark"]);
    assert.match(await visitor.page.locator("#script-words").textContent(), /not in there.*theme/);
    const shown = await visitor.press("A protected route");
    assert.deepEqual(value(shown.received, "cookie"), ["theme=dark"]);
    await visitor.page.evaluate(() => { document.cookie = "theme=; Path=/; Max-Age=0"; });
    await visitor.page.reload();
    await visitor.page.locator("#signed-in:visible").waitFor();
    assert.deepEqual(await visitor.scripts(), ['""', ""]);
  });

  test("A protected route: her cookie became a Bearer token with her id", async () => {
    const shown = await visitor.press("A protected route");
    assert.deepEqual(shown.statuses, [200]);
    assert.match(value(shown.received, "authorization").join(), /^Bearer eyJ/);
    assert.match(value(shown.received, "x-user-id").join(), UUID);
    assert.deepEqual(value(shown.received, "cookie"), []);
    assert.match(value(shown.sent, "cookie tollhouse").join(), /hidden from this page/);
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

  test("she logs out, and is nobody again: a copy of her cookie is worth nothing", async () => {
    const copy = await visitor.cookies();
    await visitor.page.getByRole("button", { name: "Log out", exact: true }).click();
    await visitor.page.locator("#signed-out:visible").waitFor();
    assert.deepEqual(await visitor.cookies(), []);
    const nobody = await visitor.press("A protected route");
    assert.deepEqual(nobody.statuses, [401]);
    assert.match(nobody.receivedText, /missing_credentials/);
    await visitor.context.addCookies(copy);
    const thief = await visitor.press("A protected route");
    assert.deepEqual(thief.statuses, [401]);
    assert.match(thief.receivedText, /session_expired/);
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

  test("Renew now: another cookie, and still hers", async () => {
    const [before] = await visitor.cookies();
    await visitor.page.getByRole("button", { name: "Renew now" }).click();
    await visitor.page.locator("#account-note:visible").waitFor();
    assert.match(await visitor.page.locator("#account-note").textContent(), /^Renewed: /);
    const [after, ...others] = await visitor.cookies();
    assert.deepEqual(others, []);
    assert.notEqual(after.value, before.value);
    assert.deepEqual(await visitor.scripts(), ['""', ""]);
    assert.deepEqual((await visitor.press("A protected route")).statuses, [200]);
  });

  test("a reload finds her still signed in", async () => {
    await visitor.page.reload();
    await visitor.page.locator("#signed-in:visible").waitFor();
    assert.deepEqual((await visitor.press("A protected route")).statuses, [200]);
  });
});

describe("a session that is over", () => {
  test("of an earlier run, when the page opens: the login, as if there were none", async () => {
    const visitor = await visit();
    await visitor.context.addCookies([{ name: "tollhouse", value: "c2VhbGVkIGJ5IGFub3RoZXIga2V5", url: demo.origin, httpOnly: true, sameSite: "Lax" }]);
    await visitor.page.reload();
    await visitor.page.locator("#signed-out:visible").waitFor();
    assert.deepEqual((await visitor.press("A protected route")).statuses, [401]);
    await visitor.logIn("ada");
    await visitor.page.locator("#signed-in:visible").waitFor();
    assert.equal((await visitor.cookies()).length, 1);
    assert.deepEqual((await visitor.press("A protected route")).statuses, [200]);
    await visitor.leave();
  });

  test("ended in another tab, when it is used: the page says so, and shows the login", async () => {
    const visitor = await visit();
    await visitor.logIn("ada");
    await visitor.page.locator("#signed-in:visible").waitFor();
    const other = await visitor.context.newPage();
    await other.goto(demo.origin);
    await other.getByRole("button", { name: "Log out", exact: true }).click();
    await other.locator("#signed-out:visible").waitFor();
    await other.close();
    const shown = await visitor.press("A protected route");
    assert.deepEqual(shown.statuses, [401]);
    assert.deepEqual(value(shown.sent, "cookie tollhouse"), []);
    await visitor.page.locator("#notice:visible").waitFor();
    await visitor.page.locator("#signed-out:visible").waitFor();
    await visitor.leave();
  });

  test("ended everywhere: it cannot be renewed in another browser, either", async () => {
    const [here, there] = [await visit(), await visit()];
    for (const visitor of [here, there]) {
      await visitor.logIn("ada");
      await visitor.page.locator("#signed-in:visible").waitFor();
    }
    await here.page.getByRole("button", { name: "Log out everywhere" }).click();
    await here.page.locator("#signed-out:visible").waitFor();
    assert.deepEqual((await here.press("A protected route")).statuses, [401]);
    await there.page.getByRole("button", { name: "Renew now" }).click();
    await there.page.locator("#account-note:not(:empty):visible").waitFor();
    assert.doesNotMatch(await there.page.locator("#account-note").textContent(), /^Renewed/);
    await here.leave();
    await there.leave();
  });
});

test("the address with the passwords in it: one click for each, and the address forgets them", async () => {
  const { ada, grace } = demo.passwords;
  const visitor = await visit({ hash: `#ada=${ada}&grace=${grace}` });
  assert.equal(visitor.page.url(), `${demo.origin}/`);
  await visitor.page.getByRole("button", { name: "Log in as Ada" }).click();
  await visitor.page.locator("#signed-in:visible").waitFor();
  assert.equal(await visitor.page.locator("#account-email").textContent(), "ada@example.com");
  await visitor.page.getByRole("button", { name: "Log out", exact: true }).click();
  await visitor.page.locator("#signed-out:visible").waitFor();
  await visitor.page.getByRole("radio", { name: /grace/i }).check({ force: true });
  await visitor.page.getByRole("button", { name: "Log in as Grace" }).click();
  await visitor.page.locator("#signed-in:visible").waitFor();
  assert.equal(await visitor.page.locator("#account-role").textContent(), "admin");
  await visitor.leave();
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
        await visitor.page.getByRole("button", { name: "Renew now" }).click();
        await visitor.page.locator("#account-note:visible").waitFor();
        await look("3-renewed");
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
