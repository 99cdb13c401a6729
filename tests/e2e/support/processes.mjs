// Starts processes, waits until they answer, and ends them by their own id.

import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const here = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
export const repository = path.dirname(path.dirname(here));
export const artefacts = path.join(here, "artefacts");
export const binary = process.env.TOLLHOUSE_BIN ?? path.join(repository, "target/debug/tollhouse");
const python = path.join(here, ".venv/bin/python");

mkdirSync(artefacts, { recursive: true });

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

const given = new Set();

/** A port that was free a moment ago, and is given to nobody else here. */
export async function freePort() {
  for (;;) {
    // Below the ports that the system gives to connections: one of those could take it before its server does.
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    if (given.has(port)) continue;
    given.add(port);
    const server = createServer();
    const free = await new Promise((resolve) => server.once("error", () => resolve(false)).listen(port, "127.0.0.1", () => resolve(true)));
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

/** Calls `probe` until it gives something truthy; the failure says what was waited for. */
export async function until(what, probe, { milliseconds = 20_000, unless = () => false } = {}) {
  const deadline = Date.now() + milliseconds;
  for (;;) {
    if (unless()) throw new Error(`no longer waiting for ${what}`);
    const found = await Promise.resolve().then(probe).catch(() => undefined);
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited ${milliseconds} ms for ${what}`);
    await pause(25);
  }
}

class Process {
  constructor(name, command, args, env) {
    this.name = name;
    this.output = "";
    // Everything here is on this machine; a proxy of the environment must not stand between.
    const local = { NO_PROXY: "127.0.0.1,localhost", no_proxy: "127.0.0.1,localhost", NO_COLOR: "1" };
    this.child = spawn(command, args, { cwd: repository, env: { ...process.env, ...local, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    running.add(this.child);
    this.ended = new Promise((resolve) => {
      this.child.on("error", (error) => { this.output += `${error}\n`; this.over = true; resolve(-1); });
      this.child.on("close", (code, signal) => { this.over = true; resolve(code ?? signal); });
    });
    this.ended.then(() => running.delete(this.child));
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (this.output += text));
    }
  }

  /** Waits for `probe`; a process that ends before is a failure at once, with its last words. */
  async ready(what, probe) {
    try {
      return await until(`${this.name}: ${what}`, probe, { unless: () => this.over });
    } catch (error) {
      this.keepLog();
      throw new Error(`${error.message}\n${this.output.slice(-4000)}`);
    }
  }

  /** The JSON objects of the output, one a line, from a place in it on. */
  lines(from = 0) {
    return this.output.slice(from).split("\n").slice(0, -1).filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  }

  keepLog() {
    writeFileSync(path.join(artefacts, `${this.name}.log`), this.output);
  }

  async stop() {
    this.keepLog();
    if (!this.over) this.child.kill("SIGTERM");
    const late = setTimeout(() => this.child.kill("SIGKILL"), 5_000);
    const code = await this.ended;
    clearTimeout(late);
    return code;
  }
}

export function start(name, command, args, env = {}) {
  return new Process(name, command, args, env);
}

/** Runs a command to its end: `{ code, output }`. */
export async function run(command, args, env = {}, { milliseconds = 30_000 } = {}) {
  const process = start(path.basename(command), command, args, env);
  const late = setTimeout(() => process.child.kill("SIGKILL"), milliseconds);
  const code = await process.ended;
  clearTimeout(late);
  return { code, output: process.output };
}

const answers = async (url) => (await fetch(url)).ok;

/**
 * `tollhouse demo`: gateway, provider and page in one process, with two users whose passwords it prints.
 * `origin` is the gateway's, through which applications reach the provider; `issuer` is what its tokens name.
 */
export async function startDemo(name = "demo") {
  const origin = `http://127.0.0.1:${await freePort()}`;
  const demo = start(name, binary, ["demo", "--listen", origin.slice("http://".length)]);
  // eslint-disable-next-line no-control-regex -- a banner may be coloured
  const banner = () => demo.output.replace(/\u001b\[[0-9;]*m/g, "");
  const passwords = () => Object.fromEntries([...banner().matchAll(/(ada|grace)@example\.com\s+(\S+)/g)].map(([, user, word]) => [user, word]));
  const publishable = () => /sb_publishable_[a-z0-9]+(?=\s)/.exec(banner())?.[0];
  await demo.ready("two passwords and a key in the banner", () => passwords().ada && passwords().grace && publishable());
  await demo.ready("the provider's keys", () => answers(`${origin}/auth/v1/.well-known/jwks.json`));
  // The provider says under which name it issues tokens.
  const key = publishable();
  const about = await fetch(`${origin}/auth/v1/.well-known/openid-configuration`, { headers: { apikey: key } });
  const { issuer } = await about.json();
  return { process: demo, origin, key, issuer, passwords: passwords() };
}

/** A FastAPI app under uvicorn. `app` is `module:name`, found in `folder`. */
export async function startFastApi(name, folder, app, env) {
  const port = await freePort();
  const args = ["-m", "uvicorn", app, "--app-dir", folder, "--host", "127.0.0.1", "--port", String(port), "--no-access-log"];
  const backend = start(name, python, args, { PYTHONDONTWRITEBYTECODE: "1", ...env });
  const origin = `http://127.0.0.1:${port}`;
  await backend.ready("/health", () => answers(`${origin}/health`));
  return { process: backend, origin };
}

/** A Python script of `support`, given the port as its argument, once it says that it listens. */
export async function startPython(name, script) {
  const port = await freePort();
  const server = start(name, python, [path.join(here, "support", script), String(port)], { PYTHONDONTWRITEBYTECODE: "1" });
  await server.ready("its port", () => server.output.includes("listening"));
  return { process: server, port, origin: `http://127.0.0.1:${port}` };
}

/** A client script of `support` with its order, as a process. */
export function startClient(script, order) {
  return start(path.basename(script, ".py"), python, [path.join(here, "support", script), JSON.stringify(order)], { PYTHONDONTWRITEBYTECODE: "1" });
}

/** What a client script tells of its exchange: the last line that is JSON, as soon as it is there. */
export async function told(client) {
  const last = () => client.lines().at(-1);
  await client.ready("its result", last).catch((error) => { if (!last()) throw error; });
  return last();
}

/** A Redis that keeps nothing on disk. */
export async function startRedis(name) {
  const port = await freePort();
  const server = start(name, "redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
  await server.ready("its connections", () => server.output.includes("Ready to accept connections"));
  return { process: server, url: `redis://127.0.0.1:${port}` };
}

/** `tollhouse run` with a configuration; `text` is given the two addresses it must listen on. */
export async function startTollhouse(name, text, env = {}) {
  const [port, admin] = [await freePort(), await freePort()];
  const file = path.join(artefacts, `${name}.toml`);
  writeFileSync(file, text({ listen: `127.0.0.1:${port}`, admin: `127.0.0.1:${admin}` }));
  const gateway = start(name, binary, ["run", "-c", file], env);
  const [origin, adminOrigin] = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${admin}`];
  await gateway.ready("/readyz", () => answers(`${adminOrigin}/readyz`));
  return { process: gateway, origin, admin: adminOrigin, file };
}
