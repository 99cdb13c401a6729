// One request, exactly as written: no library adds, folds or reorders a header.

import http from "node:http";

/** Opens a request; `body` may be left open with `end: false`. Resolves with the response once its head is here. */
export function open(origin, target, { method = "GET", headers = {}, body, end = true } = {}) {
  const { hostname, port } = new URL(origin);
  const request = http.request({ hostname, port, path: target, method, headers, agent: false });
  const response = new Promise((resolve, reject) => request.on("response", resolve).on("error", reject));
  response.catch(() => {});
  if (body !== undefined) request.write(body);
  if (end) request.end(); else request.flushHeaders();
  return { request, response };
}

export async function text(response) {
  let whole = "";
  for await (const chunk of response.setEncoding("utf8")) whole += chunk;
  return whole;
}

/** A whole exchange: status, headers, text, and JSON where it is some. */
export async function send(origin, target, options) {
  const response = await open(origin, target, options).response;
  const whole = await text(response);
  const json = /\bjson\b/.test(response.headers["content-type"] ?? "") ? JSON.parse(whole) : undefined;
  return { status: response.statusCode, headers: response.headers, text: whole, json };
}

/** All values of a header that a backend of ours reports to have received. */
export function got(echo, name) {
  return echo.headers.filter(([field]) => field.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
}
