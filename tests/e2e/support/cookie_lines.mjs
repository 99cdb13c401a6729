// Our own session cookies, by the line: `tests/cookie_lines.rs`.

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { artefacts, repository, run } from "./processes.mjs";

const file = path.join(artefacts, "cookie_lines");

/** Asks all questions at once and gives the answers in their order. */
export async function ask(questions) {
  rmSync(`${file}.answers`, { force: true });
  writeFileSync(file, questions.map((question) => `${JSON.stringify(question)}\n`).join(""));
  const args = ["test", "--locked", "--quiet", "--manifest-path", path.join(repository, "Cargo.toml"), "--test", "cookie_lines"];
  const { code, output } = await run("cargo", args, { TOLLHOUSE_COOKIE_LINES: file }, { milliseconds: 240_000 });
  if (code !== 0) throw new Error(`the cookies were not written: ${output.slice(-4000)}`);
  const answers = readFileSync(`${file}.answers`, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
  if (answers.length !== questions.length) throw new Error(`${answers.length} answers to ${questions.length} questions`);
  return answers;
}
