import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import * as fc from "fast-check";
import { parse, stringify } from "smol-toml";
import { findSpan, LineIndex } from "./place.ts";
import type { KeyPath, Place } from "./place.ts";
import { parseToml } from "./toml.ts";
import { locateToml } from "./toml-place.ts";

/** Where a value or key of `text` is, as `line:column text-of-the-span`. */
function whereIs(text: string, path: KeyPath, part: "key" | "value"): string {
  const span = findSpan(locateToml(text), path, part);
  const { line, column } = new LineIndex(text).locate(span);
  return `${line}:${column} ${text.slice(span.start, span.end)}`;
}

/** Text, path, part, and where it should be found: the shapes that toml-test covers, with positions. */
const positions: readonly (readonly [string, KeyPath, "key" | "value", string])[] = [
  ["a = 1", ["a"], "key", "1:1 a"],
  ["a = 1", ["a"], "value", "1:5 1"],
  ["\ufeffa = 1", ["a"], "key", "1:1 a"],
  ["# c\n\n  a  =  'x' # c", ["a"], "value", "3:9 'x'"],
  ["a = 1979-05-27 07:32:00Z # date", ["a"], "value", "1:5 1979-05-27 07:32:00Z"],
  ["a = -inf", ["a"], "value", "1:5 -inf"],
  ["a.b.c = 1", ["a"], "key", "1:1 a"],
  ["a . b.c = 1", ["a", "b"], "key", "1:5 b"],
  ["a.b = 1\na.c = 2", ["a", "c"], "value", "2:7 2"],
  ['"a.b" = 1', ["a.b"], "key", '1:1 "a.b"'],
  ['"\\u0061\\"" = 1', ['a"'], "key", '1:1 "\\u0061\\""'],
  ["'a\\b' = 1", ["a\\b"], "key", "1:1 'a\\b'"],
  ['"" = 1', [""], "key", '1:1 ""'],
  ["[a]\nb = 1", ["a"], "value", "1:2 a"],
  ["[ a . 'b c' ]\nd = 1", ["a", "b c"], "key", "1:7 'b c'"],
  ["[a.b]\n[a]\nc = 2", ["a", "c"], "value", "3:5 2"],
  ["[a]\nb.c = 1\n[a.d]\ne = 3", ["a", "d", "e"], "value", "4:5 3"],
  ["[[a]]\nb = 1\n[[a]]\nb = 2", ["a", 1, "b"], "value", "4:5 2"],
  ["[[a]]\n[a.b]\nc = 1\n[[a]]\n[a.b]\nc = 2", ["a", 1, "b", "c"], "value", "6:5 2"],
  ["[[a]]\n[[a.b]]\nc = 1\n[[a.b]]\nc = 2", ["a", 0, "b", 1, "c"], "value", "5:5 2"],
  ["a = [1, [2, 3], 4]", ["a", 1, 1], "value", "1:13 3"],
  ["a = [\n  1, # one\n  2,\n]", ["a", 1], "value", "3:3 2"],
  ["a = { b = 1, c.d = 'x' }", ["a", "c", "d"], "value", "1:20 'x'"],
  ["a = { 'b c' = { d = [true] } }", ["a", "b c", "d", 0], "value", "1:22 true"],
  ["a = { b = 1 }", ["a"], "value", "1:5 { b = 1 }"],
  ["a = []\nb = {}", ["b"], "value", "2:5 {}"],
  ['a = "]#,}"\nb = 2', ["b"], "value", "2:5 2"],
  ['a = """x"""\nb = 2', ["b"], "value", "2:5 2"],
  ['a = """x"""""\nb = 2', ["a"], "value", '1:5 """x"""""'],
  ["a = '''\n[x]\ny = 1'''\nb = 2", ["b"], "value", "4:5 2"],
  ['a = """\\\n  x \\""" """\nb = 2', ["b"], "value", "3:5 2"],
  ['a = "\\\\"\nb = 2', ["b"], "value", "2:5 2"],
  ['a = ["ł𝄞", 2]', ["a", 1], "value", "1:12 2"],
  ["a = 1\r\nb = 2\r\n", ["b"], "value", "2:5 2"],
  ["a = { b = 1 }", ["a", "nothing", "there"], "value", "1:1 a"],
];

test("keys and values are found where they are written", () => {
  for (const [text, path, part, expected] of positions) {
    parse(text);
    assert.equal(whereIs(text, path, part), expected, JSON.stringify(text));
  }
});

const anyKey = fc
  .oneof(fc.stringMatching(/^[a-z-]{1,6}$/), fc.string({ maxLength: 6 }))
  .filter((key) => key !== "__proto__");
const { value: anyValue } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.string(),
    fc.integer(),
    fc.boolean(),
    fc.constantFrom(1.5, -0.25, 1e21),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(anyKey, tie("value"), { maxKeys: 3 }),
  ),
}));

/** TOML in many spellings: smol-toml's own, or inline tables, comments and blanks anywhere. */
function spell(value: unknown, blank: string): string {
  if (Array.isArray(value))
    return `[${blank}${value.map((item) => spell(item, blank)).join(`${blank},${blank}`)}${blank}]`;
  if (typeof value === "object" && value !== null) {
    const pairs = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)} = ${spell(item, blank)}`);
    return `{ ${pairs.join(" , ")} }`;
  }
  return stringify({ key: value }).trim().slice("key = ".length);
}

/** Every value of a document is the one that its span spells. */
function agrees(text: string, value: unknown, place: Place): void {
  if (Array.isArray(value)) {
    assert.equal(place.members.size, value.length);
    for (const [index, item] of value.entries()) agrees(text, item, must(place, String(index)));
  } else if (typeof value === "object" && value !== null) {
    assert.deepEqual([...place.members.keys()].toSorted(compare), Object.keys(value).toSorted(compare));
    for (const [key, item] of Object.entries(value)) {
      const member = must(place, key);
      assert(member.key !== undefined);
      const written = text.slice(member.key.start, member.key.end);
      assert.deepEqual(Object.keys(parse(`${written} = 1`)), [key]);
      agrees(text, item, member);
    }
  } else {
    assert.deepEqual(parse(`key = ${text.slice(place.value.start, place.value.end)}`)["key"], value);
  }
}

function must(place: Place, key: string): Place {
  const member = place.members.get(key);
  assert(member !== undefined, `no place for ${key}`);
  return member;
}

function compare(left: string, right: string): number {
  return left < right ? -1 : 1;
}

test("for any document, every span spells the key or value it is said to be", () => {
  const anyBlank = fc.constantFrom("", " ", "\n", "\t# a comment, with ] and }\n");
  fc.assert(
    fc.property(fc.dictionary(anyKey, anyValue, { maxKeys: 4 }), anyBlank, fc.boolean(), (document, blank, own) => {
      const text = own
        ? stringify(document)
        : Object.entries(document)
            .map(([key, value]) => `${JSON.stringify(key)} = ${spell(value, blank)}\n${blank}`)
            .join("");
      const parsed = parseToml(text);
      if (parsed.problem !== undefined) {
        // The only documents that TOML has and we do not: names that JavaScript objects inherit.
        assert.equal(parsed.problem.message, "this name is not allowed");
        return;
      }
      assert.deepEqual(parsed.document.value, parse(text));
      agrees(text, parsed.document.value, parsed.document.place);
    }),
    { numRuns: 1000 },
  );
});

test("any text at all is a document or a problem within it", () => {
  const pieces = fc.constantFrom(
    "[",
    "]",
    "{",
    "}",
    "=",
    ".",
    ",",
    '"',
    "'",
    '"""',
    "'''",
    "\\",
    "\n",
    "\r",
    "#",
    " ",
    "a",
    "1",
    "-",
    "ł",
    "\0",
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(pieces, { maxLength: 30 }).map((parts) => parts.join("")),
      ),
      (text) => {
        const { problem } = parseToml(text);
        if (problem === undefined) return;
        assert(problem.span.start >= 0 && problem.span.start <= text.length);
        assert(problem.message !== "" && problem.hint !== "");
      },
    ),
    { numRuns: 3000 },
  );
});

test("the broken files of the corpus are refused, each where it is broken", () => {
  const folder = new URL("corpus/", import.meta.url);
  const told = readdirSync(folder)
    .toSorted(compare)
    .map((name) => {
      const text = readFileSync(new URL(name, folder), "utf8");
      const { problem } = parseToml(text);
      assert(problem !== undefined, name);
      const { line, column } = new LineIndex(text).locate(problem.span);
      return `${name} ${line}:${column} ${problem.message}`;
    });
  assert.deepEqual(told, expectedCorpus);
});

const expectedCorpus: readonly string[] = [
  "after-umlaut.broken 1:9 there is more on this line than one value",
  "bad-date.broken 1:5 this is not a date",
  "bad-escape.broken 1:7 this escape means nothing",
  "bare-string.broken 1:9 this is not a value",
  "bom-no-value.broken 1:5 the value is missing",
  "carriage-returns.broken 1:1 the line ends within a key or section name",
  "constructor.broken 1:1 this name is not allowed",
  "control-character.broken 1:7 a control character in a string",
  "deep-list.broken 1:69 tables and lists are nested more than 64 deep",
  "deep-table.broken 1:389 tables and lists are nested more than 64 deep",
  "dotted-then-value.broken 2:1 this is defined a second time",
  "huge-number.broken 1:5 this number is too large",
  "key-twice.broken 2:1 this is defined a second time",
  "leading-zero.broken 1:5 a number must not begin with 0",
  "list-then-table.broken 3:2 this is defined a second time",
  "long-key.broken 1:3004 the value is missing",
  "missing-comma.broken 1:13 a comma is missing here, or the end of the list or table",
  "no-key.broken 1:1 the key is missing",
  "no-value.broken 1:2 the line ends within a key or section name",
  "open-header.broken 1:15 the line ends within a key or section name",
  "open-inline-table.broken 1:20 this is not a value",
  "open-list.broken 2:1 a comma is missing here, or the end of the list or table",
  "prototype-table.broken 1:2 this name is not allowed",
  "prototype.broken 1:1 this name is not allowed",
  "space-in-key.broken 1:3 this character cannot be in a key",
  "table-twice.broken 3:2 this is defined a second time",
  "two-on-a-line.broken 1:7 there is more on this line than one value",
  "unfinished-long-string.broken 1:5 a string begins here and does not end",
  "unfinished-string.broken 1:16 the string is not finished on its line",
];
