// Random sessions, as strangers' profiles make them, and what the real library does with each. The same seed gives the
// same sessions.

import { createServerClient, parseCookieHeader, serializeCookieHeader } from "@supabase/ssr";
import { Jar } from "./supabase.mjs";

const PROJECT = "https://project.example.test";
export const STORAGE_KEY = "sb-project-auth-token";

/** Numbers from 0 to below 1 (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const below = (count) => Math.floor(next() * count);
  const pick = (list) => list[below(list.length)];
  return { next, below, pick, chance: (probability) => next() < probability };
}

const PARTS = [
  "a", "Zürich", "漢字", "😀", "👩‍👩‍👧", "e\u0301", "%", "%22", "%zz", "%E2%82", "\"", "\\", "/", "&", "<b>", ";", "; Max-Age=0", "=", ",", " ", "+", "\t", "\n",
  "\r\n", "\b\f", "\u0000", "\u001f", "\u007f", "\u0085", "\u2028", "\u2029", "\ufeff", "\ufffd", "\ud800", "\udc00", "\ud83d", "\\ud800", "\\u0022", "base64-", "null",
  "\ud83f\udfff", "__proto__", "()*'!~_.-",
];
// Beyond U+1FFFF the library writes another character in base64url (see the test of that).
const FAR = ["\u{20BB7}", "\u{E0067}", "\u{10FFFF}"];

/** A text of at least this length; `far`: with characters beyond U+1FFFF, too. */
function text(dice, length, far = false) {
  let out = "";
  const all = far && dice.chance(0.1) ? [...PARTS, ...FAR] : PARTS;
  const few = dice.chance(0.3) ? [dice.pick(all)] : all;
  while (out.length < length) out += dice.pick(few);
  return out;
}

/** One character over and over, some bytes behind where pieces end: sooner or later each of its bytes is at an end. */
function borders(dice) {
  return "x".repeat(dice.below(13)) + dice.pick(["😀", "漢", "é", "\"", "👩‍👩‍👧", "\ud800"]).repeat(250 + dice.below(1500));
}

/** Any JSON value; keys that JavaScript would sort (whole numbers) are left out, because we keep the order that came. */
function value(dice, depth) {
  switch (dice.below(depth > 0 ? 9 : 6)) {
    case 0: return null;
    case 1: return dice.chance(0.5);
    case 2: return dice.pick([0, 1, -1, 0.1, 1e21, 1e-7, 2 ** 53, -1.5e300, 4102444800]);
    case 3: case 4: case 5: return text(dice, dice.below(40));
    case 6: return Array.from({ length: dice.below(4) }, () => value(dice, depth - 1));
    default: return Object.fromEntries(Array.from({ length: dice.below(4) }, () => [`k${text(dice, dice.below(12))}`, value(dice, depth - 1)]));
  }
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const word = (dice, length) => Array.from({ length }, () => dice.pick(ALPHABET)).join("");

/** A profile's size: mostly small, sometimes around a piece's limit, seldom as large as may be. */
function profile(dice, far) {
  const size = dice.chance(0.6) ? dice.below(300) : dice.chance(0.9) ? dice.below(6000) : dice.below(14_000);
  let deep = value(dice, 4);
  if (dice.chance(0.1)) for (let depth = dice.below(500); depth > 0; depth -= 1) deep = dice.chance(0.5) ? [deep] : { d: deep };
  return { name: dice.chance(0.05) ? borders(dice) : text(dice, size, far), filler: word(dice, dice.below(64)), deep };
}

function shuffled(dice, json) {
  const members = Object.entries(json);
  for (let last = members.length - 1; last > 0; last -= 1) {
    const other = dice.below(last + 1);
    [members[last], members[other]] = [members[other], members[last]];
  }
  return Object.fromEntries(members);
}

/** A session; `seconds` are when it expires. The members are mostly in the order in which the real server writes them. */
export function session(dice, seconds, { far = false } = {}) {
  const claims = { sub: word(dice, 36), exp: seconds, user_metadata: { x: word(dice, dice.below(900)) } };
  const part = (json) => Buffer.from(JSON.stringify(json)).toString("base64url");
  const made = {
    access_token: `${part({ alg: "ES256", typ: "JWT" })}.${part(claims)}.${word(dice, 86)}`,
    token_type: "bearer",
    expires_in: dice.pick([3600, 120, 604800, 1800.5]),
    expires_at: seconds,
    refresh_token: dice.chance(0.9) ? word(dice, 12) : text(dice, 12).replace(/[\ud800-\udfff]/g, "x"),
    user: { id: claims.sub, aud: "authenticated", user_metadata: profile(dice, far), identities: dice.chance(0.3) ? null : [value(dice, 2)] },
  };
  if (dice.chance(0.2)) made.provider_token = text(dice, dice.below(30));
  if (dice.chance(0.1)) made.provider_refresh_token = word(dice, dice.below(60));
  if (dice.chance(0.2)) made.weak_password = value(dice, 1);
  return dice.chance(0.2) ? shuffled(dice, made) : made;
}

/** The text of an answer, in one of the spellings that servers and proxies have. */
export function spelt(dice, json) {
  const plain = JSON.stringify(json);
  const escaped = (units) => plain.replace(units, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  switch (dice.below(5)) {
    case 0: return JSON.stringify(json, null, 2);
    case 1: return escaped(/[<>&\u2028\u2029]/g); // as Go does
    case 2: return escaped(/[^\x20-\x7e]/g); // in ASCII alone
    case 3: return plain.replaceAll("/", "\\/");
    default: return plain;
  }
}

/** What JavaScript spells in another way, or puts in another place: it comes through with the same meaning, not the same bytes. */
const ODDITIES = [
  ...["1.0", "1E2", "-0", "-0.0", "12345678901234567890", "0.1e-6", "1e400", "1.10"].map((number) => `"n":${number}`),
  '"10":1,"9":2,"x":3', '"twice":1,"twice":{"a":[]}', '"twice":1,"\\u0074wice":2', '"a":{"2":0,"b":0,"1":0}',
];

/** The text of an answer whose profile has one of them. */
export function oddly(dice, json) {
  const mark = "@@odd@@";
  const marked = JSON.stringify({ ...json, user: { ...json.user, app_metadata: { [mark]: 0 } } });
  return marked.replace(`"${mark}":0`, () => dice.pick(ODDITIES));
}

/** A client as servers make one for each request. `answers` are what its auth server says, one after the other. */
function client(jar, settings, answers) {
  const lines = [];
  let asked = 0;
  const fetch = async () => {
    asked += 1;
    const next = answers.shift();
    // Nobody expects this request. A refusal: the library would try again for a long time after a failure.
    if (next === undefined) return Response.json({ code: "validation_failed" }, { status: 400 });
    return new Response(next || null, { status: next ? 200 : 204, headers: { "content-type": "application/json" } });
  };
  const made = createServerClient(PROJECT, "sb_publishable_key", {
    cookieEncoding: settings.raw ? "raw" : "base64url",
    cookieOptions: settings.options,
    global: { fetch },
    cookies: {
      ...(settings.tokens_only ? { encode: "tokens-only" } : {}),
      getAll: () => parseCookieHeader(jar.header),
      setAll: (cookies) => cookies.forEach(({ name, value, options }) => lines.push(serializeCookieHeader(name, value, options))),
    },
  });
  return { auth: made.auth, lines, asked: () => asked, done: () => made.auth.dispose() };
}

/** What the library sets after an answer: to a sign-in, or, where the cookies hold an expired session, to its refresh. */
export async function libraryWrites(jar, settings, response, refresh) {
  const { auth, lines, done } = client(jar, settings, [response]);
  const { error } = refresh ? await auth.getSession() : await auth.signInWithPassword({ email: "a@example.test", password: "x" });
  await done();
  if (error) throw error;
  return lines;
}

/** The session that the library finds in the cookies, without asking anybody. */
export async function libraryReads(jar, settings) {
  const { auth, lines, done } = client(jar, settings, []);
  const { data } = await auth.getSession();
  await done();
  if (lines.length > 0) throw new Error(`reading wrote ${lines}`);
  return data.session;
}

/** What the library makes of a Cookie header that may be anything: a session, and whether it tried to renew it. */
export async function libraryFinds(header) {
  const { auth, asked, done } = client({ header }, { raw: false, options: {} }, []);
  const { data } = await auth.getSession();
  await done();
  return { session: data.session, renews: asked() > 0 };
}

/** What the library sets when the user leaves. */
export async function libraryClears(jar, settings) {
  const { auth, lines, done } = client(jar, settings, [""]);
  const { error } = await auth.signOut({ scope: "local" });
  await done();
  if (error) throw error;
  return lines;
}
