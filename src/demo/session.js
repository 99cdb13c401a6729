// The session of the demo's page, in cookies as @supabase/ssr writes them, and the provider it comes from. Knows
// nothing of what the page shows.

const { apiKey, storageKey } = document.body.dataset;
const CHUNK = 3180;
const FOUR_HUNDRED_DAYS = 34560000;
/** The library renews a session this long before it ends, in seconds. */
const AHEAD = 90;

// ---- Cookies ----

export function cookies() {
  const found = new Map();
  for (const part of document.cookie.split(";")) {
    const at = part.indexOf("=");
    const name = part.slice(0, at).trim();
    if (at > 0 && !found.has(name)) found.set(name, part.slice(at + 1).trim());
  }
  return found;
}

export const isSessionCookie = (name) =>
  name === storageKey || (name.startsWith(`${storageKey}.`) && /^(0|[1-9]\d*)$/.test(name.slice(storageKey.length + 1)));

export const sessionCookies = () => [...cookies().keys()].filter(isSessionCookie);

function setCookie(name, value, age) {
  document.cookie = `${name}=${value}; Max-Age=${age}; Path=/; SameSite=Lax`;
}

export function saveSession(session) {
  const text = `base64-${toBase64Url(JSON.stringify(session))}`;
  const pieces = new Map();
  if (text.length <= CHUNK) pieces.set(storageKey, text);
  else for (let n = 0; n * CHUNK < text.length; n += 1) pieces.set(`${storageKey}.${n}`, text.slice(n * CHUNK, (n + 1) * CHUNK));
  for (const name of sessionCookies()) if (!pieces.has(name)) setCookie(name, "", 0);
  for (const [name, value] of pieces) setCookie(name, value, FOUR_HUNDRED_DAYS);
}

export function clearSession() {
  for (const name of sessionCookies()) setCookie(name, "", 0);
}

export function toBase64Url(text) {
  const binary = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function fromBase64Url(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder().decode(Uint8Array.from(binary, (character) => character.charCodeAt(0)));
}

export function readSession() {
  const all = cookies();
  let text = all.get(storageKey) ?? "";
  if (!text) for (let n = 0; all.get(`${storageKey}.${n}`); n += 1) text += all.get(`${storageKey}.${n}`);
  if (!text) return null;
  try {
    const session = JSON.parse(text.startsWith("base64-") ? fromBase64Url(text.slice(7)) : decodeURIComponent(text));
    return session?.access_token ? session : null;
  } catch {
    return null;
  }
}

export function claimsOf(token) {
  try {
    return JSON.parse(fromBase64Url(token.split(".")[1]));
  } catch {
    return null;
  }
}

// ---- The provider ----

/** The provider said no; anything else that goes wrong is a plain `Error`. */
class Refused extends Error {}

async function auth(path, body, token = apiKey) {
  const response = await fetch(`/auth/v1${path}`, {
    method: body ? "POST" : "GET",
    headers: {
      apikey: apiKey,
      authorization: `Bearer ${token}`,
      "content-type": "application/json;charset=UTF-8",
      "x-supabase-api-version": "2024-01-01",
    },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  let answer = {};
  try { answer = text ? JSON.parse(text) : {}; } catch { /* not the provider's answer */ }
  if (response.ok) return answer;
  const words = answer.message ?? answer.detail ?? `The provider answered ${response.status}.`;
  throw response.status < 500 && response.status !== 429 ? new Refused(words) : new Error(words);
}

/** Begins a session with a password. */
export const logIn = async (email, password) => saveSession(await auth("/token?grant_type=password", { email, password }));

/** Makes an account and begins its session. */
export const signUp = async (email, password) => saveSession(await auth("/signup", { email, password }));

/** Ends the session here in any case. Whether the provider did so, too. */
export async function logOut() {
  const session = readSession();
  clearSession();
  if (!session) return true;
  return auth("/logout?scope=global", {}, session.access_token).then(() => true, () => false);
}

/** Renews a session that is about to end, as the library does: the gateway only reads it. False: it is over. */
export async function renew() {
  const session = readSession();
  if (!session?.refresh_token || session.expires_at - Date.now() / 1000 > AHEAD) return true;
  return keep(session, async () => saveSession(await auth("/token?grant_type=refresh_token", { refresh_token: session.refresh_token })));
}

/** Cookies outlive the process: a session of an earlier run is one that this provider does not know. False: such a one. */
export async function recognise() {
  const session = readSession();
  return !session || keep(session, () => auth("/user", undefined, session.access_token));
}

/** Only a refusal of the provider ends the session; when it cannot be asked, the session stays. */
async function keep(session, ask) {
  try {
    await ask();
  } catch (error) {
    if (error instanceof Refused) {
      // Unless another one has begun meanwhile.
      if (readSession()?.access_token === session.access_token) clearSession();
      return false;
    }
  }
  return true;
}
