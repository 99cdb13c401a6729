// Our own session cookies, by the line: `tests/cookie_lines.rs`.

import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { artefacts, repository, run } from "./processes.mjs";

const file = path.join(artefacts, "cookie_lines");

let program;

/** The built test, which is asked many times: a copy, because great numbers take long and somebody may build meanwhile. */
async function built() {
  const args = ["test", "--locked", "--no-run", "--message-format=json", "--manifest-path", path.join(repository, "Cargo.toml"), "--test", "cookie_lines"];
  const { code, output } = await run("cargo", args, {}, { milliseconds: 240_000 });
  const messages = output.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  const { executable } = messages.find(({ target, executable }) => target?.name === "cookie_lines" && executable) ?? {};
  if (code !== 0 || !executable) throw new Error(`tests/cookie_lines.rs does not build: ${output.slice(-4000)}`);
  const copy = path.join(artefacts, "cookie_lines.built");
  copyFileSync(executable, copy);
  return copy;
}

/** Asks all questions at once and gives the answers in their order. */
export async function ask(questions) {
  rmSync(`${file}.answers`, { force: true });
  writeFileSync(file, questions.map((question) => `${JSON.stringify(question)}\n`).join(""));
  program ??= await built();
  const { code, output } = await run(program, [], { TOLLHOUSE_COOKIE_LINES: file }, { milliseconds: 60_000 });
  if (code !== 0) throw new Error(`the cookies were not written: ${output.slice(-4000)}`);
  const answers = readFileSync(`${file}.answers`, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
  if (answers.length !== questions.length) throw new Error(`${answers.length} answers to ${questions.length} questions`);
  return answers;
}
