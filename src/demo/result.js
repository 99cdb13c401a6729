// How the outcome of a request looks: what the browser sent beside what the backend says it received. Text from outside
// goes into text nodes only.

import { COOKIE, claimsOf } from "/demo-session.js";

/** An element with properties and children; strings become text. */
export function el(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const shorten = (text, keep = 28) =>
  text.length > keep + 12 ? `${text.slice(0, keep)}… (${text.length}\u00a0characters)` : text;

function story({ request, response, answer, sent }, results) {
  const signedIn = sent.session;
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
  return "Your cookie stopped at the gate. It was opened there, and the token inside verified and sent on as a Bearer token, with your user id beside it. This page sees the token only because the demo\u2019s backend tells what it receives.";
}

/** Why the gateway answered alone. */
function alone(code) {
  switch (code) {
    case "missing_credentials": return "You are nobody yet, and this route needs a session. Your backend never heard of the request. Log in and send it again.";
    case "forbidden": return "Tollhouse knows who you are, and that you are no admin. Your backend never heard of the request. Grace may call this: log in as her.";
    case "rate_limited": return "Your limit is used up for the moment. Your backend never heard of the request.";
    case "token_expired": case "session_expired": case "invalid_token": return "What you sent proves nothing, or nothing any more. Log in again.";
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
  if (sent.session) {
    const unseen = el("span", { className: "unseen" }, "sealed, and hidden from this page");
    const name = `Cookie ${COOKIE}`;
    rows.push(got.has("authorization") ? row("swapped", name, unseen, "swapped") : compare(false, name, unseen));
  }
  for (const [name, value] of sent.cookies) {
    rows.push(compare((got.get("cookie") ?? "").includes(`${name}=`), `Cookie ${name}`, shorten(value)));
  }
  for (const [name, value] of Object.entries(sent.headers)) rows.push(compare(got.get(name.toLowerCase()) === value, name, shorten(value)));
  return el("section", { className: "pane" },
    el("h3", {}, "Your browser sent"),
    el("p", { className: "line" }, `GET ${sent.path}`),
    el("ul", { className: "headers" }, ...rows),
    el("p", {}, sent.session ? "" : "No session. ", "What the browser adds by itself, such as User-Agent, is hidden from this page."));
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
    who.length && !received.some(([name]) => name === "cookie") ? el("p", {}, "No cookie.") : null,
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
  const bearer = (received ?? []).some(([name]) => name === "authorization");
  const carries = sent.headers.Authorization ? "forged token" : sent.session ? "sealed cookie" : "no session";
  const through = response.ok;
  return el("ol", { className: "way" },
    el("li", { className: "stop" }, "Your browser"),
    el("li", { className: "leg" }, carries),
    el("li", { className: "stop gate" }, "Tollhouse"),
    el("li", { className: through ? "leg" : "leg cut" }, through ? (bearer || request.stream ? "Bearer token" : "no token") : `stopped: ${response.status}`),
    el("li", { className: "stop" }, "Your backend"));
}

/** The elements that show `result`, one of `results`. */
export function render(result, results) {
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
