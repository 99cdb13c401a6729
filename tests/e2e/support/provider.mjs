// An auth server whose tokens live as long as a test wants, with the rules of Supabase Auth for refresh tokens (its first
// form: twelve characters, parent links). It can go away and come back at the same address. Messages are kept for the test,
// and its login elsewhere is a page with two links. Of the data API it has one table, in which everybody sees themselves.

import { createHash, createSign, generateKeyPairSync, randomBytes, randomUUID } from "node:crypto";
import http from "node:http";

/** How long a used token yields another one, as on the platform. */
const REUSE_MILLISECONDS = 10_000;
const KEY_ID = "short-lived";

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

class Refusal extends Error {
  constructor(status, code) {
    super(code);
    this.status = status;
  }
}

class Provider {
  /** Of the tokens that are issued from now on, and how much of it they have behind them already. */
  life = 3600;
  age = 0;
  key = "sb_publishable_short";
  /** What the library's sign-in needs: any user with this password exists. */
  passwords = new Proxy({}, { get: () => "correct-horse-9" });
  /** `user_metadata` by user; what has none has a small one. */
  profiles = new Map();
  /** Refresh tokens as they came, who brought each (`x-client-info`), and the codes of all refusals. */
  refreshed = [];
  refreshers = [];
  refusals = [];
  /** How many sessions were opened. */
  opened = 0;
  /** `token_hash` of the newest message, by address. */
  mails = new Map();
  /** Where logins elsewhere may lead back to, as the project's settings say. */
  redirects = [];
  /** Who logs in elsewhere. */
  elsewhere = "octo@example.com";
  #flows = new Map();
  #sessions = new Map();
  #server;
  #signing = generateKeyPairSync("ec", { namedCurve: "P-256" });

  get issuer() { return `${this.origin}/auth/v1`; }

  async start(port = 0) {
    this.#server = http.createServer((request, response) => this.#serve(request, response));
    await new Promise((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    this.port = this.#server.address().port;
    this.origin = `http://127.0.0.1:${this.port}`;
  }

  async stop() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  comeBack() { return this.start(this.port); }

  async #serve(request, response) {
    let text = "";
    for await (const chunk of request) text += chunk;
    const url = new URL(request.url, this.origin);
    const json = (status, value, headers = {}) => response.writeHead(status, { "content-type": "application/json", ...headers }).end(value && JSON.stringify(value));
    try {
      const token = request.headers.authorization?.replace(/^Bearer /, "");
      const given = url.searchParams;
      switch (`${request.method} ${url.pathname.replace("/auth/v1", "")}`) {
        case "GET /.well-known/jwks.json": return json(200, { keys: [this.#publicKey()] });
        case "GET /user": return json(200, this.#user(this.#of(token).email));
        case "POST /logout": this.#sessions.delete(this.#of(token).id); return json(204);
        case "POST /token": return json(200, this.#token(given.get("grant_type"), JSON.parse(text), request.headers["x-client-info"]));
        case "POST /otp": this.mails.set(JSON.parse(text).email, randomBytes(28).toString("hex")); return json(200, {});
        case "POST /verify": return json(200, this.#verify(JSON.parse(text)));
        case "GET /authorize": return response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(this.#elsewhere(given));
        case "GET /rest/v1/profiles": return json(200, [{ email: this.#of(token).email }]);
        default: return json(404, { message: "no Route matched with those values" });
      }
    } catch (error) {
      const [status, code] = error instanceof Refusal ? [error.status, error.message] : [500, "unexpected_failure"];
      this.refusals.push(code);
      json(status, { code, message: code }, { "x-sb-error-code": code, "x-supabase-api-version": "2024-01-01" });
    }
  }

  /** Ends every session; their tokens serve until they are over. */
  endSessions() { this.#sessions.clear(); }

  #token(grant, given, client = "nobody") {
    switch (grant) {
      case "password":
        if (given.password !== this.passwords[given.email]) throw new Refusal(400, "invalid_credentials");
        return this.#open(given.email);
      case "pkce": return this.#exchange(given);
      default:
        this.refreshed.push(given.refresh_token);
        this.refreshers.push(client);
        return this.#refresh(given.refresh_token);
    }
  }

  #open(email) {
    this.opened += 1;
    const session = { id: randomUUID(), email, tokens: [] };
    this.#sessions.set(session.id, session);
    return this.#issue(session, this.#child(session, null));
  }

  /** A code opens one session, for whoever has what its challenge was made of (RFC 7636 §4.6). */
  #exchange({ auth_code: code, code_verifier: verifier }) {
    const flow = this.#flows.get(code);
    if (!flow) throw new Refusal(404, "flow_state_not_found");
    if (createHash("sha256").update(verifier).digest("base64url") !== flow.challenge) throw new Refusal(400, "bad_code_verifier");
    this.#flows.delete(code);
    return this.#open(flow.email);
  }

  #verify({ token_hash: hash }) {
    const [email] = [...this.mails].find(([, sent]) => sent === hash) ?? [];
    if (!email) throw new Refusal(403, "otp_expired");
    this.mails.delete(email);
    return this.#open(email);
  }

  /** The page of whoever is asked elsewhere: one link says yes, one says no. */
  #elsewhere(given) {
    const redirect = given.get("redirect_to");
    if (!this.redirects.includes(redirect) || given.get("code_challenge_method") !== "s256") throw new Refusal(400, "validation_failed");
    const code = randomUUID();
    this.#flows.set(code, { challenge: given.get("code_challenge"), email: this.elsewhere });
    const link = (query, text) => `<p><a href="${redirect}?${query}">${text}</a>`;
    return `<!doctype html><html lang="en"><title>Elsewhere</title><h1>Log in with ${given.get("provider")}</h1>
      ${link(`code=${code}`, "Yes")}${link("error=access_denied&error_code=access_denied", "No")}`;
  }

  #refresh(text) {
    const session = [...this.#sessions.values()].find(({ tokens }) => tokens.some((token) => token.text === text));
    if (!session) throw new Refusal(400, "refresh_token_not_found");
    const active = session.tokens.findLast((token) => token.state === "active");
    // Whoever could not keep the answer gets it again, at any age.
    if (active?.parent === text) return this.#issue(session, active);
    const token = session.tokens.find((one) => one.text === text);
    if (token.state === "active") Object.assign(token, { state: "used", at: Date.now() });
    else if (token.state === "revoked" || Date.now() - token.at > REUSE_MILLISECONDS) {
      for (const one of session.tokens) one.state = "revoked";
      throw new Refusal(400, "refresh_token_already_used");
    }
    return this.#issue(session, this.#child(session, text));
  }

  #child(session, parent) {
    const token = { text: randomBytes(6).toString("hex"), parent, state: "active" };
    session.tokens.push(token);
    return token;
  }

  #issue(session, { text }) {
    const user = this.#user(session.email);
    const now = Math.floor(Date.now() / 1000) - this.age;
    const claims = {
      iss: this.issuer, sub: user.id, aud: "authenticated", exp: now + this.life, iat: now, email: user.email, role: "authenticated", aal: "aal1",
      session_id: session.id, app_metadata: user.app_metadata, user_metadata: {}, is_anonymous: false,
    };
    const signed = `${part({ alg: "ES256", kid: KEY_ID, typ: "JWT" })}.${part(claims)}`;
    const signature = createSign("sha256").update(signed).sign({ key: this.#signing.privateKey, dsaEncoding: "ieee-p1363" });
    return {
      access_token: `${signed}.${signature.toString("base64url")}`, token_type: "bearer", expires_in: this.life, expires_at: now + this.life,
      refresh_token: text, user, weak_password: null,
    };
  }

  #user(email) {
    const id = `00000000-0000-4000-8000-${Buffer.from(email).toString("hex").slice(0, 12).padEnd(12, "0")}`;
    const metadata = this.profiles.get(email.split("@")[0]) ?? { name: "à propos 🎫" };
    return { id, aud: "authenticated", role: "authenticated", email, app_metadata: { provider: "email", role: "user" }, user_metadata: metadata, identities: [] };
  }

  #publicKey() {
    return { ...this.#signing.publicKey.export({ format: "jwk" }), kid: KEY_ID, alg: "ES256", use: "sig", key_ops: ["verify"] };
  }

  /** The session of an access token. Its signature is not looked at: nobody here forges any. */
  #of(token) {
    const claims = JSON.parse(Buffer.from(token?.split(".")[1] ?? "", "base64url").toString() || "{}");
    const session = this.#sessions.get(claims.session_id);
    if (!session) throw new Refusal(403, "session_not_found");
    return session;
  }
}

export async function startProvider() {
  const provider = new Provider();
  await provider.start();
  return provider;
}
