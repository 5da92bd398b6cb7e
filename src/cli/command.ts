import type { Fault } from "../base/fault.ts";
import type { Context } from "./context.ts";

/**
 * What commands are made of. A verb's file declares its flags and arguments as data; parsing, help, completions and the
 * reference page all come from that one declaration, so they cannot disagree.
 */

/** What a shell offers for a value: the daemon's things of that kind, files, or these words. */
export type Offers =
  | "instance"
  | "stack"
  | "image"
  | "volume"
  | "network"
  | "operation"
  | "file"
  | "folder"
  | "program"
  | readonly string[];

export interface Flag<Value> {
  /** A switch takes no value; a list may be given more than once. */
  readonly kind: "switch" | "single" | "list";
  /** One letter: `-d`. */
  readonly short?: string;
  /** Stands for the value in help: `NAME`. */
  readonly placeholder?: string;
  /** A sentence without a full stop. */
  readonly brief: string;
  readonly offers?: Offers;
  /** Checks a value; throws an `invalid` Fault. Absent: any text will do. */
  readonly check?: (text: string) => void;
  /** From all values that were given, in order; a switch's are "true" or "false". */
  readonly read: (given: readonly string[]) => Value;
}

export interface Argument<Value> {
  readonly placeholder: string;
  readonly brief: string;
  readonly least: 0 | 1;
  readonly most: 1 | "many";
  /** Everything from here on belongs to another program: it is taken as it is, flags included. */
  readonly verbatim?: true;
  readonly offers?: Offers;
  readonly read: (given: readonly string[]) => Value;
}

export type Flags = Readonly<Record<string, Flag<unknown>>>;
export type Arguments = Readonly<Record<string, Argument<unknown>>>;
type Values<Declared extends Readonly<Record<string, { read: (given: readonly string[]) => unknown }>>> = {
  readonly [Name in keyof Declared]: ReturnType<Declared[Name]["read"]>;
};

/** What a verb is given when it runs. */
export interface Input<F extends Flags, A extends Arguments> {
  readonly flags: Values<F>;
  readonly args: Values<A>;
}

export interface Command {
  /** Whole sentences, after the brief one in the tree. */
  readonly detail?: string;
  /** Lines to try, each with what it does. */
  readonly examples?: readonly (readonly [line: string, does: string])[];
  /** Named in camel case here, in kebab case on the command line. */
  readonly flags: Flags;
  /** In the order in which they are given. */
  readonly args: Arguments;
  /** The exit code, 0 when nothing is returned. Throws `Fault`. */
  run(input: Input<Flags, Arguments>, context: Context): Promise<number | void>;
  /** Where it differs from the usual table: commands that pass on the code of a process. */
  readonly exitCodeOf?: (fault: Fault) => number;
}

interface Declaration<F extends Flags, A extends Arguments> extends Pick<
  Command,
  "detail" | "examples" | "exitCodeOf"
> {
  readonly flags?: F;
  readonly args?: A;
  run(input: Input<F, A>, context: Context): Promise<number | void>;
}

/** A command whose `run` is typed by its own flags and arguments. */
export function command<F extends Flags = {}, A extends Arguments = {}>(declaration: Declaration<F, A>): Command {
  return {
    ...declaration,
    flags: declaration.flags ?? {},
    args: declaration.args ?? {},
    // The parser reads values by these very declarations.
    run: (input, context) => declaration.run(input as Input<F, A>, context),
  };
}

interface FlagOptions {
  readonly short?: string;
  readonly offers?: Offers;
}

export const flag = {
  toggle(brief: string, options: FlagOptions = {}): Flag<boolean> {
    return { kind: "switch", brief, ...options, read: (given) => given.at(-1) === "true" };
  },
  text(placeholder: string, brief: string, options: FlagOptions = {}): Flag<string | undefined> {
    return { kind: "single", placeholder, brief, ...options, read: (given) => given.at(-1) };
  },
  list(placeholder: string, brief: string, options: FlagOptions = {}): Flag<readonly string[]> {
    return { kind: "list", placeholder, brief, ...options, read: (given) => given };
  },
  /** Text that `parse` understands; it throws an `invalid` Fault for any other. */
  parsed<Value>(
    placeholder: string,
    brief: string,
    parse: (text: string) => Value,
    options: FlagOptions = {},
  ): Flag<Value | undefined> {
    return {
      kind: "single",
      placeholder,
      brief,
      ...options,
      check: parse,
      read: (given) => (given.length === 0 ? undefined : parse(given.at(-1) ?? "")),
    };
  },
};

interface ArgumentOptions {
  readonly offers?: Offers;
}

export const argument = {
  one(placeholder: string, brief: string, options: ArgumentOptions = {}): Argument<string> {
    return { placeholder, brief, least: 1, most: 1, ...options, read: (given) => given[0] ?? "" };
  },
  optional(placeholder: string, brief: string, options: ArgumentOptions = {}): Argument<string | undefined> {
    return { placeholder, brief, least: 0, most: 1, ...options, read: (given) => given[0] };
  },
  some(placeholder: string, brief: string, options: ArgumentOptions = {}): Argument<readonly string[]> {
    return { placeholder, brief, least: 1, most: "many", ...options, read: (given) => given };
  },
  any(placeholder: string, brief: string, options: ArgumentOptions = {}): Argument<readonly string[]> {
    return { placeholder, brief, least: 0, most: "many", ...options, read: (given) => given };
  },
  /** A program and its arguments. */
  program(brief: string, least: 0 | 1): Argument<readonly string[]> {
    return {
      placeholder: "COMMAND",
      brief,
      least,
      most: "many",
      verbatim: true,
      offers: "program",
      read: (given) => given,
    };
  },
};

/** `envFile` → `env-file`. */
export function flagName(key: string): string {
  return key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
