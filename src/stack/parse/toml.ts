import { parse, TomlError } from "smol-toml";
import { maxDepth } from "./place.ts";
import type { Parsed } from "./place.ts";
import { locateToml } from "./toml-place.ts";

/**
 * Reads TOML. smol-toml decides what is valid and what it means; a second walk over the accepted text finds where each
 * key and value is written, which smol-toml does not tell.
 */
export function parseToml(text: string): Parsed {
  let value: unknown;
  try {
    value = parse(text, { maxDepth, unsafeKeyBehaviour: "throw" });
  } catch (thrown) {
    if (!(thrown instanceof TomlError)) throw thrown;
    const start = offsetOf(text, thrown.line, thrown.column);
    return { problem: { span: { start, end: start + 1 }, ...explain(thrown.message, text.charAt(start)) } };
  }
  return { document: { value, place: locateToml(text) } };
}

/** smol-toml's first line, without its heading and its drawing, and what to do about it. `at`: the character it stands at. */
function explain(message: string, at: string): { message: string; hint: string } {
  const said = (message.split("\n")[0] ?? "").replace(/^Invalid TOML document: /, "");
  // The end of a line where a string or key should go on is no bad character: something before it was not finished.
  const endsEarly = at === "" || at === "\n" || at === "\r";
  const known = endsEarly ? [...earlyEnds, ...mends] : mends;
  const mend = known.find(([part]) => said.includes(part));
  return {
    message: mend?.[1] ?? `this is not TOML: ${said}`,
    hint: mend?.[2] ?? "see https://toml.io for how values are written",
  };
}

const earlyEnds: readonly (readonly [string, string, string])[] = [
  [
    "control characters",
    "the string is not finished on its line",
    "close it with the quote it begins with; a string of several lines is in three quotes",
  ],
  [
    "illegal character in key",
    "the line ends within a key or section name",
    "write key = value, or close the section with ]",
  ],
  ["invalid value", "the value is missing", "write a string in quotes, a number, true, false, a list or a table"],
];

/** Part of smol-toml's message → what is wrong, and the mend, in our words. */
const mends: readonly (readonly [string, string, string])[] = [
  ["trying to redefine", "this is defined a second time", "keep one of the two, or merge them into one table"],
  ["unsafe property", "this name is not allowed", "choose another name"],
  [
    "unfinished string",
    "a string begins here and does not end",
    "close it with the same quote it begins with, on the same line",
  ],
  ["unfinished table", "a table begins here and does not end", "close it with }"],
  ["unfinished array", "a list begins here and does not end", "close it with ]"],
  [
    "expected comma",
    "a comma is missing here, or the end of the list or table",
    "separate elements by commas, and close with ] or }",
  ],
  ["cannot find end of key", "a key without a value", "write key = value"],
  [
    "illegal character in key",
    "this character cannot be in a key",
    'write key = value, and put a key with other characters in quotes: "a/b" = …',
  ],
  [
    "followed by an end-of-line",
    "there is more on this line than one value",
    "put every key on a line of its own, and strings in quotes",
  ],
  ["unexpected end of key", "the key is missing", "write key = value"],
  ["invalid value", "this is not a value", 'strings need quotes: image = "nginx:1.27"'],
  ["invalid date", "this is not a date", "put it in quotes to make it a string"],
  ["leading zero", "a number must not begin with 0", 'leave the zeros out; a file mode is a string: "0644"'],
  ["losslessly", "this number is too large", "write a smaller one, or put it in quotes to make it a string"],
  ["excessively nested", `tables and lists are nested more than ${maxDepth} deep`, "write it flatter"],
  [
    "unrecognised escape",
    "this escape means nothing",
    "write \\\\ for a backslash, or use single quotes, in which nothing is special",
  ],
  ["control characters", "a control character in a string", "write it as an escape, such as \\n or \\t"],
];

/** smol-toml counts lines and columns from 1 and, like us, offsets in UTF-16 code units. */
function offsetOf(text: string, line: number, column: number): number {
  let start = 0;
  for (let seen = 1; seen < line; seen += 1) {
    const next = text.indexOf("\n", start);
    if (next === -1) break;
    start = next + 1;
  }
  return Math.min(text.length, start + Math.max(0, column - 1));
}
