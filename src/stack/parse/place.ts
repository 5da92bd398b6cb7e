/**
 * Where things are in the text of a stack file. Parsers give values without positions; a tree of places beside the
 * value lets every later check name the line and column of a key or a value.
 */
export interface Place {
  /** Where the key is written. Absent for the whole document and for elements of a list. */
  readonly key?: Span;
  /** Where the value is written; for a `[table]` the header. */
  readonly value: Span;
  /** By key, or by index written as a decimal number. */
  readonly members: Map<string, Place>;
}

/** Offsets into the text in UTF-16 code units: from `start` up to, not including, `end`. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Keys and indexes from the document's root to a value. */
export type KeyPath = readonly (string | number)[];

/** A document that could be read: what it says, and where. */
export interface ParsedDocument {
  readonly value: unknown;
  readonly place: Place;
}

/** Why a document could not be read. */
export interface SyntaxProblem {
  readonly span: Span;
  readonly message: string;
  readonly hint: string;
}

export type Parsed =
  | { readonly document: ParsedDocument; readonly problem?: undefined }
  | { readonly document?: undefined; readonly problem: SyntaxProblem };

/** Tables and lists may be nested this deep: far beyond any real stack, far below the call stack. */
export const maxDepth = 64;

/** The span of the value at `path`, or of its key; of the nearest thing around it when it is not written at all. */
export function findSpan(root: Place, path: KeyPath, part: "key" | "value"): Span {
  let place = root;
  for (const step of path) {
    const member = place.members.get(String(step));
    if (member === undefined) return place.key ?? place.value;
    place = member;
  }
  return part === "key" ? (place.key ?? place.value) : place.value;
}

/** `container.web.env."A B"`: a path as it would be written in TOML. */
export function formatKeyPath(path: KeyPath): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") text += `[${step + 1}]`;
    else text += `${text === "" ? "" : "."}${/^[A-Za-z0-9_-]+$/.test(step) ? step : JSON.stringify(step)}`;
  }
  return text;
}

/** Line and column from 1, the line's text, and how many characters of it the span covers. Columns count code points. */
export interface Position {
  readonly line: number;
  readonly column: number;
  readonly lineText: string;
  readonly width: number;
}

/** Finds lines by bisection, so that a file with many problems is not read again for each. */
export class LineIndex {
  readonly #text: string;
  readonly #starts: readonly number[];

  constructor(text: string) {
    this.#text = text;
    // A byte order mark is no character of the first line.
    const starts = [text.charCodeAt(0) === 0xfeff ? 1 : 0];
    for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
    this.#starts = starts;
  }

  locate(span: Span): Position {
    let low = 0;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#starts[middle] ?? 0) <= span.start) low = middle;
      else high = middle - 1;
    }
    const start = this.#starts[low] ?? 0;
    const next = this.#starts[low + 1];
    const lineText = this.#text.slice(start, next === undefined ? undefined : next - 1).replace(/\r$/, "");
    const from = Math.min(Math.max(0, span.start - start), lineText.length);
    const to = Math.max(from, Math.min(span.end - start, lineText.length));
    return {
      line: low + 1,
      column: characters(lineText.slice(0, from)) + 1,
      lineText,
      width: Math.max(1, characters(lineText.slice(from, to))),
    };
  }
}

function characters(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
