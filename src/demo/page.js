// The page of the demo: sends requests and shows what it sent beside what the backend says it received.
// Text from outside goes into text nodes only.

import { claimsOf, cookies, isSessionCookie, logIn, logOut, readSession, recognise, renew, sessionCookies, signUp, toBase64Url } from "/demo-session.js";

const by = (id) => document.getElementById(id);
const intro = document.querySelector(".intro");

/** An element with properties and children; strings become text. */
function el(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const shorten = (text, keep = 28) =>
  text.length > keep + 12 ? `${text.slice(0, keep)}… (${text.length}\u00a0characters)` : text;

// ---- Who is here ----

const UNREACHABLE = "The gateway cannot be reached. Is the demo still running?";
const chosen = () => document.querySelector("input[name=who]:checked");

function showPerson() {
  const email = chosen().value;
  const name = chosen().parentElement.querySelector("b").textContent;
  by("email").value = email;
  by("submit").textContent = email ? `Log in as ${name}` : "Sign up";
  by("login-title").textContent = email ? "Log in" : "Sign up";
  by("password").autocomplete = email ? "current-password" : "new-password";
  by("password-hint").textContent = email
    ? `Copy it from the terminal: it stands beside ${email}.`
    : "Any address and at least 6 characters. The account lives until the demo ends.";
  by("form-error").hidden = true;
}

async function submitLogin(event) {
  event.preventDefault();
  const [email, password] = [by("email").value.trim(), by("password").value];
  try {
    if (!email || !password) throw new Error(email ? "Enter the password." : "Enter an email address.");
    await (chosen().value ? logIn : signUp)(email, password);
    by("password").value = "";
    by("form-error").hidden = true;
    by("notice").hidden = true;
    showAccount();
    // What was refused to nobody is worth a second try; else begin with the first.
    const again = document.querySelector("#requests [aria-current]:has(.refused)");
    beginAnew("You are in. Now send a request: the marked one is a good start.");
    const next = again ?? document.querySelector("#requests button");
    next.classList.add("next");
    next.focus();
    announce(`Logged in as ${email}. Now send a request.`);
  } catch (error) {
    by("form-error").textContent = error instanceof TypeError ? UNREACHABLE : error.message;
    by("form-error").hidden = false;
    by(email ? "password" : "email").focus();
  }
}

async function submitLogout() {
  const told = await logOut();
  beginAnew("You are nobody again. Log in, or send a request and see it stopped.");
  showAccount();
  announce(told ? "Logged out. The provider ended the session; the cookies are gone."
    : "Logged out. The provider did not know the session any more; the cookies are gone.");
  by("password").focus();
}

/** What somebody else got says nothing about whoever comes now. */
function beginAnew(text) {
  unmark();
  for (const last of document.querySelectorAll("#requests .last")) last.textContent = "";
  by("outcome").replaceChildren(intro, el("p", { className: "empty" }, text));
  intro.querySelector(".empty")?.remove();
  by("again").hidden = true;
}

function tellOver() {
  by("notice").textContent = "Your session is over, or from an earlier run of the demo. Log in again.";
  by("notice").hidden = false;
}

function showAccount() {
  const session = readSession();
  by("signed-out").hidden = Boolean(session);
  by("signed-in").hidden = !session;
  if (!session) return;
  const claims = claimsOf(session.access_token) ?? {};
  by("account-email").textContent = claims.email ?? session.user?.email ?? "unknown";
  by("account-role").textContent = claims.app_metadata?.role ?? "none";
  by("account-until").textContent = claims.exp ? new Date(claims.exp * 1000).toLocaleTimeString() : "unknown";
  by("account-cookies").textContent = sessionCookies().join(", ");
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
  };
  const started = performance.now();
  const response = await fetch(sent.path, { headers: sent.headers, cache: "no-store" });
  const result = { request, sent, response, ms: Math.round(performance.now() - started), answer: null, text: "" };
  if (request.stream && response.ok) return result;
  result.text = await response.text();
  try { result.answer = JSON.parse(result.text); } catch { /* shown as text */ }
  return result;
}

let busy = false;

async function run(request, button) {
  if (busy) return;
  busy = true;
  by("result").setAttribute("aria-busy", "true");
  try {
    if (!(await renew())) tellOver();
    const results = await Promise.all(Array.from({ length: request.times ?? 1 }, () => send(request)));
    const shown = results.find((one) => !one.response.ok) ?? results[0];
    show(render(shown, results));
    mark(button, results);
    announce(summary(shown, results));
    if (request.stream && shown.response.ok) await follow(shown.response);
  } catch {
    show([el("p", { className: "error" }, UNREACHABLE)]);
    mark(button, []);
    announce("The gateway cannot be reached.");
  } finally {
    busy = false;
    by("result").removeAttribute("aria-busy");
    showAccount(); // the session may have been renewed, or have ended
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

function story({ request, response, answer, sent }, results) {
  const signedIn = [...sent.cookies.keys()].some(isSessionCookie);
  if (results.length > 1) {
    const through = results.filter((one) => one.response.ok).length;
    const code = answer?.code;
    if (through === 0 && code !== "rate_limited") return alone(code);
    return `${through || "None"} of ${results.length} reached your backend. ${through ? "The others" : "All"} met the limit and were told when to come back. The limit belongs to you as a user, not to your address.`;
  }
  if (!response.ok) return request.title === "A forged token" && answer?.code === "invalid_token"
    ? `Nobody signed this token, so it proves nothing. ${signedIn ? "Your good cookie does not rescue it: a credential that is sent must be right." : "It never reached your backend."}`
    : alone(answer?.code);
  if (request.stream) return "Your session was checked once. Each event is passed on the moment it comes.";
  if (request.path.startsWith("/api/public/")) return signedIn
    ? "Anybody may call this. Your cookie was not even looked at, and it was not handed on either."
    : "Anybody may call this, with or without a session.";
  if (request.title === "A forged header") return "Your page claimed to be root. That header was thrown away, and the backend got the id that your verified token stands for.";
  return "Your cookie stopped at the gate. The token inside was verified and went on as a Bearer token, with your user id beside it.";
}

/** Why the gateway answered alone. */
function alone(code) {
  switch (code) {
    case "missing_credentials": return "You are nobody yet, and this route needs a session. Your backend never heard of the request. Log in and send it again.";
    case "forbidden": return "Tollhouse knows who you are, and that you are no admin. Your backend never heard of the request. Grace may call this: log in as her.";
    case "rate_limited": return "Your limit is used up for the moment. Your backend never heard of the request.";
    case "token_expired": case "session_expired": case "invalid_token": return "The session in your cookie is not, or no longer, a good one. Log out and log in again.";
    case "auth_unavailable": return "The provider's keys could not be fetched, so nobody can be verified. Tollhouse would rather refuse than guess.";
    default: return "Your backend did not answer this request.";
  }
}

function row(kind, name, value, tag) {
  return el("li", { className: kind },
    el("b", {}, `${name}: `), tag ? el("span", { className: "tag" }, tag) : null, el("span", { className: "value" }, value));
}

// Nothing is marked when the backend received nothing: then there is nothing to compare with.
function sentPane({ sent }, received) {
  const got = new Map(received ?? []);
  const compare = (same, name, value) => same || !received ? row("", name, value) : row("removed", name, value, "removed");
  const rows = [];
  for (const [name, value] of sent.cookies) {
    const session = isSessionCookie(name);
    const kept = !session && (got.get("cookie") ?? "").includes(`${name}=`);
    rows.push(session && got.has("authorization")
      ? row("swapped", `Cookie ${name}`, shorten(value), "swapped")
      : compare(kept, `Cookie ${name}`, shorten(value)));
  }
  for (const [name, value] of Object.entries(sent.headers)) rows.push(compare(got.get(name.toLowerCase()) === value, name, shorten(value)));
  return el("section", { className: "pane" },
    el("h3", {}, "Your browser sent"),
    el("p", { className: "line" }, `GET ${sent.path}`),
    el("ul", { className: "headers" }, ...rows),
    el("p", {}, sent.cookies.size ? "" : "No cookies. ", "What the browser adds by itself, such as User-Agent, is hidden from this page."));
}

// What the gateway writes itself, whatever the client sent under the same name: first who is calling, then the rest.
const WHO = ["authorization", "x-user-id", "x-user-email", "x-user-role", "x-auth-provider"];
const ABOUT = ["x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "traceparent"];

const facts = (pairs, mono = false) => el("dl", { className: "facts" },
  ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { className: mono ? "mono" : "" }, value))));

function receivedPane({ answer, request, response }, received) {
  const pane = (...children) => el("section", { className: "pane received" }, el("h3", {}, "Your backend received"), ...children);
  if (!received && request.stream && response.ok) return pane(el("p", {}, "The same request, with a Bearer token. It answered with the events below."));
  if (!received) {
    const { code, detail, request_id: id } = answer ?? {};
    const pairs = [["Code", code], ["Detail", detail], ["Request ID", id]].filter(([, value]) => value);
    return pane(el("p", { className: "nothing" }, el("b", {}, "Nothing.")),
      pairs.length ? el("p", {}, "Tollhouse answered your browser by itself:") : null, pairs.length ? facts(pairs) : null);
  }
  const named = (names) => names.flatMap((wanted) => received.filter(([name]) => name === wanted));
  const [who, about] = [named(WHO), named(ABOUT)];
  const rest = received.filter(([name]) => !WHO.includes(name) && !ABOUT.includes(name));
  const added = ([name, value]) => name === "authorization"
    ? row("swapped", name, shorten(value), "from the cookie") : row("added", name, value, "added");
  return pane(
    el("p", { className: "line" }, `${answer.method} ${answer.path}`),
    who.length ? el("ul", { className: "headers" }, ...who.map(added))
      : el("p", { className: "nothing" }, "No cookie, no token, no user: this route is public."),
    el("details", { open: !who.length }, el("summary", {}, `${about.length} ${who.length ? "more " : ""}that Tollhouse added`),
      el("ul", { className: "headers" }, ...about.map(added))),
    el("details", {}, el("summary", {}, `${rest.length} passed on`),
      el("ul", { className: "headers" }, ...rest.map(([name, value]) => row("", name, shorten(value, 120))))));
}

function claimsPane(received) {
  const bearer = (received ?? []).find(([name]) => name === "authorization")?.[1] ?? "";
  const claims = claimsOf(bearer.replace(/^Bearer /i, ""));
  if (!claims) return null;
  const lines = Object.entries(claims).map(([name, value]) => {
    const time = ["exp", "iat"].includes(name) ? el("span", { className: "quiet" }, `  ${new Date(value * 1000).toLocaleString()}`) : null;
    return el("div", {}, el("dt", {}, name), el("dd", {}, typeof value === "string" ? value || "(empty)" : JSON.stringify(value), time));
  });
  return el("details", { className: "claims" }, el("summary", {}, "What the Bearer token says"), el("dl", {}, ...lines));
}

const rulePane = ({ request }) => el("section", { className: "rule" },
  el("h3", {}, "The rule, as it stands in the gateway's file"), el("pre", {}, request.rule));

function limitFacts({ response }) {
  const left = response.headers.get("ratelimit")?.match(/;\s*r=(\d+)/)?.[1];
  const again = response.headers.get("retry-after");
  const pairs = [["Left now", left], ["Come back in", again && `${again} s`], ["Policy", response.headers.get("ratelimit-policy")]]
    .filter(([, value]) => value);
  return pairs.length ? facts(pairs, true) : null;
}

function way({ request, response, sent }, received) {
  const session = [...sent.cookies.keys()].some(isSessionCookie);
  const bearer = (received ?? []).some(([name]) => name === "authorization");
  const carries = sent.headers.Authorization ? "forged token" : session ? "session cookie" : "no session";
  const through = response.ok;
  return el("ol", { className: "way" },
    el("li", { className: "stop" }, "Your browser"),
    el("li", { className: "leg" }, carries),
    el("li", { className: "stop gate" }, "Tollhouse"),
    el("li", { className: through ? "leg" : "leg cut" }, through ? (bearer || request.stream ? "Bearer token" : "no token") : `stopped: ${response.status}`),
    el("li", { className: "stop" }, "Your backend"));
}

function render(result, results) {
  const { response, answer, sent, ms } = result;
  const received = response.ok && Array.isArray(answer?.headers) ? answer.headers : null;
  const status = (one) => el("span", { className: one.response.ok ? "status" : "status refused" }, String(one.response.status));
  const many = results.length > 1;
  const through = results.filter((one) => one.response.ok).length;
  const verdict = many ? `${through} of ${results.length} let through` : response.ok ? "Let through" : "Stopped at the gate";
  return [
    el("p", { className: "headline" }, many ? null : status(result), el("b", { className: "verdict" }, verdict),
      el("span", { className: "mono" }, `GET ${sent.path}`), el("span", { className: "quiet" }, many ? "" : `${ms} ms`)),
    many ? el("ul", { className: "burst" }, ...results.map((one) => el("li", {}, status(one)))) : null,
    el("p", { className: "story" }, story(result, results)),
    limitFacts(result),
    many ? el("h3", {}, response.ok ? "One of them:" : "One that was stopped:") : null,
    way(result, received),
    el("div", { className: "sides" }, sentPane(result, received), receivedPane(result, received)),
    claimsPane(received),
    rulePane(result),
  ].filter(Boolean);
}

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
by("logout").addEventListener("click", submitLogout);
showPerson();
showAccount();
if (!(await recognise())) {
  tellOver();
  showAccount();
}
