import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { parseJson } from "./json.ts";
import { LineIndex } from "./place.ts";
import type { Place } from "./place.ts";

test("for any JSON, the value is what JSON.parse says and every span spells its value", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), fc.constantFrom(undefined, 2, "\t"), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      const { document, problem } = parseJson(text);
      if (problem !== undefined) {
        assert.equal(problem.message, "this name is not allowed");
        return;
      }
      assert.equal(JSON.stringify(document.value), JSON.stringify(value));
      agrees(text, value, document.place);
    }),
    { numRuns: 1000 },
  );
});

function agrees(text: string, value: unknown, place: Place): void {
  assert.equal(JSON.stringify(JSON.parse(text.slice(place.value.start, place.value.end))), JSON.stringify(value));
  if (typeof value !== "object" || value === null) return;
  for (const [key, item] of Object.entries(value)) {
    const member = place.members.get(key);
    assert(member !== undefined);
    if (member.key !== undefined) assert.equal(JSON.parse(text.slice(member.key.start, member.key.end)), key);
    agrees(text, item, member);
  }
}

test("any text is refused or read exactly when JSON.parse does so, but for equal keys and forbidden names", () => {
  const pieces = fc.constantFrom(
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    '"a"',
    '"b"',
    '"',
    "\\",
    "1",
    "-",
    ".",
    "e",
    "0",
    "true",
    "null",
    " ",
    "\n",
    "\u0001",
  );
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 12 }), (parts) => {
      const text = parts.join("");
      const { problem } = parseJson(text);
      if (problem?.message === "this is defined a second time") return;
      assert.equal(problem === undefined, accepts(text), text);
      if (problem !== undefined) assert(problem.span.start <= text.length && problem.hint !== "");
    }),
    { numRuns: 5000 },
  );
});

function accepts(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Broken text, where, and what is said. */
const broken: readonly (readonly [string, string])[] = [
  ["", "1:1 a value is expected here"],
  ['{"a": 1,}', "1:9 a comma before the end"],
  ["{a: 1}", "1:2 a key is expected here"],
  ['{"a" 1}', "1:6 a colon is missing here"],
  ['{"a": 1 "b": 2}', "1:9 a comma or } is missing here"],
  ['{"a": 1,\n "a": 2}', "2:2 this is defined a second time"],
  ['["x\ny"]', "1:2 this string holds what it may not"],
  ['["x', "1:2 a string begins here and does not end"],
  ["[01]", "1:2 a value is expected here"],
  ["[] []", "1:4 there is more after the end of the document"],
  ['{"__proto__": 1}', "1:2 this name is not allowed"],
  ["[".repeat(65), "1:65 objects and lists are nested more than 64 deep"],
];

test("broken JSON is refused where it is broken", () => {
  for (const [text, expected] of broken) {
    const { problem } = parseJson(text);
    assert(problem !== undefined, text);
    const { line, column } = new LineIndex(text).locate(problem.span);
    assert.equal(`${line}:${column} ${problem.message}`, expected);
  }
});
