// The session of the demo's page: it asks the gateway's endpoints and holds nothing itself, since there is nothing that it
// could hold. Knows nothing of what the page shows.

/** The name of the cookie that the gateway keeps the session in. No script can see whether it is there. */
export const COOKIE = "tollhouse";

/** The cookies that scripts can read. */
export function cookies() {
  const found = new Map();
  for (const part of document.cookie.split(";")) {
    const at = part.indexOf("=");
    const name = part.slice(0, at).trim();
    if (at > 0 && !found.has(name)) found.set(name, part.slice(at + 1).trim());
  }
  return found;
}

/** A problem that the gateway answered with; anything else that goes wrong is a plain `Error`. */
export class Refused extends Error {
  constructor({ status }, { code, detail }) {
    super(detail ?? `The gateway answered ${status}.`);
    this.status = status;
    this.code = code;
  }
}

async function ask(endpoint, { method = "POST", body } = {}) {
  const response = await fetch(`/.auth/${endpoint}`, {
    method,
    headers: body && { "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
    cache: "no-store",
  });
  const text = await response.text();
  let answer = {};
  try { answer = text ? JSON.parse(text) : {}; } catch { /* not the gateway's answer */ }
  if (response.ok) return answer;
  throw new Refused(response, answer);
}

/** Begins a session with a password. All of these give the view of it: `{user, provider, expires_at}`. */
export const logIn = (email, password) => ask("login", { body: { email, password } });

/** Makes an account and begins its session; `{pending}` where somebody has that address. */
export const signUp = (email, password) => ask("signup", { body: { email, password } });

/** Lets the gateway get a new token, which it would do by itself before the old one ends. */
export const renew = () => ask("refresh");

/** Ends the session: `local` this one, `global` all of its user. */
export const logOut = (scope) => ask(`logout?scope=${scope}`);

/** Who is logged in here; null: nobody. */
export async function whoIsHere() {
  try {
    return await ask("session", { method: "GET" });
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return null;
    throw error;
  }
}

// ---- Tokens, as the backend received them ----

export function toBase64Url(text) {
  const binary = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

export function claimsOf(token) {
  try {
    const binary = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (character) => character.charCodeAt(0))));
  } catch {
    return null;
  }
}
