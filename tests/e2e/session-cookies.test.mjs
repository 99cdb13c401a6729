// Session cookies that we write against those of the real @supabase/ssr: the same answer of an auth server has to become
// the same Set-Cookie lines, and each has to read what the other wrote; of broken cookies both have to make the same. The
// variable TOLLHOUSE_SESSIONS says how many sessions (2000 unless told otherwise; a hundred thousand take ten minutes:
// `TOLLHOUSE_SESSIONS=100000 tests/run e2e session-cookies`), TOLLHOUSE_SEED which; a failure names both.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ask } from "./support/cookie_lines.mjs";
import { damaged, sessionValue } from "./support/damage.mjs";
import { libraryClears, libraryFinds, libraryReads, libraryWrites, oddly, random, session, spelt, STORAGE_KEY } from "./support/sessions.mjs";
import { Jar } from "./support/supabase.mjs";

const count = Number(process.env.TOLLHOUSE_SESSIONS ?? 2000);
const seed = Number(process.env.TOLLHOUSE_SEED ?? Math.floor(Math.random() * 2 ** 31));
const BATCH = 500;
/** Beyond this we do not read, and therefore refuse to write. */
const VALUE_BYTES_MAX = 65_536;

const OPTIONS = [
  {}, {}, {}, { domain: ".example.com" }, { domain: "example.com", secure: true }, { secure: true, httpOnly: true, sameSite: "strict" },
  { secure: true, sameSite: "none", partitioned: true, path: "/gw" },
];

/**
 * What the browser has before: nothing, other cookies, a session that has expired and is renewed, one that is good and makes
 * room for another login, pieces that nobody needs.
 */
async function before(dice, unixSeconds) {
  const jar = new Jar(dice.pick(["", "theme=dark", "a=1; b=%22x%22; __Host-x=y"]));
  const refresh = dice.chance(0.7);
  if (refresh || dice.chance(0.5)) {
    // Written in either encoding: a client reads both, whatever it writes.
    const old = { raw: dice.chance(0.5), options: {} };
    const ends = refresh ? unixSeconds - 10 - dice.below(10_000) : unixSeconds + 1000;
    const lines = await libraryWrites(jar, old, JSON.stringify(session(dice, ends)), false);
    lines.forEach((line) => jar.set(line));
  }
  // Far behind the last piece: a piece that is read would make another session.
  if (dice.chance(0.3)) jar.set(`${STORAGE_KEY}.${100 + dice.below(30)}=orphan`);
  if (dice.chance(0.2)) jar.set(`${STORAGE_KEY}-code-verifier=base64-InYxIg`);
  return { jar, refresh };
}

async function makeCase(dice) {
  const settings = { raw: dice.chance(0.4), tokens_only: dice.chance(0.15), options: dice.pick(OPTIONS) };
  const unixMillis = 1_790_000_000_000 + dice.below(1_000_000);
  const realNow = Date.now;
  Date.now = () => unixMillis;
  try {
    const { jar, refresh } = await before(dice, Math.floor(unixMillis / 1000));
    const made = session(dice, Math.floor(unixMillis / 1000) + 200 + dice.below(4000), { far: settings.raw });
    if (dice.chance(0.2)) delete made.expires_at;
    else if (dice.chance(0.1)) made.expires_at = dice.pick([0, null, "", made.expires_at + 0.5, `${made.expires_at}`]);
    const odd = dice.chance(0.05);
    const response = odd ? oddly(dice, made) : spelt(dice, made);
    const cookie = jar.header;
    const lines = await libraryWrites(jar, settings, response, refresh);
    return { settings, unixMillis, cookie, response, odd, lines };
  } finally {
    Date.now = realNow;
  }
}

/** Both, as browsers apply them. */
function after(cookie, lines) {
  const jar = new Jar(cookie);
  lines.forEach((line) => jar.set(line));
  return jar;
}

/** Equal, or a failure that shows the first difference and not 60 kB of cookies. */
function same(ours, theirs, message) {
  const [one, other] = [ours, theirs].map((lines) => (lines ?? ["nothing"]).join("\n"));
  let at = 0;
  while (at < one.length && one[at] === other[at]) at += 1;
  const part = (text) => JSON.stringify(text.slice(Math.max(0, at - 60), at + 60));
  assert.ok(one === other, `${message}: at ${at} of ${one.length} and ${other.length}: ours ${part(one)}, theirs ${part(other)}`);
}

const tokens = ({ access_token, refresh_token, expires_at }) => ({ access_token, refresh_token, expires_at: Number(expires_at) });
const values = (lines) => lines.reduce((sum, line) => sum + line.slice(line.indexOf("=") + 1, line.indexOf(";")).length, 0);

test(`${count} sessions are written alike, and each side reads the other`, { timeout: 3_600_000 }, async () => {
  const warn = console.warn;
  console.warn = () => {}; // the library warns of every user object that is looked at
  const seen = { written: 0, odd: 0, refused: 0, pieces: 0, cleared: 0 };
  try {
    for (let start = 0; start < count; start += BATCH) {
      const numbers = Array.from({ length: Math.min(BATCH, count - start) }, (_, index) => start + index);
      const cases = [];
      for (const number of numbers) cases.push({ number, ...(await makeCase(random(seed + number))) });

      const written = await ask(cases.map(({ settings, unixMillis, cookie, response }) => ({
        storage_key: STORAGE_KEY, cookie, write: { response, unix_millis: unixMillis, ...settings },
      })));
      const library = cases.map(({ cookie, lines }) => after(cookie, lines));
      const read = await ask(library.map((jar) => ({ storage_key: STORAGE_KEY, cookie: jar.header, read: {} })));
      const cleared = await ask(cases.map(({ settings }, index) => ({
        storage_key: STORAGE_KEY, cookie: library[index].header, clear: { options: settings.options },
      })));

      for (const [index, { number, settings, cookie, lines, unixMillis, odd }] of cases.entries()) {
        const where = `TOLLHOUSE_SEED=${seed + number} TOLLHOUSE_SESSIONS=1 ${JSON.stringify(settings)}`;
        if (values(lines) > VALUE_BYTES_MAX && written[index].refused) {
          seen.refused += 1;
          continue;
        }
        if (!odd) same(written[index].set_cookie, lines, `other lines: ${where}`);
        seen.written += 1;
        seen.odd += odd;
        seen.pieces = Math.max(seen.pieces, lines.filter((line) => !line.includes("Max-Age=0")).length);

        const realNow = Date.now;
        Date.now = () => unixMillis;
        try {
          const ours = await libraryReads(after(cookie, written[index].set_cookie), settings);
          assert.ok(ours, `the library finds no session in ours: ${where}`);
          const { session: theirs } = read[index];
          assert.ok(theirs, `we find no session in the library's, ${JSON.stringify(read[index])}: ${where}`);
          assert.deepEqual(tokens(theirs), tokens(ours), where);
          const kept = JSON.parse(theirs.text);
          if (settings.tokens_only) assert.ok(!("user" in kept), where);
          else {
            assert.equal(theirs.user_id, kept.user.id, where);
            same([JSON.stringify(kept)], [JSON.stringify(ours)], where);
          }
          const gone = await libraryClears(library[index], settings);
          const verifier = (line) => /^[^=]*-code-verifier=/.test(line);
          same(cleared[index].set_cookie, gone.filter((line) => !verifier(line)), `other removals: ${where}`);
          seen.cleared += gone.length;
        } finally {
          Date.now = realNow;
        }
      }
    }
  } finally {
    console.warn = warn;
  }
  console.log(`seed ${seed}: ${JSON.stringify(seen)}`);
  assert.ok(seen.written >= count * 0.95, JSON.stringify(seen));
});

/** Cookies as a browser may come to have them: of two sessions, in either encoding, with everything that goes wrong. */
async function makeDamage(dice) {
  const jars = [];
  for (const _ of [1, 2]) {
    const jar = new Jar();
    const lines = await libraryWrites(jar, { raw: dice.chance(0.4), options: {} }, JSON.stringify(session(dice, 4_102_444_800)), false);
    lines.forEach((line) => jar.set(line));
    jars.push(jar);
  }
  return damaged(dice, jars.map((jar) => jar.header), STORAGE_KEY);
}

/** The library's decoder takes bytes for characters that are none in UTF-8; we do not. */
const isText = (header) => {
  const { own, pieces } = sessionValue(header, STORAGE_KEY);
  const value = own || pieces;
  if (!value.startsWith("base64-")) return true;
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(Buffer.from(value.slice(7), "base64url"));
    return true;
  } catch {
    return false;
  }
};

test(`of ${count} broken sessions both make the same`, { timeout: 3_600_000 }, async () => {
  const warn = console.warn;
  console.warn = () => {};
  const seen = { sessions: 0, none: 0, notText: 0, tooLarge: 0 };
  try {
    for (let start = 0; start < count; start += BATCH) {
      const headers = [];
      for (let number = start; number < Math.min(start + BATCH, count); number += 1) headers.push(await makeDamage(random(seed + number)));
      const answers = await ask(headers.map((cookie) => ({ storage_key: STORAGE_KEY, cookie, read: {} })));
      for (const [index, header] of headers.entries()) {
        const where = `TOLLHOUSE_SEED=${seed + start + index} TOLLHOUSE_SESSIONS=1`;
        const { session: ours } = answers[index];
        const { session: theirs, renews } = await libraryFinds(header);
        if (ours) {
          assert.ok(!renews && theirs, `the library finds none: ${where}`);
          assert.deepEqual(tokens(ours), tokens(theirs), where);
          same([JSON.stringify(JSON.parse(ours.text))], [JSON.stringify(theirs)], where);
          seen.sessions += 1;
        } else if (theirs && !isText(header)) {
          seen.notText += 1;
        } else if (/ more than /.test(answers[index].refused)) {
          assert.ok(header.length > VALUE_BYTES_MAX, where);
          seen.tooLarge += 1;
        } else {
          assert.ok(!theirs, `only the library finds one: ${where}: ${JSON.stringify(answers[index])}`);
          seen.none += 1;
        }
      }
    }
  } finally {
    console.warn = warn;
  }
  console.log(`seed ${seed}: ${JSON.stringify(seen)}`);
  if (count >= 1000) assert.ok(seen.sessions > count / 10 && seen.none > count / 10, JSON.stringify(seen));
});

// JavaScript has such characters in two halves, and the library's own base64url keeps 16 bits of the first (0.12.7): a name
// with U+20BB7 comes out as U+10BB7. We write the character that is there, and the library reads it.
test("a character beyond U+1FFFF stays what it is", async () => {
  const settings = { raw: false, tokens_only: false, options: {} };
  const made = session(random(seed), 4_102_444_800);
  made.user = { id: made.user.id, user_metadata: { name: "\u{20BB7}\u91CE" } };
  const response = JSON.stringify(made);
  const [written] = await ask([{ storage_key: STORAGE_KEY, cookie: "", write: { response, unix_millis: 1_790_000_000_000, ...settings } }]);
  const warn = console.warn;
  console.warn = () => {};
  try {
    const name = async (lines) => (await libraryReads(after("", lines), settings)).user.user_metadata.name;
    assert.equal(await name(written.set_cookie), "\u{20BB7}\u91CE");
    assert.notEqual(await name(await libraryWrites(new Jar(), settings, response, false)), "\u{20BB7}\u91CE");
  } finally {
    console.warn = warn;
  }
});
