import { parse } from "smol-toml";
import type { Place, Span } from "./place.ts";

/**
 * Where each key and value of a valid TOML text is written. Only for text that smol-toml has accepted: it looks for
 * where things begin and end, and does not judge again whether they are right.
 */
export function locateToml(text: string): Place {
  return new Locator(text).document();
}

interface Key {
  readonly name: string;
  readonly span: Span;
}

class Locator {
  readonly #text: string;
  #at = 0;
  /** The last table of each `[[list]]`, where a following `[list.table]` belongs. */
  readonly #lastTable = new Map<Place, Place>();

  constructor(text: string) {
    this.#text = text;
    if (text.charCodeAt(0) === 0xfeff) this.#at = 1;
  }

  document(): Place {
    const root = newPlace({ start: 0, end: 0 });
    let table = root;
    for (this.#skipBlank(); this.#at < this.#text.length; this.#skipBlank()) {
      if (this.#peek() === "[") table = this.#header(root);
      else this.#pair(table);
    }
    return root;
  }

  /** `[a.b]` or `[[a.b]]`: the place of the table it opens. */
  #header(root: Place): Place {
    this.#at += 1;
    const isList = this.#peek() === "[";
    if (isList) this.#at += 1;
    const keys = this.#keys("]");
    this.#at += isList ? 2 : 1;
    let place = root;
    for (const key of keys) place = member(this.#lastTable.get(place) ?? place, key);
    if (!isList) return place;
    const element = newPlace(keys.at(-1)?.span ?? place.value);
    place.members.set(String(place.members.size), element);
    this.#lastTable.set(place, element);
    return element;
  }

  /** `a.b = value`, in a table or between braces. */
  #pair(table: Place): void {
    const keys = this.#keys("=");
    this.#at += 1;
    this.#skipBlank();
    let parent = table;
    for (const key of keys.slice(0, -1)) parent = member(parent, key);
    const last = keys.at(-1);
    const place = this.#value();
    if (last !== undefined) parent.members.set(last.name, { ...place, key: last.span });
  }

  /** The parts of a dotted key, up to and not including `end`. */
  #keys(end: string): Key[] {
    const keys: Key[] = [];
    while (this.#at < this.#text.length && this.#peek() !== end) {
      const start = this.#at;
      const character = this.#peek();
      if (character === '"' || character === "'") {
        this.#string();
        const raw = this.#text.slice(start, this.#at);
        keys.push({ name: decodeString(raw), span: { start, end: this.#at } });
      } else if (isBare(character)) {
        while (isBare(this.#peek())) this.#at += 1;
        keys.push({ name: this.#text.slice(start, this.#at), span: { start, end: this.#at } });
      } else {
        this.#at += 1;
      }
    }
    return keys;
  }

  #value(): Place {
    const start = this.#at;
    const members = new Map<string, Place>();
    const character = this.#peek();
    if (character === "[") this.#list(members);
    else if (character === "{") this.#inlineTable({ value: { start, end: start }, members });
    else if (character === '"' || character === "'") this.#string();
    else this.#plain();
    return { value: { start, end: this.#at }, members };
  }

  #list(members: Map<string, Place>): void {
    this.#at += 1;
    for (this.#skipSeparators(); this.#at < this.#text.length && this.#peek() !== "]"; this.#skipSeparators()) {
      members.set(String(members.size), this.#value());
    }
    this.#at += 1;
  }

  #inlineTable(table: Place): void {
    this.#at += 1;
    for (this.#skipSeparators(); this.#at < this.#text.length && this.#peek() !== "}"; this.#skipSeparators()) {
      this.#pair(table);
    }
    this.#at += 1;
  }

  /** Moves behind a string of any of the four kinds. */
  #string(): void {
    const quote = this.#peek();
    const isLong = this.#text.startsWith(quote.repeat(3), this.#at);
    const end = isLong ? quote.repeat(3) : quote;
    this.#at += end.length;
    while (this.#at < this.#text.length && !this.#text.startsWith(end, this.#at)) {
      this.#at += quote === '"' && this.#peek() === "\\" ? 2 : 1;
    }
    this.#at += end.length;
    // A long string may end in one or two quotes of its own before the three that close it.
    if (isLong) for (let own = 0; own < 2 && this.#peek() === quote; own += 1) this.#at += 1;
  }

  /** Moves behind a number, boolean or date. A date may hold one space before its time. */
  #plain(): void {
    const rest = /[^,\]}#\r\n]*/y;
    rest.lastIndex = this.#at;
    this.#at += (rest.exec(this.#text)?.[0] ?? "").trimEnd().length;
  }

  #skipBlank(): void {
    this.#skip(" \t\r\n");
  }

  #skipSeparators(): void {
    this.#skip(" \t\r\n,");
  }

  /** Moves behind any of these characters and comments. */
  #skip(blank: string): void {
    while (this.#at < this.#text.length) {
      const character = this.#peek();
      if (character === "#") {
        const end = this.#text.indexOf("\n", this.#at);
        this.#at = end === -1 ? this.#text.length : end;
      } else if (blank.includes(character)) this.#at += 1;
      else return;
    }
  }

  #peek(): string {
    return this.#text.charAt(this.#at);
  }
}

function newPlace(value: Span): Place {
  return { value, members: new Map() };
}

function member(place: Place, key: Key): Place {
  const there = place.members.get(key.name);
  if (there !== undefined) return there;
  const made: Place = { key: key.span, value: key.span, members: new Map() };
  place.members.set(key.name, made);
  return made;
}

function isBare(character: string): boolean {
  return /^[A-Za-z0-9_-]$/.test(character);
}

/** A quoted key is a string like any other: the same parser says what it means. */
function decodeString(raw: string): string {
  return parse(`key = ${raw}`)["key"] as string;
}
