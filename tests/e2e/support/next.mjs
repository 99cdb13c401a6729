// The Next.js application of `next/`: built once for all tests, and started in front of one provider.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { freePort, here, run, start } from "./processes.mjs";

const folder = path.join(here, "next");
const next = path.join(here, "node_modules/next/dist/bin/next");
const stamp = path.join(folder, ".next/.built-of");
// supabase-js wants a WebSocket, which Node has without being asked since 22.
const NODE_OPTIONS = Number.parseInt(process.versions.node) < 22 ? "--experimental-websocket" : "";
const ENVIRONMENT = { NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production", NODE_OPTIONS };

/** What a build is made of: the sources, and the versions of what they use. */
function ingredients() {
  const files = readdirSync(folder, { recursive: true }).filter((file) => /\.m?jsx?$/.test(file) && !file.startsWith(".next")).sort();
  const hash = createHash("sha256").update(process.version).update(readFileSync(path.join(here, "package-lock.json")));
  for (const file of files) hash.update(file).update(readFileSync(path.join(folder, file)));
  return hash.digest("hex");
}

/** Builds unless that has been done: it takes longer than all tests of it. */
export async function buildNext() {
  const made = ingredients();
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === made) return;
  const { code, output } = await run(process.execPath, [next, "build", folder], ENVIRONMENT, { milliseconds: 240_000 });
  if (code !== 0) throw new Error(`the application does not build: ${output.slice(-4000)}`);
  writeFileSync(stamp, made);
}

/** The application, asking this provider. */
export async function startNext(name, provider) {
  const port = await freePort();
  const env = { ...ENVIRONMENT, SUPABASE_URL: provider.origin, SUPABASE_PUBLISHABLE_KEY: provider.key };
  const app = start(name, process.execPath, [next, "start", folder, "--hostname", "127.0.0.1", "--port", String(port)], env);
  const origin = `http://127.0.0.1:${port}`;
  await app.ready("its login page", async () => (await fetch(`${origin}/login`)).ok);
  return { process: app, origin };
}
