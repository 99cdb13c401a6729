// The page of the demo: logs in and out, and sends requests. Text from outside goes into text nodes only.

import { el, render, shorten } from "/demo-result.js";
import { Refused, cookies, logIn, logOut, renew, signUp, toBase64Url, whoIsHere } from "/demo-session.js";

const by = (id) => document.getElementById(id);
const intro = document.querySelector(".intro");

// ---- Who is here ----

const UNREACHABLE = "The gateway cannot be reached. Is the demo still running?";
const chosen = () => document.querySelector("input[name=who]:checked");
const words = (error) => error instanceof Refused ? error.message : UNREACHABLE;

/** The view of the session, as the gateway gave it last; null: nobody. */
let view = null;

/** The passwords that stand behind the `#` of the address in the terminal. Only kept here, until the page is left. */
const passwords = new Map();

function takePasswords() {
  if (location.hash.length < 2) return;
  for (const [name, password] of new URLSearchParams(location.hash.slice(1))) passwords.set(`${name}@example.com`, password);
  history.replaceState(null, "", location.pathname);
  showPerson();
}

function showPerson() {
  const email = chosen().value;
  const name = chosen().parentElement.querySelector("b").textContent;
  const known = passwords.get(email);
  by("email").value = email;
  by("password").value = known ?? "";
  by("submit").textContent = email ? `Log in as ${name}` : "Sign up";
  by("login-title").textContent = email ? "Log in" : "Sign up";
  by("password").autocomplete = email ? "current-password" : "new-password";
  by("password-hint").textContent = known ? "Filled in from the address that you opened."
    : email ? `Copy it from the terminal: it stands beside ${email}.`
      : "Any address and at least 6 characters. The account lives until the demo ends.";
  by("form-error").hidden = true;
}

async function submitLogin(event) {
  event.preventDefault();
  const [email, password] = [by("email").value.trim(), by("password").value];
  try {
    if (!email || !password) return refuseLogin(email ? "Enter the password." : "Enter an email address.", email);
    const answer = await (chosen().value ? logIn : signUp)(email, password);
    if (answer.pending) return refuseLogin("Somebody has that address already. Choose another one.", "");
    by("password").value = "";
    by("form-error").hidden = true;
    by("notice").hidden = true;
    by("account-note").hidden = true;
    showAccount(answer);
    // What was refused to nobody is worth a second try; else begin with the first.
    const again = document.querySelector("#requests [aria-current]:has(.refused)");
    beginAnew("You are in: the gateway asked the provider, kept the tokens to itself and gave your browser a sealed cookie. Now send a request: the marked one is a good start.");
    const next = again ?? document.querySelector("#requests button");
    next.classList.add("next");
    next.focus();
    announce(`Logged in as ${email}. Now send a request.`);
  } catch (error) {
    refuseLogin(error.code === "login_failed" ? "Email and password do not fit together." : words(error), email);
  }
}

function refuseLogin(text, email) {
  by("form-error").textContent = text;
  by("form-error").hidden = false;
  by(email ? "password" : "email").focus();
}

async function submitLogout(scope) {
  try {
    await logOut(scope);
  } catch (error) {
    return note(words(error));
  }
  showAccount(null);
  showPerson();
  const everywhere = scope === "global" ? " No session of yours in another browser can be renewed any more." : "";
  beginAnew(`You are nobody again: the session is over, here and at the provider, and the cookie is gone.${everywhere} Log in, or send a request and see it stopped.`);
  announce(`Logged out: the session is over and the cookie is gone.${everywhere}`);
  by("password").focus();
}

async function submitRenew() {
  try {
    showAccount(await renew());
    note("Renewed: the gateway got a new token, and your browser a new cookie.");
  } catch (error) {
    note(words(error));
    await lookAgain();
  }
}

/** Says how something with the session went. */
function note(text) {
  by("account-note").textContent = text;
  by("account-note").hidden = false;
}

/** What somebody else got says nothing about whoever comes now. */
function beginAnew(text) {
  unmark();
  for (const last of document.querySelectorAll("#requests .last")) last.textContent = "";
  by("outcome").replaceChildren(intro, el("p", { className: "empty" }, text));
  intro.querySelector(".empty")?.remove();
  by("again").hidden = true;
}

/** Asks who is here: the page cannot see for itself whether there is a session. */
async function lookAgain() {
  try {
    const before = view;
    const now = await whoIsHere();
    if (view !== before) return; // somebody has logged in or out meanwhile, which is newer
    if (before && !now) {
      by("notice").textContent = "Your session is over. Log in again.";
      by("notice").hidden = false;
      showPerson();
    }
    showAccount(now);
  } catch {
    showAccount(view); // it cannot be asked now, which ends nothing
  }
}

function showAccount(now) {
  view = now;
  by("signed-out").hidden = Boolean(view);
  by("signed-in").hidden = !view;
  showWhatScriptsRead();
  if (!view) return;
  by("account-email").textContent = view.user.email ?? view.user.id;
  by("account-role").textContent = view.user.roles.join(", ") || "none";
  by("account-until").textContent = `${new Date(view.expires_at * 1000).toLocaleTimeString()}, renewed before`;
}

function showWhatScriptsRead() {
  const names = [...cookies().keys()];
  const empty = document.cookie === "";
  by("script-reads").textContent = JSON.stringify(shorten(document.cookie));
  by("script-words").textContent = empty
    ? "Empty: no script, yours or a thief\u2019s, can read the session."
    : `The session is not in there. Something else on this host left ${names.join(", ")}.`;
  by("script-reads").closest(".peek").classList.toggle("other", !empty);
}

// ---- Requests ----

// The routes as they stand in the gateway's file.
const API = `# auth = "required" is the default: nobody gets here without a session or a token that verifies.
[[routes]]
name = "api"
path = "/api/*"
upstream = "demo"`;
const ADMIN = `[[routes]]
name = "admin"
path = "/api/admin/*"
upstream = "demo"
require = { any_role = ["admin"] }`;
const PUBLIC = `[[routes]]
name = "public"
path = "/api/public/*"
auth = "public"
upstream = "demo"`;
const LIMITED = `[rate_limits.demo]
rate = "5/min"
by = "user"

[[routes]]
name = "limited"
path = "/api/limited"
upstream = "demo"
rate_limits = ["demo"]`;

// A token that says it is nobody's to check: `"alg": "none"`, no signature, and root as its subject.
const unsigned = () => [{ alg: "none", typ: "JWT" }, { sub: "root", iss: `${location.origin}/auth/v1`, aud: "authenticated", exp: 4102444800 }]
  .map((value) => `${toBase64Url(JSON.stringify(value))}.`).join("");

const REQUESTS = [
  ["Who may pass", [
    { path: "/api/me", title: "A protected route", note: "needs a session", rule: API },
    { path: "/api/admin/users", title: "An admin route", note: "needs the role admin", rule: ADMIN },
    { path: "/api/public/hello", title: "A public route", note: "is open to everybody", rule: PUBLIC },
  ]],
  ["Try to cheat", [
    { path: "/api/me", title: "A forged header", note: "X-User-Id: root", headers: () => ({ "X-User-Id": "root" }), rule: API },
    { path: "/api/me", title: "A forged token", note: "unsigned, says root", headers: () => ({ Authorization: `Bearer ${unsigned()}` }), rule: API },
  ]],
  ["Limits and streams", [
    { path: "/api/limited", title: "A limited route", note: "5 a minute per user", rule: LIMITED },
    { path: "/api/limited", title: "Send 8 at once", note: "to the limited route", times: 8, rule: LIMITED },
    { path: "/api/sse", title: "A stream", note: "five events, live", stream: true, rule: API },
  ]],
];

async function send(request) {
  const sent = {
    path: request.path,
    headers: { Accept: request.stream ? "text/event-stream" : "application/json", ...request.headers?.() },
    cookies: cookies(),
    session: Boolean(view),
  };
  const started = performance.now();
  const response = await fetch(sent.path, { headers: sent.headers, cache: "no-store" });
  const result = { request, sent, response, ms: Math.round(performance.now() - started), answer: null };
  if (request.stream && response.ok) return result;
  const text = await response.text();
  try { result.answer = JSON.parse(text); } catch { /* not JSON */ }
  // There was none, whatever this page believed.
  if (result.answer?.code === "missing_credentials") sent.session = false;
  return result;
}

/** Seconds before its token's end from which on a session may have been renewed with any request. */
const SOON = 120;

let busy = false;

async function run(request, button) {
  if (busy) return;
  busy = true;
  by("account-note").hidden = true;
  by("result").setAttribute("aria-busy", "true");
  try {
    const results = await Promise.all(Array.from({ length: request.times ?? 1 }, () => send(request)));
    const shown = results.find((one) => !one.response.ok) ?? results[0];
    show(render(shown, results));
    mark(button, results);
    announce(summary(shown, results));
    // It may have ended, or been renewed on the way.
    const doubtful = results.some((one) => one.response.status === 401) || view?.expires_at - Date.now() / 1000 < SOON;
    if (view && doubtful) await lookAgain();
    if (request.stream && shown.response.ok) await follow(shown.response);
  } catch {
    show([el("p", { className: "error" }, UNREACHABLE)]);
    mark(button, []);
    announce("The gateway cannot be reached.");
  } finally {
    busy = false;
    by("result").removeAttribute("aria-busy");
  }
}

function unmark() {
  for (const button of document.querySelectorAll("#requests button")) {
    button.classList.remove("next");
    button.removeAttribute("aria-current");
  }
}

/** Shows on the buttons which one was pressed last, and what each one got. */
function mark(button, results) {
  unmark();
  button.setAttribute("aria-current", "true");
  const statuses = [...new Set(results.map((one) => one.response.status))].sort();
  const last = button.querySelector(".last");
  last.textContent = statuses.join(", ");
  last.classList.toggle("refused", statuses.some((status) => status >= 400));
}

async function follow(response) {
  const list = el("ol", { className: "events" });
  by("outcome").querySelector(".rule").before(el("h3", {}, "Events as they came"), list);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  const began = performance.now();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").find((line) => line.startsWith("data:")) ?? part;
      list.append(el("li", {}, `${data.slice(5).trim()}  after ${Math.round(performance.now() - began)} ms`));
    }
  }
  announce("The stream has ended.");
}

// ---- Showing ----

const announce = (text) => { by("announce").textContent = text; };

function show(children) {
  const outcome = by("outcome");
  outcome.replaceChildren(...children);
  by("again").hidden = false;
  outcome.classList.remove("fresh");
  void outcome.offsetWidth; // lets the animation begin again
  outcome.classList.add("fresh");
  const result = by("result");
  if (result.getBoundingClientRect().top > innerHeight * 0.6) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    result.scrollIntoView({ behavior: calm ? "auto" : "smooth" });
  }
}

const summary = ({ sent, response, answer }, results) => {
  if (results.length > 1) return `${results.length} requests: ${results.filter((one) => one.response.ok).length} let through.`;
  return `GET ${sent.path}: ${response.status}${answer?.code ? `, ${answer.code}` : ""}.`;
};

// ---- Begin ----

for (const [group, requests] of REQUESTS) {
  const list = el("ul");
  for (const request of requests) {
    const button = el("button", { type: "button" },
      el("span", {}, request.title), el("span", { className: "last" }),
      el("span", { className: "detail" }, el("span", { className: "mono" }, request.path), ` ${request.note}`));
    button.addEventListener("click", () => run(request, button));
    list.append(el("li", {}, button));
  }
  by("requests").append(el("h3", {}, group), list);
}
for (const choice of document.querySelectorAll("input[name=who]")) choice.addEventListener("change", showPerson);
by("login").addEventListener("submit", submitLogin);
by("logout").addEventListener("click", () => submitLogout("local"));
by("logout-everywhere").addEventListener("click", () => submitLogout("global"));
by("renew").addEventListener("click", submitRenew);
addEventListener("hashchange", takePasswords);
// It may have ended, or begun, in another tab meanwhile.
document.addEventListener("visibilitychange", () => { if (!document.hidden) lookAgain(); });
showPerson();
takePasswords();
await lookAgain();
