// A backend in the test's own process: the test sees what arrives, and what is given up.

import { createHash } from "node:crypto";
import http from "node:http";

const json = (response, value) => response.setHeader("content-type", "application/json").end(JSON.stringify(value));

/** `pages` are HTML texts by their path; everything else goes by the last segment of the path. */
export async function startUpstream(pages = {}) {
  const upstream = {
    /** Paths of requests that were here, and of those whose client left before the answer was whole. */
    seen: [],
    abandoned: [],
    /** Lets the requests to `…/held` go on. */
    release() { held.splice(0).forEach((go) => go()); },
  };
  const held = [];
  const together = [];

  const answers = {
    small: (request, response) => response.end("small\n"),
    echo(request, response) {
      const headers = request.rawHeaders.flatMap((name, at, all) => (at % 2 === 0 ? [[name, all[at + 1]]] : []));
      json(response, { method: request.method, target: request.url, headers });
    },
    async upload(request, response) {
      const hash = createHash("sha256");
      let length = 0;
      for await (const chunk of request) {
        hash.update(chunk);
        length += chunk.length;
      }
      json(response, { length, sha256: hash.digest("hex") });
    },
    download(request, response) {
      response.end(upstream.large);
    },
    trailers(request, response) {
      response.writeHead(200, { trailer: "x-checksum", "transfer-encoding": "chunked" });
      response.write("with ");
      response.addTrailers({ "x-checksum": "right" });
      response.end("trailers\n");
    },
    held: (request, response) => held.push(() => response.end("released\n")),
    hang() {},
    /** Nobody is answered before a hundred are here. */
    hundred(request, response) {
      together.push(response);
      if (together.length === 100) together.splice(0).forEach((one) => one.end("together\n"));
    },
  };

  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://upstream");
    upstream.seen.push(pathname);
    response.on("close", () => { if (!response.writableFinished) upstream.abandoned.push(pathname); });
    if (pages[pathname]) return response.setHeader("content-type", "text/html; charset=utf-8").end(pages[pathname]);
    const answer = answers[pathname.split("/").at(-1)];
    if (!answer) return response.writeHead(404).end();
    Promise.resolve(answer(request, response)).catch(() => response.destroy());
  });
  server.keepAliveTimeout = 60_000;
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  upstream.origin = `http://127.0.0.1:${server.address().port}`;
  upstream.stop = () => { server.close(); server.closeAllConnections(); };
  return upstream;
}
