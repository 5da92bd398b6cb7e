import { Fault } from "../base/fault.ts";

/**
 * The command line of an OCI runtime: what runc and crun share, and what either has alone, so that a caller made for one
 * of them does not notice the change. Parsed by a table, as this is on the way of every call.
 */

export interface Flag {
  readonly short?: string;
  /** `none`: a switch; `one`: the last wins; `many`: all are kept; `maybe`: a value only after `=`. */
  readonly takes: "none" | "one" | "many" | "maybe";
}

type Flags = Readonly<Record<string, Flag>>;

const on: Flag = { takes: "none" };
const one: Flag = { takes: "one" };
const many: Flag = { takes: "many" };

const globalFlags: Flags = {
  root: one,
  log: one,
  "log-format": one,
  debug: on,
  "systemd-cgroup": on,
  "cgroup-manager": one,
  rootless: one,
  criu: one,
  /** Ours: which engine, whatever the rules say; and where the rules are. */
  engine: one,
  rules: one,
  help: { short: "h", takes: "none" },
  version: { short: "v", takes: "none" },
};

const bundle: Flag = { short: "b", takes: "one" };
const makes: Flags = {
  bundle,
  config: { short: "f", takes: "one" },
  "console-socket": one,
  "pid-file": one,
  "no-pivot": on,
  "no-new-keyring": on,
  "preserve-fds": one,
  "no-subreaper": on,
};

const criu: Flags = {
  "image-path": one,
  "work-path": one,
  "tcp-established": on,
  "ext-unix-sk": on,
  "shell-job": on,
  "file-locks": on,
  "manage-cgroups-mode": one,
  "empty-ns": many,
  "auto-dedup": on,
  "lazy-pages": on,
};

const regex: Flags = { regex: { short: "r", takes: "none" } };
const format: Flag = { short: "f", takes: "one" };

/** Each command with its flags, and how many words it takes: the last number is absent where there is no limit. */
export const commands = {
  create: { flags: makes, words: [1, 1], shows: "ID" },
  run: { flags: { ...makes, detach: { short: "d", takes: "none" }, keep: on }, words: [1, 1], shows: "ID" },
  start: { flags: {}, words: [1, 1], shows: "ID" },
  state: { flags: {}, words: [1, 1], shows: "ID" },
  kill: { flags: { all: { short: "a", takes: "none" }, ...regex }, words: [1, 2], shows: "ID [SIGNAL]" },
  delete: { flags: { force: { short: "f", takes: "none" }, ...regex }, words: [1, 1], shows: "ID" },
  exec: {
    flags: {
      "console-socket": one,
      cwd: one,
      env: { short: "e", takes: "many" },
      tty: { short: "t", takes: "maybe" },
      user: { short: "u", takes: "one" },
      "additional-gids": { short: "g", takes: "many" },
      process: { short: "p", takes: "one" },
      detach: { short: "d", takes: "none" },
      "pid-file": one,
      "process-label": one,
      apparmor: one,
      "no-new-privs": on,
      cap: { short: "c", takes: "many" },
      "preserve-fds": one,
      cgroup: many,
      "ignore-paused": on,
      "no-subreaper": on,
    },
    words: [1],
    shows: "ID [COMMAND …]",
  },
  ps: { flags: { format }, words: [1], shows: "ID [PS-OPTION …]" },
  pause: { flags: {}, words: [1, 1], shows: "ID" },
  resume: { flags: {}, words: [1, 1], shows: "ID" },
  update: {
    flags: {
      resources: { short: "r", takes: "one" },
      "blkio-weight": one,
      "cpu-period": one,
      "cpu-quota": one,
      "cpu-burst": one,
      "cpu-share": one,
      "cpu-idle": one,
      "cpu-rt-period": one,
      "cpu-rt-runtime": one,
      "cpuset-cpus": one,
      "cpuset-mems": one,
      memory: one,
      "memory-reservation": one,
      "memory-swap": one,
      "kernel-memory": one,
      "kernel-memory-tcp": one,
      "pids-limit": one,
      "l3-cache-schema": one,
      "mem-bw-schema": one,
    },
    words: [1, 1],
    shows: "ID",
  },
  events: { flags: { stats: on, interval: one }, words: [1, 1], shows: "ID" },
  list: { flags: { format, quiet: { short: "q", takes: "none" } }, words: [0, 0], shows: "" },
  spec: { flags: { bundle, file: { short: "f", takes: "one" }, rootless: on }, words: [0, 0], shows: "" },
  features: { flags: { bundle }, words: [0, 0], shows: "" },
  doctor: { flags: { bundle }, words: [0, 1], shows: "[ID]" },
  checkpoint: {
    flags: {
      ...criu,
      "parent-path": one,
      "leave-running": on,
      "status-fd": one,
      "page-server": one,
      "pre-dump": on,
    },
    words: [1, 1],
    shows: "ID",
  },
  restore: {
    flags: {
      ...criu,
      bundle,
      "console-socket": one,
      detach: { short: "d", takes: "none" },
      "pid-file": one,
      "no-subreaper": on,
      "no-pivot": on,
      "lsm-profile": one,
      "lsm-mount-context": one,
    },
    words: [1, 1],
    shows: "ID",
  },
} as const satisfies Readonly<
  Record<string, { readonly flags: Flags; readonly words: readonly number[]; readonly shows: string }>
>;

export type CommandName = keyof typeof commands;

/** Of each flag that was said, its values; a switch has `true`. In the order in which they were said. */
export type Said = ReadonlyMap<string, readonly (string | true)[]>;

export interface CommandLine {
  readonly globals: Said;
  /** Absent with `--help` or `--version` alone. */
  readonly command?: CommandName;
  readonly flags: Said;
  readonly words: readonly string[];
}

export function parseCommandLine(argv: readonly string[]): CommandLine {
  const globals = parseFlags(argv, globalFlags, "croft-oci", true);
  const [name, ...rest] = globals.words;
  if (name === undefined) return { globals: globals.said, flags: new Map(), words: [] };
  if (name === "help") return { globals: new Map([["help", [true]]]), flags: new Map(), words: rest };
  if (!Object.hasOwn(commands, name)) {
    throw new Fault("invalid", `unknown command ${name}`, { hint: `there is: ${Object.keys(commands).join(", ")}` });
  }
  const command = name as CommandName;
  const { flags, words } = commands[command];
  const help: Flags = { ...flags, help: { short: "h", takes: "none" } };
  // What follows the id of `exec` and `ps` belongs to another program.
  const { said, words: given } = parseFlags(rest, help, name, command === "exec" || command === "ps");
  if (said.has("help")) return { globals: new Map([["help", [true]]]), flags: new Map(), words: [name] };
  const [least, most] = words as readonly number[];
  if (given.length < (least ?? 0)) throw new Fault("invalid", `${name}: the container's id is missing`);
  if (most !== undefined && given.length > most) {
    throw new Fault("invalid", `${name}: "${given[most]}" is one argument too many`);
  }
  return { globals: globals.said, command, flags: said, words: given };
}

/**
 * The options at the front that have a value, as far as they are understood: so much is known of a command line that is
 * wrong.
 */
export function globalsOf(argv: readonly string[]): Said {
  const said = new Map<string, readonly string[]>();
  for (let index = 0; argv[index]?.startsWith("-") === true && argv[index] !== "--"; index += 1) {
    const word = argv[index] ?? "";
    const equals = word.indexOf("=");
    const name = longName(equals === -1 ? word : word.slice(0, equals), globalFlags);
    if (name === undefined || globalFlags[name]?.takes !== "one") continue;
    if (equals === -1) index += 1;
    said.set(name, [equals === -1 ? (argv[index] ?? "") : word.slice(equals + 1)]);
  }
  return said;
}

/** The last value said of a flag. */
export function valueOf(said: Said, name: string): string | undefined {
  const value = said.get(name)?.at(-1);
  return value === true ? undefined : value;
}

/** The flags as words again, those in `without` left out. */
export function wordsOf(said: Said, without: readonly string[] = []): readonly string[] {
  return [...said].flatMap(([name, values]) =>
    without.includes(name) ? [] : values.map((value) => (value === true ? `--${name}` : `--${name}=${value}`)),
  );
}

function parseFlags(
  argv: readonly string[],
  flags: Flags,
  where: string,
  stopsAtWord: boolean,
): { said: Map<string, (string | true)[]>; words: readonly string[] } {
  const said = new Map<string, (string | true)[]>();
  const words: string[] = [];
  const keep = (name: string, value: string | true): void => {
    const takes = flags[name]?.takes;
    said.set(name, takes === "many" ? [...(said.get(name) ?? []), value] : [value]);
  };
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index] ?? "";
    if (word === "--") {
      words.push(...argv.slice(index + 1));
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      if (stopsAtWord) {
        words.push(...argv.slice(index));
        break;
      }
      words.push(word);
      continue;
    }
    const equals = word.indexOf("=");
    const name = longName(equals === -1 ? word : word.slice(0, equals), flags);
    const inline = equals === -1 ? undefined : word.slice(equals + 1);
    if (name === undefined) {
      index += parseShort(argv, index, flags, where, keep);
      continue;
    }
    const takes = flags[name]?.takes ?? "none";
    if (takes === "none" || takes === "maybe") {
      if (inline === "false") continue;
      keep(name, takes === "none" || inline === undefined || inline === "true" ? true : inline);
    } else if (inline !== undefined) keep(name, inline);
    else {
      index += 1;
      keep(name, required(argv[index], word, where));
    }
  }
  return { said, words };
}

/** `--bundle`, and as Go programs take it, `-bundle`. */
function longName(word: string, flags: Flags): string | undefined {
  const name = word.startsWith("--") ? word.slice(2) : word.slice(1);
  if (name.length > 1 && Object.hasOwn(flags, name)) return name;
  return undefined;
}

/** `-b DIR`, `-bDIR`, `-b=DIR`, `-ad`. Returns how many further words it used. */
function parseShort(
  argv: readonly string[],
  index: number,
  flags: Flags,
  where: string,
  keep: (name: string, value: string | true) => void,
): number {
  const word = argv[index] ?? "";
  if (word.startsWith("--")) throw new Fault("invalid", `${where}: unknown option ${word.split("=")[0]}`);
  for (let at = 1; at < word.length; at += 1) {
    const letter = word[at];
    const name = Object.keys(flags).find((name) => flags[name]?.short === letter);
    if (name === undefined) throw new Fault("invalid", `${where}: unknown option ${word}`);
    const takes = flags[name]?.takes;
    if (takes === "none" || takes === "maybe") {
      keep(name, true);
      continue;
    }
    const rest = word.slice(at + 1).replace(/^=/, "");
    if (rest !== "") {
      keep(name, rest);
      return 0;
    }
    keep(name, required(argv[index + 1], word, where));
    return 1;
  }
  return 0;
}

function required(value: string | undefined, option: string, where: string): string {
  if (value === undefined) throw new Fault("invalid", `${where}: ${option} needs a value`);
  return value;
}
