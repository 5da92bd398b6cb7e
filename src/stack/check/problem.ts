import { findSpan, formatKeyPath, LineIndex } from "../parse/place.ts";
import type { KeyPath, Place, Span } from "../parse/place.ts";

/** One thing that is wrong, or that is probably not meant, with where it is written. */
export interface Problem {
  readonly severity: "error" | "warning";
  /** The file, as it was given. */
  readonly path: string;
  /** From 1. */
  readonly line: number;
  /** In characters, from 1. */
  readonly column: number;
  /** `container.web.memory`; empty when it is about the text as a whole. */
  readonly key: string;
  /** What is wrong. */
  readonly message: string;
  /** What would be right. */
  readonly hint: string;
  /** The line it is written on, and how many characters from `column` it is about. */
  readonly lineText: string;
  readonly width: number;
}

/** Collects problems while a document is checked: all of them, not the first. */
export class Report {
  readonly #path: string;
  readonly #lines: LineIndex;
  readonly #root: Place;
  readonly #problems: Problem[] = [];

  constructor(path: string, text: string, root: Place) {
    this.#path = path;
    this.#lines = new LineIndex(text);
    this.#root = root;
  }

  /** `part`: whether the key or the value at `path` is what is wrong. */
  error(path: KeyPath, message: string, hint: string, part: "key" | "value" = "value"): void {
    this.#add("error", findSpan(this.#root, path, part), formatKeyPath(path), message, hint);
  }

  warn(path: KeyPath, message: string, hint: string, part: "key" | "value" = "value"): void {
    this.#add("warning", findSpan(this.#root, path, part), formatKeyPath(path), message, hint);
  }

  errorAt(span: Span, message: string, hint: string): void {
    this.#add("error", span, "", message, hint);
  }

  get hasErrors(): boolean {
    return this.#problems.some((problem) => problem.severity === "error");
  }

  /** In the order of the text. */
  finish(): readonly Problem[] {
    return this.#problems.toSorted((left, right) => left.line - right.line || left.column - right.column);
  }

  #add(severity: Problem["severity"], span: Span, key: string, message: string, hint: string): void {
    const { line, column, lineText, width } = this.#lines.locate(span);
    this.#problems.push({ severity, path: this.#path, line, column, key, message, hint, lineText, width });
  }
}

export interface FormatOptions {
  /** With ANSI colours, for a terminal. */
  readonly color: boolean;
}

/**
 * Problems for people: what, where, the line with the place underlined, and the mend. Ends with a count; empty when
 * there are none.
 */
export function formatProblems(problems: readonly Problem[], options: FormatOptions = { color: false }): string {
  if (problems.length === 0) return "";
  const paint = options.color ? ansi : plain;
  const blocks = problems.map((problem) => {
    const { severity, path, line, column, key, message, hint } = problem;
    const tint = severity === "error" ? paint.red : paint.yellow;
    const gutter = " ".repeat(String(line).length);
    const excerpt = clip(problem);
    return [
      `${tint(paint.bold(severity))}${paint.bold(`: ${message}`)}`,
      `${gutter} ${paint.blue("┌─")} ${path}:${line}:${column}${key === "" ? "" : `  ${key}`}`,
      `${paint.blue(`${line} │`)} ${excerpt.text}`,
      `${gutter} ${paint.blue("│")} ${excerpt.indent}${tint("^".repeat(excerpt.width))}`,
      `${gutter} ${paint.blue("=")} ${hint}`,
    ].join("\n");
  });
  return `${blocks.join("\n\n")}\n\n${count(problems)}\n`;
}

/** `2 errors, 1 warning`. */
function count(problems: readonly Problem[]): string {
  const errors = problems.filter((problem) => problem.severity === "error").length;
  const warnings = problems.length - errors;
  return [
    ...(errors === 0 ? [] : [`${errors} error${errors === 1 ? "" : "s"}`]),
    ...(warnings === 0 ? [] : [`${warnings} warning${warnings === 1 ? "" : "s"}`]),
  ].join(", ");
}

/** A line may be as long as a file: at most this many characters of it are shown, around the place. */
const excerptWidth = 110;

/** Tabs are kept in the indent, so that the underline stands where the terminal puts the text. */
function clip(problem: Problem): { text: string; indent: string; width: number } {
  const characters = Array.from(problem.lineText);
  const from = problem.column - 1 > excerptWidth - 20 ? problem.column - 21 : 0;
  const shown = characters
    .slice(from, from + excerptWidth)
    .map((character) => (isControl(character) ? "·" : character));
  const before = shown.slice(0, problem.column - 1 - from);
  return {
    text: `${from > 0 ? "…" : ""}${shown.join("")}${from + excerptWidth < characters.length ? "…" : ""}`,
    indent: `${from > 0 ? " " : ""}${before.map((character) => (character === "\t" ? "\t" : " ")).join("")}`,
    width: Math.max(1, Math.min(problem.width, shown.length - before.length)),
  };
}

/** Nothing in a file may move the cursor of whoever reads the message. */
function isControl(character: string): boolean {
  const code = character.codePointAt(0) ?? 0;
  return (code < 0x20 && character !== "\t") || (code >= 0x7f && code < 0xa0);
}

const plain = {
  red: (text: string) => text,
  yellow: (text: string) => text,
  blue: (text: string) => text,
  bold: (text: string) => text,
};

const ansi: typeof plain = {
  red: (text) => `\u001b[31m${text}\u001b[0m`,
  yellow: (text) => `\u001b[33m${text}\u001b[0m`,
  blue: (text) => `\u001b[34m${text}\u001b[0m`,
  bold: (text) => `\u001b[1m${text}\u001b[0m`,
};
