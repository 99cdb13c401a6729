// Cookie headers as browsers come to send them after answers that were cut short, tabs that raced each other, and people who
// copied one by hand.

import { parseCookieHeader } from "@supabase/ssr";

const pairs = (header) => header.split("; ").filter(Boolean).map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]);

/** One of these at a time, on `[name, value]` pairs; `other` are those of another session. */
const ACCIDENTS = {
  nothing: (dice, list) => list,
  "a piece is missing": (dice, list) => list.toSpliced(dice.below(list.length), 1),
  "a value is empty": (dice, list) => changed(dice, list, () => ""),
  "a value is cut": (dice, list) => changed(dice, list, (value) => value.slice(0, dice.below(value.length + 1))),
  "a value begins later": (dice, list) => changed(dice, list, (value) => value.slice(dice.below(9))),
  "a value is in quotes": (dice, list) => changed(dice, list, (value) => `"${value}"`),
  "a value has spaces around": (dice, list) => changed(dice, list, (value) => ` \t${value}  `),
  "a value is escaped": (dice, list) => changed(dice, list, escaped),
  "a value is half escaped": (dice, list) => changed(dice, list, (value) => value + dice.pick(["%", "%zz", "%E2%82", "%3D", "="])),
  "pieces of two": (dice, list, other) => list.map(([name, value]) => [name, dice.chance(0.5) ? value : other.find(([one]) => one === name)?.[1] ?? value]),
  "the other's last pieces": (dice, list, other) => [...list, ...other.filter(([name]) => !list.some(([one]) => one === name))],
  "both, one behind the other": (dice, list, other) => [...list, ...other],
  "another order": (dice, list) => list.toReversed(),
  "one twice": (dice, list, other) => [...list, dice.pick(other), dice.pick(list)],
  "one of many before": (dice, list, other) => [dice.pick(other), ...list],
  "the whole one, too": (dice, list, other, key) => [[key, dice.pick(["", "x", "null", "base64-", "base64-e30", "%7B%7D", list[0][1]])], ...list],
  "names that are none": (dice, list, other, key) => [...list, [`${key}.01`, "x"], [`${key}.`, "x"], [`${key}.-1`, "x"], [`${key}.1e0`, "x"], [key.toUpperCase(), "x"]],
  "another prefix": (dice, list) => changed(dice, list, (value) => value.replace(/^base64-/, dice.pick(["BASE64-", "base64l-1-", "base64-base64-", "", "base64- "]))),
};

function changed(dice, list, change) {
  const at = dice.below(list.length);
  return list.map(([name, value], index) => [name, index === at ? change(value) : value]);
}

const escaped = (value) => (value.includes("%") ? value : value.replace(/[^]/g, (one) => `%${one.charCodeAt(0).toString(16).padStart(2, "0")}`));

/** The cookies of the first of two sessions, to which up to three things have happened. */
export function damaged(dice, [header, other], key) {
  let list = pairs(header);
  for (let times = 1 + dice.below(3); times > 0 && list.length > 0; times -= 1) {
    const all = Object.values(ACCIDENTS);
    list = dice.pick(all)(dice, list, pairs(other), key);
  }
  const parts = list.map((pair) => pair.join("="));
  if (dice.chance(0.1)) parts.splice(dice.below(parts.length + 1), 0, dice.pick(["", "bare", key, "="]));
  return parts.join(dice.pick(["; ", ";", " ;\t"]));
}

/** The session's values in a header as the library puts them together: the whole cookie, and the pieces. */
export function sessionValue(header, key) {
  const all = parseCookieHeader(header);
  const value = (name) => all.find((cookie) => cookie.name === name)?.value;
  let pieces = "";
  for (let at = 0; value(`${key}.${at}`); at += 1) pieces += value(`${key}.${at}`);
  return { own: value(key), pieces };
}
