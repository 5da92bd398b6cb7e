import { Fault } from "../../../base/fault.ts";

/** `word` as the guest's shell reads exactly that, whatever is in it. The one place where a shell's words are made. */
export function quote(word: string): string {
  if (word.includes("\0")) throw new Fault("invalid", "a word for a guest holds a NUL byte");
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A command of these words. */
export function commandLine(words: readonly string[]): string {
  return words.map(quote).join(" ");
}
