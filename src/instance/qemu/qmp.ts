import { Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import { type Call, orCancelled, throwIfCancelled, withDeadline } from "../../base/call.ts";
import { Fault, isFault, type Reason } from "../../base/fault.ts";
import { connectUnixStream, sendWithDescriptors } from "../../host/unix-stream.ts";

/**
 * QEMU's own protocol (QMP): one JSON object a line, over a unix socket. QEMU serves one client of a socket at a time and
 * the next one waits for its greeting, so connections are short: connect, ask, close.
 *
 * What comes is not trusted: a guest that broke out of QEMU speaks here. Lines have a limit, and so has what waits.
 */
export class Qmp implements Disposable {
  readonly #socket: Socket;
  readonly #fd: number;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent | undefined) => void>();
  readonly #what: string;
  #lastId = 0;
  #rest = "";
  #ended: Fault | undefined;
  readonly #over = new AbortController();
  #greeted: { resolve: () => void; reject: (fault: Fault) => void } | undefined;

  /** Use `connectQmp`. */
  constructor(fd: number, what: string) {
    this.#fd = fd;
    this.#what = what;
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.setEncoding("utf8");
    this.#socket.on("data", (text: string) => this.#take(text));
    this.#socket.on("error", () => {});
    this.#socket.on("close", () => this.#end(new Fault("unavailable", `${this.#what}: QEMU closed the connection`)));
  }

  /** Resolves when the greeting came and capabilities were agreed: before that nothing may be asked. */
  async open(call: Call): Promise<void> {
    const greeting = new Promise<void>((resolve, reject) => (this.#greeted = { resolve, reject }));
    await orCancelled(greeting, call);
    await this.execute("qmp_capabilities", {}, call);
  }

  /**
   * Runs a command and returns what it returned. An error of QEMU is a Fault with its words; `unavailable` when QEMU ended
   * meanwhile. Cancelling stops waiting, not the command.
   */
  async execute(command: string, args: object, call: Call): Promise<unknown> {
    return this.#ask(command, args, [], call);
  }

  /** As `execute`, for commands that come with a descriptor of ours: `getfd`, `add-fd`. QEMU gets a duplicate. */
  async executeWithDescriptor(command: string, args: object, descriptor: number, call: Call): Promise<unknown> {
    return this.#ask(command, args, [descriptor], call);
  }

  /** Events from now on, not from the first `next`; ends when the connection does or the call is cancelled. */
  events(call: Call): AsyncGenerator<QmpEvent, void> {
    const queue: (QmpEvent | undefined)[] = [];
    let wake: (() => void) | undefined;
    const listener = (event: QmpEvent | undefined): void => {
      // Nobody needs the old ones of a guest that makes events faster than they are read.
      if (queue.length < maxQueuedEvents || event === undefined) queue.push(event);
      wake?.();
    };
    this.#listeners.add(listener);
    if (this.#ended !== undefined) queue.push(undefined);
    const onAbort = (): void => listener(undefined);
    call.signal.addEventListener("abort", onAbort, { once: true });
    const stop = (): void => {
      this.#listeners.delete(listener);
      call.signal.removeEventListener("abort", onAbort);
    };
    return (async function* () {
      try {
        for (;;) {
          while (queue.length === 0) await new Promise<void>((resolve) => (wake = resolve));
          const event = queue.shift();
          if (event === undefined) return;
          yield event;
        }
      } finally {
        stop();
      }
    })();
  }

  /**
   * Runs a command that makes a job and waits until it is done. `args` without `job-id`, which is made here. A job that
   * failed is a Fault with QEMU's words; cancelling the call cancels the job.
   */
  async runJob(command: string, args: object, call: Call): Promise<void> {
    const id = `${command}-${(this.#lastId += 1)}`;
    using watching = new Disposer();
    const over = new AbortController();
    watching.add(() => over.abort());
    const events = this.events({ ...call, signal: AbortSignal.any([call.signal, over.signal]) });
    try {
      await this.execute(command, { ...args, "job-id": id }, call);
      for await (const event of events) {
        if (event.event === "JOB_STATUS_CHANGE" && event.data["id"] === id && event.data["status"] === "concluded")
          break;
      }
      throwIfCancelled(call);
    } catch (error) {
      if (call.signal.aborted) this.post("job-cancel", { id });
      throw error;
    }
    const jobs = (await this.execute("query-jobs", {}, call)) as readonly { id: string; error?: string }[];
    const job = jobs.find((known) => known.id === id);
    await this.execute("job-dismiss", { id }, call);
    if (job?.error !== undefined) throw qmpFault("GenericError", `${this.#what}: ${command}: ${job.error}`);
  }

  /** Without waiting for an answer, or for anything. */
  post(command: string, args: object): void {
    if (this.#ended !== undefined) return;
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id: 0 })}\n`);
  }

  get isOpen(): boolean {
    return this.#ended === undefined;
  }

  /** Aborts when the connection ends, because QEMU did: for whoever waits for something else that QEMU is to do. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  [Symbol.dispose](): void {
    this.#end(new Fault("cancelled", `${this.#what}: the connection was closed`));
  }

  async #ask(command: string, args: object, descriptors: readonly number[], call: Call): Promise<unknown> {
    throwIfCancelled(call);
    if (this.#ended !== undefined) throw this.#ended;
    const id = (this.#lastId += 1);
    const answer = new Promise<unknown>((resolve, reject) => this.#pending.set(id, { command, resolve, reject }));
    // Whoever gave up does not hear it.
    answer.catch(() => {});
    const line = `${JSON.stringify({ execute: command, arguments: args, id })}\n`;
    try {
      if (descriptors.length === 0) this.#socket.write(line);
      else {
        // Around Node's own queue: it has to be empty, or bytes would overtake each other.
        while (this.#socket.writableLength > 0 && this.#ended === undefined) await setImmediate();
        sendWithDescriptors(this.#fd, Buffer.from(line), descriptors);
      }
      return await orCancelled(answer, call);
    } finally {
      this.#pending.delete(id);
    }
  }

  #take(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > maxLineChars || lines.some((line) => line.length > maxLineChars)) {
      return this.#end(new Fault("hostile", `${this.#what}: QEMU sent a line of more than ${maxLineChars} characters`));
    }
    for (const line of lines) if (line.trim() !== "") this.#takeLine(line);
  }

  #takeLine(line: string): void {
    let message: Message;
    try {
      message = JSON.parse(line) as Message;
    } catch (cause) {
      return this.#end(new Fault("corrupt", `${this.#what}: QEMU sent what is not JSON`, { cause }));
    }
    if (message === null || typeof message !== "object") return;
    if ("QMP" in message) return this.#greeted?.resolve();
    if (typeof message.event === "string") {
      const { seconds = 0, microseconds = 0 } = message.timestamp ?? {};
      const event: QmpEvent = {
        event: message.event,
        data: message.data ?? {},
        timeMs: seconds * 1000 + Math.floor(microseconds / 1000),
      };
      for (const listener of this.#listeners) listener(event);
      return;
    }
    const pending = this.#pending.get(message.id ?? -1);
    if (pending === undefined) return;
    if (message.error === undefined) pending.resolve(message.return);
    else
      pending.reject(qmpFault(message.error.class, `${this.#what}: ${pending.command}: ${message.error.desc ?? "?"}`));
  }

  #end(fault: Fault): void {
    if (this.#ended !== undefined) return;
    this.#ended = fault;
    this.#socket.destroy();
    this.#over.abort(fault);
    this.#greeted?.reject(fault);
    for (const { reject } of this.#pending.values()) reject(fault);
    for (const listener of this.#listeners) listener(undefined);
  }
}

export interface QmpEvent {
  /** `SHUTDOWN`, `JOB_STATUS_CHANGE`. */
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly timeMs: number;
}

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (fault: Fault) => void;
}

interface Message {
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class?: string; readonly desc?: string };
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
  readonly timestamp?: { readonly seconds?: number; readonly microseconds?: number };
}

/** Much longer than any honest answer. */
const maxLineChars = 4 * 2 ** 20;
const maxQueuedEvents = 1000;

/** How long QEMU may take to answer a connection, with another client before us. */
const connectTimeoutMs = 20_000;

/**
 * Connects to the QMP socket at `path`; dispose of the connection (`using`). The socket appears a moment after QEMU was
 * started: tried again until `isAlive` says that nobody will listen any more. `what` names the instance in messages.
 */
export async function connectQmp(path: string, what: string, isAlive: () => boolean, call: Call): Promise<Qmp> {
  using bounded = withDeadline(call, connectTimeoutMs, `${what}: connect to QEMU`);
  for (let tries = 0; ; tries += 1) {
    const alive = isAlive();
    try {
      const qmp = new Qmp(connectUnixStream(path), what);
      try {
        await qmp.open(bounded);
        return qmp;
      } catch (error) {
        qmp[Symbol.dispose]();
        throw error;
      }
    } catch (error) {
      if (!isFault(error, "not-found") && !isFault(error, "unavailable")) throw error;
      if (!alive) throw new Fault("precondition", `${what}: its QEMU does not run`, { cause: error });
      await bounded.clock.sleep(Math.min(2 + tries, 20), bounded.signal);
    }
  }
}

const reasons: Readonly<Record<string, Reason>> = {
  CommandNotFound: "unsupported",
  DeviceNotActive: "precondition",
  DeviceNotFound: "not-found",
  KVMMissingCap: "unsupported",
};

function qmpFault(kind: string | undefined, message: string): Fault {
  if (/No space left on device/i.test(message)) return new Fault("exhausted", message);
  return new Fault(reasons[kind ?? ""] ?? "failed", message, { detail: { qmp: kind ?? "GenericError" } });
}

class Disposer implements Disposable {
  readonly #actions: (() => void)[] = [];

  add(action: () => void): void {
    this.#actions.push(action);
  }

  [Symbol.dispose](): void {
    for (const action of this.#actions) action();
  }
}
