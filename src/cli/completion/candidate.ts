import type { Command, Flag, Offers } from "../command.ts";
import { flagName } from "../command.ts";
import { globalFlags } from "../global-flag.ts";
import { nodes, type Verb } from "../tree.ts";

/** Something that could be typed next. */
export interface Candidate {
  readonly word: string;
  readonly brief?: string;
}

/** What may follow: words, or names and files that somebody else knows. */
export interface Possible {
  readonly words: readonly Candidate[];
  readonly offers?: Offers;
  /** What of the last word stands before the part that `offers` completes: `--stack=`. */
  readonly prefix: string;
}

/**
 * What could stand in the place of the last of `words`, which may be empty or half typed. `words` are those after
 * `croft`. Knows the command tree only; whoever asks looks up instances and files.
 */
export async function possible(words: readonly string[]): Promise<Possible> {
  const before = words.slice(0, -1);
  const last = words.at(-1) ?? "";
  const walk = skipFlags(before);
  const node = nodes.find((candidate) => candidate.name === walk.name);
  if (walk.name === undefined) {
    return walk.open === undefined
      ? last.startsWith("-")
        ? flagWords(globalFlags)
        : commandWords(nodes.filter((candidate) => candidate.kind === "noun" || candidate.hidden !== true))
      : values(walk.open, "");
  }
  if (node === undefined) return nothing;
  if (node.kind === "verb") return await withinVerb(node, walk.after, last);
  const inner = skipFlags(walk.after);
  if (inner.name === undefined) return last.startsWith("-") ? flagWords(globalFlags) : commandWords(node.verbs);
  const verb = node.verbs.find((candidate) => candidate.name === inner.name);
  return verb === undefined ? nothing : await withinVerb(verb, inner.after, last);
}

const nothing: Possible = { words: [], prefix: "" };

interface Skipped {
  /** The first word that is no global flag or its value. */
  readonly name: string | undefined;
  readonly after: readonly string[];
  /** The flag whose value is being typed. */
  readonly open?: Flag<unknown>;
}

function skipFlags(words: readonly string[]): Skipped {
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? "";
    if (!word.startsWith("-")) return { name: word, after: words.slice(at + 1) };
    const flag = findFlag(globalFlags, word);
    if (flag === undefined || flag.kind === "switch" || word.includes("=")) continue;
    at += 1;
    if (at >= words.length) return { name: undefined, after: [], open: flag };
  }
  return { name: undefined, after: [] };
}

async function withinVerb(verb: Verb, before: readonly string[], last: string): Promise<Possible> {
  const command = await verb.load();
  const flags: Command["flags"] = { ...globalFlags, ...command.flags };
  const args = Object.values(command.args);
  const verbatim = args.some((arg) => arg.verbatim === true);
  let position = 0;
  for (let at = 0; at < before.length; at += 1) {
    const word = before[at] ?? "";
    if (!word.startsWith("-") || word === "-" || (verbatim && position > 0)) {
      position += 1;
      continue;
    }
    const flag = findFlag(flags, word);
    if (flag === undefined || flag.kind === "switch" || word.includes("=")) continue;
    at += 1;
    if (at >= before.length) return values(flag, "");
  }
  const mayBeFlag = !(verbatim && position > 0);
  const equals = last.indexOf("=");
  if (mayBeFlag && last.startsWith("--") && equals > 0) {
    const flag = findFlag(flags, last.slice(0, equals));
    return flag === undefined || flag.kind === "switch" ? nothing : values(flag, last.slice(0, equals + 1));
  }
  if (mayBeFlag && last.startsWith("-")) return flagWords(flags);
  const arg = args[Math.min(position, args.length - 1)];
  if (arg === undefined || (position >= args.length && arg.most === 1)) return nothing;
  return values(arg, "");
}

function values({ offers }: { readonly offers?: Offers }, prefix: string): Possible {
  if (offers === undefined) return { words: [], prefix };
  return Array.isArray(offers) ? { words: offers.map((word) => ({ word })), prefix } : { words: [], offers, prefix };
}

function flagWords(flags: Command["flags"]): Possible {
  return {
    words: Object.entries(flags).map(([key, { brief }]) => ({ word: `--${flagName(key)}`, brief })),
    prefix: "",
  };
}

function commandWords(shown: readonly { readonly name: string; readonly brief: string }[]): Possible {
  return { words: shown.map(({ name, brief }) => ({ word: name, brief })), prefix: "" };
}

/** By `--name`, `--name=value`, `-n`, or the last letter of `-abc`. */
function findFlag(flags: Command["flags"], word: string): Flag<unknown> | undefined {
  if (!word.startsWith("--")) return Object.values(flags).find(({ short }) => short === word.at(-1));
  const [name = ""] = word.slice(2).split("=");
  return Object.entries(flags).find(([key]) => flagName(key) === name)?.[1];
}
