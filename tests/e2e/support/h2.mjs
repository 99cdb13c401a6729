// An HTTP/2 client that shows what is on the wire: Node's own.

import http2 from "node:http2";
import { readFileSync } from "node:fs";

/** A session with `origin`, once the server's settings are here. `ca` is a file. */
export async function connect(origin, ca) {
  const session = http2.connect(origin, { ca: ca && readFileSync(ca) });
  await new Promise((resolve, reject) => session.once("remoteSettings", resolve).once("error", reject));
  session.on("error", () => {}); // each stream tells its own
  return session;
}

/** One exchange: `{ status, headers, body, trailers }`. Give `opened` to get the stream as soon as there is one. */
export function ask(session, target, { method = "GET", headers = {}, body, opened = () => {} } = {}) {
  const stream = session.request({ ":method": method, ":path": target, ...headers }, { endStream: body === undefined });
  const late = setTimeout(() => stream.destroy(new Error(`no answer from ${target} within 20 s`)), 20_000);
  opened(stream);
  return new Promise((resolve, reject) => {
    const answer = { body: "", trailers: {} };
    stream.on("response", (fields) => Object.assign(answer, { status: fields[":status"], headers: fields }));
    stream.on("trailers", (fields) => (answer.trailers = fields));
    stream.setEncoding("utf8").on("data", (text) => (answer.body += text));
    stream.on("error", reject);
    stream.on("close", () => {
      clearTimeout(late);
      if (answer.status) resolve(answer);
      else reject(new Error(`no answer: stream closed with ${stream.rstCode}`));
    });
    if (body !== undefined) stream.end(body);
  });
}
