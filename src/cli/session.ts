import type { Duplex, Input, Instance, Output, Progress, Terminal } from "../client/message.ts";
import type { Context } from "./context.ts";
import { DetachKeys } from "./detach-keys.ts";
import { exitCode } from "./exit-code.ts";
import { rawMode } from "./terminal.ts";

/** What run, exec and attach say alike. */
export interface SessionAnswer {
  readonly output?: Output;
  readonly exit?: number;
  readonly progress?: Progress;
  readonly started?: Instance;
}

export interface SessionOptions {
  /** The process has a terminal, which is this one: every key is its. */
  readonly tty: boolean;
  /** Standard input goes to the process. */
  readonly input: boolean;
  /** Ctrl-P Ctrl-Q leaves the process alone. Only in a terminal. */
  readonly detachable: boolean;
  /** Signals end us and are not passed on: a console has nobody who could take them, and who only watches sends none. */
  readonly signalsEndUs?: boolean;
  /** The process is there only after an answer says so; until then keys and signals are ours. */
  readonly awaitStarted?: boolean;
  /** Hears of what is not output. */
  readonly onAnswer?: (answer: SessionAnswer) => void;
}

/** The process went on without us. */
export const detached = Symbol("detached");

/** Signals that are meant for the process, because whoever sends them sees only us. */
const forwarded = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;
/** So many Ctrl-C mean that the process does not listen, and that we should end. */
const patience = 3;

/** This terminal's size, for the start of a session; undefined without one. */
export function terminalSize({ out, err }: Context): Terminal | undefined {
  const screen = [out, err].find(({ isTerminal }) => isTerminal);
  return screen === undefined ? undefined : { columns: screen.columns, rows: screen.rows };
}

/**
 * Connects standard input, output, error and signals with a process until it ends, and returns its exit code, or
 * undefined when the daemon ended the session without one. `start` has been sent already.
 */
export async function converse(
  duplex: Duplex<{ readonly input: Input }, SessionAnswer>,
  options: SessionOptions,
  context: Context,
): Promise<number | undefined | typeof detached> {
  const answers = duplex[Symbol.asyncIterator]();
  using cleanUp = new DisposableStack();
  const exit = new SideExit();
  const begin = (): void => {
    if (options.tty) cleanUp.use(rawMode(context.keyboard));
    if (options.signalsEndUs !== true) forwardSignals(duplex, options, context, cleanUp);
    if (!options.input) return;
    const keys = options.detachable && options.tty ? new DetachKeys() : undefined;
    // A failure to send is told by the answers.
    pumpInput(duplex, keys, () => exit.take(), context).catch(() => {});
    cleanUp.defer(() => context.keyboard.pause());
  };
  if (options.awaitStarted !== true) begin();
  for (;;) {
    const next = await exit.orElse(answers.next());
    if (next === detached) {
      // Not awaited: the answer that is under way may never come.
      void answers.return?.();
      return detached;
    }
    if (next.done === true) return undefined;
    const answer = next.value;
    options.onAnswer?.(answer);
    if (answer.started !== undefined && options.awaitStarted === true) begin();
    if (answer.output !== undefined) await show(answer.output, context);
    if (answer.exit !== undefined) return answer.exit;
  }
}

/** A way out of every wait there is. A race with one promise for all of them would keep each answer until the end. */
class SideExit {
  #isTaken = false;
  #leave: (() => void) | undefined;

  take(): void {
    this.#isTaken = true;
    this.#leave?.();
  }

  async orElse<Value>(coming: Promise<Value>): Promise<Value | typeof detached> {
    return await new Promise((resolve, reject) => {
      this.#leave = () => resolve(detached);
      if (this.#isTaken) this.#leave();
      coming.then(resolve, reject);
    });
  }
}

async function show({ stdout, stderr }: Output, { out, err }: Context): Promise<void> {
  if (stdout !== undefined) await out.write(Buffer.from(stdout, "base64"));
  if (stderr !== undefined) await err.write(Buffer.from(stderr, "base64"));
}

async function pumpInput(
  duplex: Duplex<{ readonly input: Input }, unknown>,
  keys: DetachKeys | undefined,
  leave: () => void,
  { keyboard }: Context,
): Promise<void> {
  for await (const chunk of keyboard as AsyncIterable<Buffer>) {
    const pressed = keys === undefined ? { pass: chunk, detach: false } : keys.press(chunk);
    if (pressed.pass.length > 0) await duplex.send({ input: { data: Buffer.from(pressed.pass).toString("base64") } });
    if (pressed.detach) return leave();
  }
  await duplex.send({ input: { end: true } });
}

function forwardSignals(
  duplex: Duplex<{ readonly input: Input }, unknown>,
  { tty }: SessionOptions,
  context: Context,
  cleanUp: DisposableStack,
): void {
  const on = (signal: NodeJS.Signals, action: () => void): void => {
    process.on(signal, action);
    cleanUp.defer(() => process.off(signal, action));
  };
  let interrupts = 0;
  for (const signal of forwarded) {
    on(signal, () => {
      if (signal === "SIGINT") interrupts += 1;
      if (interrupts > patience) process.exit(exitCode.interrupted);
      void duplex.send({ input: { signal } });
    });
  }
  if (!tty) return;
  on("SIGWINCH", () => {
    const resize = terminalSize(context);
    if (resize !== undefined) void duplex.send({ input: { resize } });
  });
}
