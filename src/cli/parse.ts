import { Fault } from "../base/fault.ts";
import { closest } from "../base/closest.ts";
import { flagName, type Argument, type Command, type Flag, type Flags } from "./command.ts";
import { globalFlags } from "./global-flag.ts";

/** A command line read by a command's declaration: values by the names they are declared under. */
export interface Parsed {
  readonly flags: Readonly<Record<string, unknown>>;
  readonly args: Readonly<Record<string, unknown>>;
}

/** Reads what follows the verb, flags that every command takes included. `title` is the command as typed, for messages: `croft image ls`. */
export function parse(command: Command, title: string, words: readonly string[]): Parsed {
  const verbatim = Object.values(command.args).some((arg) => arg.verbatim === true);
  const flags = { ...globalFlags, ...command.flags };
  const { given, rest } = readFlags(flags, title, words, verbatim);
  const values = valuesOf(flags, given);
  // As kubectl has it: `exec web -- ls`.
  const taken = verbatim && rest[1] === "--" ? rest.toSpliced(1, 1) : rest;
  // Whoever asks for help need not know the arguments yet.
  return { flags: values, args: values["help"] === true ? {} : readArguments(command.args, title, taken) };
}

export interface ReadFlags {
  /** Texts given for each flag, by its name in the declaration. */
  readonly given: ReadonlyMap<string, readonly string[]>;
  /** What is no flag, in order. */
  readonly rest: readonly string[];
}

/**
 * Takes flags off a command line: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-n=value`, `-abc` for switches,
 * `--no-name` for a switch, `--` before what only looks like a flag. With `stopAtFirst` nothing after the first word
 * that is no flag is looked at: it may belong to another program.
 */
export function readFlags(flags: Flags, title: string, words: readonly string[], stopAtFirst: boolean): ReadFlags {
  const given = new Map<string, string[]>();
  const rest: string[] = [];
  const names = flagNames(flags);
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? "";
    if (word === "--") {
      rest.push(...words.slice(at + 1));
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      rest.push(word);
      if (!stopAtFirst) continue;
      rest.push(...words.slice(at + 1));
      break;
    }
    for (const { key, flag, shown, value } of splitFlag(word, flags, names, title)) {
      const texts = given.get(key) ?? [];
      given.set(key, texts);
      if (flag.kind === "switch") {
        texts.push(value ?? "true");
        continue;
      }
      if (value === undefined) at += 1;
      const text = value ?? words[at];
      if (text === undefined) {
        throw usage(`${shown} needs a value: ${shown} ${flag.placeholder}`, title);
      }
      checked(flag, shown, text, title);
      texts.push(text);
    }
  }
  return { given, rest };
}

/** Typed values of all declared flags. */
export function valuesOf(
  flags: Flags,
  given: ReadonlyMap<string, readonly string[]>,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(flags).map(([key, flag]) => [key, flag.read(given.get(key) ?? [])]));
}

interface Found {
  readonly key: string;
  readonly flag: Flag<unknown>;
  /** As typed, for messages. */
  readonly shown: string;
  /** The value in the same word; for a switch "false" turns it off. */
  readonly value: string | undefined;
}

type Names = ReadonlyMap<string, string>;

/** `--env-file` and `-e` → the key in the declaration. */
function flagNames(flags: Flags): Names {
  const names = new Map<string, string>();
  for (const [key, { short }] of Object.entries(flags)) {
    names.set(`--${flagName(key)}`, key);
    if (short !== undefined) names.set(`-${short}`, key);
  }
  return names;
}

/** The flags in one word: several for `-it`. */
function* splitFlag(word: string, flags: Flags, names: Names, title: string): Generator<Found> {
  const find = (shown: string, value: string | undefined): Found => {
    const key = names.get(shown);
    const flag = flags[key ?? ""];
    if (key === undefined || flag === undefined) throw unknownFlag(shown, names, title);
    return { key, flag, shown, value };
  };
  if (word.startsWith("--")) {
    const equals = word.indexOf("=");
    const shown = equals < 0 ? word : word.slice(0, equals);
    const value = equals < 0 ? undefined : word.slice(equals + 1);
    const positive = `--${shown.slice("--no-".length)}`;
    if (shown.startsWith("--no-") && !names.has(shown) && flags[names.get(positive) ?? ""]?.kind === "switch") {
      return yield find(positive, "false");
    }
    const found = find(shown, value);
    if (found.flag.kind === "switch" && value !== undefined && value !== "true" && value !== "false") {
      throw usage(`${shown} is on or off: it takes no value`, title);
    }
    return yield found;
  }
  for (let at = 1; at < word.length; at += 1) {
    const found = find(`-${word[at]}`, undefined);
    if (found.flag.kind === "switch") {
      yield found;
      continue;
    }
    const attached = word.slice(at + 1).replace(/^=/, "");
    return yield { ...found, value: attached === "" ? undefined : attached };
  }
}

function checked(flag: Flag<unknown>, shown: string, text: string, title: string): void {
  if (Array.isArray(flag.offers) && !flag.offers.includes(text)) {
    const near = closest(text, flag.offers as readonly string[]);
    throw usage(
      `${shown} cannot be "${text}"`,
      title,
      near === undefined ? `write one of: ${flag.offers.join(", ")}` : `did you mean ${shown} ${near}?`,
    );
  }
  try {
    flag.check?.(text);
  } catch (thrown) {
    const fault = Fault.from(thrown, shown);
    throw usage(`${shown}: ${fault.message}`, title, fault.hint);
  }
}

function readArguments(
  declared: Readonly<Record<string, Argument<unknown>>>,
  title: string,
  words: readonly string[],
): Readonly<Record<string, unknown>> {
  const values: Record<string, unknown> = {};
  let at = 0;
  for (const [key, arg] of Object.entries(declared)) {
    const taken = words.slice(at, arg.most === "many" ? words.length : at + 1);
    if (taken.length < arg.least) throw usage(`${title} needs ${arg.placeholder}: ${arg.brief}`, title);
    at += taken.length;
    values[key] = arg.read(taken);
  }
  if (at < words.length) throw usage(`${title} does not take "${words[at]}"`, title);
  return values;
}

function unknownFlag(shown: string, names: Names, title: string): Fault {
  const long = [...names.keys()].filter((name) => name.startsWith("--"));
  const near = shown.startsWith("--") ? closest(shown, long) : undefined;
  return usage(`${title} has no flag ${shown}`, title, near === undefined ? undefined : `did you mean ${near}?`);
}

function usage(message: string, title: string, hint = `see: ${title} --help`): Fault {
  return new Fault("invalid", message, { hint });
}
