// Runs the test files one after another and counts. The last line is plain: "N passed, N failed".
// `node run.mjs demo` runs only the files whose name contains `demo`.

import { readdirSync } from "node:fs";
import path from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const wanted = process.argv[2] ?? "";
const files = readdirSync(here)
  .filter((name) => name.endsWith(".test.mjs") && name.includes(wanted))
  // supabase-ssr first: it opens with the smallest test.
  .sort((one, other) => other.startsWith("supabase-ssr") - one.startsWith("supabase-ssr") || one.localeCompare(other))
  .map((name) => path.join(here, name));

let [passed, failed] = [0, 0];
const isTest = (event) => event.details?.type !== "suite" && event.name !== event.file;
// A file has five minutes, and more when it is asked for great numbers (session-cookies.test.mjs).
const timeout = 300_000 + 20 * Number(process.env.TOLLHOUSE_SESSIONS ?? 0);
const stream = run({ files, concurrency: 1, timeout });
stream.on("test:pass", (event) => { if (isTest(event) && event.skip === undefined) passed += 1; });
// A failing suite or file counts as well: its set-up may have failed before any test.
stream.on("test:fail", (event) => { if (isTest(event) || event.details?.error?.failureType !== "subtestsFailed") failed += 1; });
stream.compose(new spec()).pipe(process.stdout);
stream.on("end", () => process.once("beforeExit", () => {
  if (passed === 0) failed += 1;
  console.log(`\n${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}));
