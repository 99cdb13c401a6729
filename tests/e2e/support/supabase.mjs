// The real libraries. What they write is never taken apart here: cookies go to the wire as the library serialised them.

import { createBrowserClient, createServerClient, parseCookieHeader, serializeCookieHeader } from "@supabase/ssr";

// supabase-js asks for a WebSocket when it is constructed; Node has one since 22. Nothing here opens it.
globalThis.WebSocket ??= class {};

/** What a browser keeps: a Set-Cookie line in, a Cookie header out. */
export class Jar {
  #cookies = new Map();

  /** Of a browser that sends these cookies. */
  constructor(header = "") {
    for (const pair of header.split("; ").filter(Boolean)) this.set(pair);
  }

  set(line) {
    const [pair, ...attributes] = line.split(/; */);
    const [name, value] = [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)];
    if (attributes.some((attribute) => /^max-age=0$/i.test(attribute))) this.#cookies.delete(name);
    else this.#cookies.set(name, value);
  }

  get header() {
    return [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; ");
  }

  get names() {
    return [...this.#cookies.keys()];
  }
}

/** Makes the user object of an answer larger, as a profile does, so that the session needs several cookies. */
function withMetadata(metadata) {
  return async (input, init) => {
    const response = await fetch(input, init);
    if (!metadata || !String(input).includes("/token")) return response;
    const session = await response.json();
    if (session.user) session.user.user_metadata = { ...session.user.user_metadata, ...metadata };
    return Response.json(session, { status: response.status });
  };
}

async function signIn(client, demo, user) {
  const { data, error } = await client.auth.signInWithPassword({ email: `${user}@example.com`, password: demo.passwords[user] });
  if (error) throw new Error(`${user} could not sign in: ${error.message}`);
  await client.auth.dispose(); // no timers and channels left behind
  return data.session;
}

/** Signs in as a server does that renders pages: `createServerClient` and its `setAll`. */
export async function signInOnServer(demo, user, { encoding = "base64url", metadata } = {}) {
  const jar = new Jar();
  const client = createServerClient(demo.origin, demo.key, {
    cookieEncoding: encoding,
    global: { fetch: withMetadata(metadata) },
    cookies: {
      getAll: () => parseCookieHeader(jar.header),
      setAll: (cookies) => cookies.forEach(({ name, value, options }) => jar.set(serializeCookieHeader(name, value, options))),
    },
  });
  const session = await signIn(client, demo, user);
  return { cookie: jar.header, names: jar.names, session };
}

/** Signs in as a page does: `createBrowserClient`, which writes to `document.cookie`. */
export async function signInInBrowser(demo, user, { encoding = "base64url", metadata } = {}) {
  const jar = new Jar();
  const document = { get cookie() { return jar.header; }, set cookie(line) { jar.set(line); } };
  globalThis.document = document;
  globalThis.window = { document };
  try {
    const client = createBrowserClient(demo.origin, demo.key, {
      isSingleton: false,
      cookieEncoding: encoding,
      auth: { autoRefreshToken: false, detectSessionInUrl: false },
      global: { fetch: withMetadata(metadata) },
    });
    const session = await signIn(client, demo, user);
    return { cookie: jar.header, names: jar.names, session };
  } finally {
    delete globalThis.window;
    delete globalThis.document;
  }
}

/** What a server finds in a browser's cookies: the claims of a token that verifies. */
export async function claimsOnServer(demo, cookie) {
  const client = createServerClient(demo.origin, demo.key, { cookies: { getAll: () => parseCookieHeader(cookie), setAll() {} } });
  const { data, error } = await client.auth.getClaims();
  await client.auth.dispose();
  if (error) throw error;
  return data?.claims;
}
