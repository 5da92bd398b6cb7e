import { constants } from "node:os";
import type { Clock } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Session } from "../contract.ts";
import { runScript } from "./script.ts";

export type Piece = { readonly stream: "stdout" | "stderr"; readonly bytes: Uint8Array };

/** A program that is not one: a script, its output and input, and what signals do to it. */
export class ImitatedProcess {
  readonly exited: Promise<number>;
  readonly #cancel = new AbortController();
  readonly #traps = new Map<string, number | "ignore">();
  readonly #input: string[] = [];
  readonly #heard = new Set<(piece: Piece) => void>();
  #inputEnded: boolean;
  #wakeInput: (() => void) | undefined;
  #killedBy: number | undefined;
  #ended = false;
  #settle: (code: Promise<number>) => void = () => {};

  constructor(stdin: boolean) {
    this.#inputEnded = !stdin;
    this.exited = new Promise((resolve) => (this.#settle = resolve));
  }

  /** Once, when everybody who wants the first byte listens. */
  begin(argv: readonly string[], clock: Clock): void {
    this.#settle(this.#run(argv, clock));
  }

  /** Calls `hear` with all output from now on, until the returned function is called. */
  listen(hear: (piece: Piece) => void): () => void {
    this.#heard.add(hear);
    return () => void this.#heard.delete(hear);
  }

  write(bytes: Uint8Array): void {
    if (this.#inputEnded) return;
    this.#input.push(Buffer.from(bytes).toString("utf8"));
    this.#wakeInput?.();
  }

  endInput(): void {
    this.#inputEnded = true;
    this.#wakeInput?.();
  }

  /** `invalid` for a name that is no signal. */
  signal(name: string): void {
    const full = name.startsWith("SIG") ? name : `SIG${name}`;
    const number = (constants.signals as Readonly<Record<string, number>>)[full];
    if (number === undefined) throw new Fault("invalid", `"${name}" is not a signal`);
    const trapped = full === "SIGKILL" ? undefined : this.#traps.get(full.slice(3));
    if (trapped === "ignore" || this.#ended) return;
    this.#killedBy = trapped ?? 128 + number;
    this.#cancel.abort();
    this.#wakeInput?.();
  }

  async #run(argv: readonly string[], clock: Clock): Promise<number> {
    try {
      const code = await runScript(argv, {
        clock,
        signal: this.#cancel.signal,
        write: (stream, text) => {
          for (const hear of this.#heard) hear({ stream, bytes: Buffer.from(text) });
        },
        read: () => this.#read(),
        trap: (signal, exitCode) => void this.#traps.set(signal, exitCode),
      });
      return this.#killedBy ?? code;
    } catch (error) {
      if (this.#killedBy === undefined) throw error;
      return this.#killedBy;
    } finally {
      this.#ended = true;
    }
  }

  async #read(): Promise<string | undefined> {
    while (this.#input.length === 0 && !this.#inputEnded && !this.#cancel.signal.aborted) {
      await new Promise<void>((resolve) => (this.#wakeInput = resolve));
    }
    return this.#input.shift();
  }
}

/** The two ends of an imitated process's stdio. */
export class ImitatedSession implements Session {
  readonly exited: Promise<number>;
  readonly output: AsyncIterable<Piece>;
  readonly #joined: Promise<ImitatedProcess>;
  readonly #endsProcess: boolean;
  readonly #queue: Piece[] = [];
  #wake: (() => void) | undefined;
  #ended = false;
  #join: (process: ImitatedProcess) => void = () => {};

  constructor(options: { readonly endsProcess: boolean }) {
    this.#endsProcess = options.endsProcess;
    this.#joined = new Promise((resolve) => (this.#join = resolve));
    this.exited = this.#joined.then((process) => process.exited);
    this.output = this.#read();
    void this.exited.finally(() => this.#end());
  }

  /** Listens from now on: before the process begins, to miss nothing. */
  join(process: ImitatedProcess): void {
    process.listen((piece) => {
      this.#queue.push(piece);
      this.#wake?.();
    });
    this.#join(process);
  }

  async write(bytes: Uint8Array): Promise<void> {
    (await this.#joined).write(bytes);
  }

  endInput(): void {
    void this.#joined.then((process) => process.endInput());
  }

  async resize(): Promise<void> {}

  async signal(signal: string): Promise<void> {
    (await this.#joined).signal(signal);
  }

  async close(): Promise<void> {
    this.#end();
    if (this.#endsProcess) await this.signal("SIGKILL");
  }

  #end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  async *#read(): AsyncGenerator<Piece> {
    for (;;) {
      for (let piece = this.#queue.shift(); piece !== undefined; piece = this.#queue.shift()) yield piece;
      if (this.#ended) return;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}
