import { maxDepth } from "./place.ts";
import type { Parsed, Place, Span } from "./place.ts";

/**
 * Reads JSON and where everything in it is written. `JSON.parse` tells no positions, keeps the last of two equal keys
 * without a word, and recurses as deep as it is told to; this says where, refuses both, and accepts nothing else that
 * `JSON.parse` would not.
 */
export function parseJson(text: string): Parsed {
  const reader = new Reader(text);
  try {
    return { document: reader.document() };
  } catch (thrown) {
    if (thrown instanceof Misread) return { problem: thrown };
    throw thrown;
  }
}

class Misread extends Error {
  readonly span: Span;
  readonly hint: string;

  constructor(span: Span, message: string, hint: string) {
    super(message);
    this.span = span;
    this.hint = hint;
  }
}

interface Read {
  readonly value: unknown;
  readonly place: Place;
}

class Reader {
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
    if (text.charCodeAt(0) === 0xfeff) this.#at = 1;
  }

  document(): Read {
    this.#skipBlank();
    const read = this.#value();
    this.#skipBlank();
    if (this.#at < this.#text.length) this.#fail("there is more after the end of the document", "remove it");
    return read;
  }

  #value(): Read {
    const start = this.#at;
    const members = new Map<string, Place>();
    const value = this.#anything(members);
    return { value, place: { value: { start, end: this.#at }, members } };
  }

  #anything(members: Map<string, Place>): unknown {
    switch (this.#peek()) {
      case "{":
        return this.#nested(() => this.#object(members));
      case "[":
        return this.#nested(() => this.#list(members));
      case '"':
        return this.#string();
      default:
        return this.#plain();
    }
  }

  #nested<Value>(read: () => Value): Value {
    if (this.#depth >= maxDepth)
      this.#fail(`objects and lists are nested more than ${maxDepth} deep`, "write it flatter");
    this.#depth += 1;
    const value = read();
    this.#depth -= 1;
    return value;
  }

  #object(members: Map<string, Place>): Record<string, unknown> {
    // Without a prototype, as smol-toml makes them, no key can mean more than itself.
    const object: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
    this.#elements("}", () => {
      const start = this.#at;
      if (this.#peek() !== '"')
        this.#fail("a key is expected here", 'keys are strings in double quotes: "image": "nginx:1.27"');
      const name = this.#string();
      const key = { start, end: this.#at };
      if (members.has(name)) throw new Misread(key, "this is defined a second time", "keep one of the two");
      if (name === "__proto__" || name === "constructor") {
        throw new Misread(key, "this name is not allowed", "choose another name");
      }
      this.#skipBlank();
      if (this.#peek() !== ":") this.#fail("a colon is missing here", "write a colon between key and value");
      this.#at += 1;
      this.#skipBlank();
      const { value, place } = this.#value();
      object[name] = value;
      members.set(name, { ...place, key });
    });
    return object;
  }

  #list(members: Map<string, Place>): unknown[] {
    const list: unknown[] = [];
    this.#elements("]", () => {
      const { value, place } = this.#value();
      members.set(String(list.length), place);
      list.push(value);
    });
    return list;
  }

  #elements(end: string, readOne: () => void): void {
    this.#at += 1;
    this.#skipBlank();
    if (this.#peek() === end) {
      this.#at += 1;
      return;
    }
    for (;;) {
      readOne();
      this.#skipBlank();
      const next = this.#peek();
      if (next !== "," && next !== end) {
        this.#fail(`a comma or ${end} is missing here`, `separate elements by commas, and close with ${end}`);
      }
      this.#at += 1;
      if (next === end) return;
      this.#skipBlank();
      if (this.#peek() === end) this.#fail("a comma before the end", "remove the comma; JSON does not allow it");
    }
  }

  #string(): string {
    const string = /"[^"\\]*(?:\\.[^"\\]*)*"/sy;
    string.lastIndex = this.#at;
    const raw = string.exec(this.#text)?.[0];
    if (raw === undefined) return this.#fail("a string begins here and does not end", "close it with a double quote");
    try {
      const value = JSON.parse(raw) as string;
      this.#at += raw.length;
      return value;
    } catch {
      return this.#fail("this string holds what it may not", "write newlines as \\n, and a backslash as \\\\");
    }
  }

  #plain(): unknown {
    const plain = /(?:true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.+-])/y;
    plain.lastIndex = this.#at;
    const raw = plain.exec(this.#text)?.[0];
    if (raw === undefined)
      return this.#fail(
        "a value is expected here",
        "write a string in double quotes, a number, true, false, a list or an object",
      );
    this.#at += raw.length;
    return JSON.parse(raw);
  }

  #skipBlank(): void {
    const blank = /[ \t\r\n]*/y;
    blank.lastIndex = this.#at;
    this.#at += blank.exec(this.#text)?.[0].length ?? 0;
  }

  #peek(): string {
    return this.#text.charAt(this.#at);
  }

  #fail(message: string, hint: string): never {
    throw new Misread({ start: this.#at, end: this.#at + 1 }, message, hint);
  }
}
