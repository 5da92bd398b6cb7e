import { systemClock, type Clock } from "../base/call.ts";
import { defaultHome, homeBeneath } from "../base/home.ts";
import { connect, type Client } from "../client/client.ts";
import { targetFromEnvironment, type Target } from "../client/target.ts";
import { userInfo } from "node:os";
import { resolve } from "node:path";
import { screenOf, type Keyboard, type Screen } from "./terminal.ts";

/** What a verb works with: the daemon, where to write, and what was asked of every verb. */
export interface Context {
  /** Connects when it is first called. */
  readonly client: Client;
  /** Throws `invalid` or `unauthenticated` when what was asked for is no address. */
  readonly target: Target;
  /** Results. */
  readonly out: Screen;
  /** Everything else: progress, warnings, errors. */
  readonly err: Screen;
  readonly keyboard: Keyboard;
  /** Of this command line; the daemon's may differ. */
  readonly version: string;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly clock: Clock;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Absolute. */
  readonly directory: string;
}

export interface GlobalValues {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly color: boolean | undefined;
  readonly root: string | undefined;
  readonly host: string | undefined;
}

/** The context of this process. */
export function processContext({ json, quiet, color, root, host }: GlobalValues, version: string): Context {
  const { env } = process;
  let client: Client | undefined;
  let out: Screen | undefined;
  let err: Screen | undefined;
  return {
    get target() {
      return targetOf(root, host, env);
    },
    get client() {
      client ??= connect(this.target, { user: env["SUDO_USER"] ?? env["USER"] ?? nameOfUser() });
      return client;
    },
    // Each stream costs a millisecond to open: one that nobody writes to is left alone.
    get out() {
      out ??= screenOf(process.stdout, color, env);
      return out;
    },
    get err() {
      err ??= screenOf(process.stderr, color, env);
      return err;
    },
    get keyboard() {
      return process.stdin;
    },
    version,
    json,
    quiet,
    clock: systemClock,
    env,
    directory: process.cwd(),
  };
}

/** What is typed goes before the environment, an address before a root. */
export function targetOf(
  root: string | undefined,
  host: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): Target {
  if (host !== undefined) return targetFromEnvironment({ ...env, CROFT_HOST: host }, "");
  const beneath = root ?? (env["CROFT_HOST"] === undefined ? env["CROFT_ROOT"] : undefined);
  if (beneath !== undefined && beneath !== "") {
    return { kind: "unix", socketPath: homeBeneath(resolve(beneath)).socketPath };
  }
  return targetFromEnvironment(env, defaultHome().socketPath);
}

/** A whole answer as JSON on standard output. */
export async function printJson({ out }: Context, value: unknown): Promise<void> {
  await out.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

/** One object of a stream, one line. */
export async function printJsonLine({ out }: Context, value: unknown): Promise<void> {
  await out.write(`${JSON.stringify(value)}\n`);
}

/** A line about what was done, for people: left out with `--quiet` and `--json`. */
export async function say(context: Context, text: string): Promise<void> {
  if (!context.quiet && !context.json) await context.err.write(`${text}\n`);
}

/** Without the environment's help; the compiled program does not read the user database, but root is root. */
function nameOfUser(): string {
  return process.getuid?.() === 0 ? "root" : userInfo().username;
}
