import { randomBytes } from "node:crypto";
import { Socket } from "node:net";
import { type Call, withDeadline } from "../../../base/call.ts";
import { Fault, isFault, type Reason } from "../../../base/fault.ts";
import { connectUnixStream } from "../../../host/unix-stream.ts";

/**
 * Lines to and from a guest's first process (`guest/script/guest.sh`). QEMU serves one client of a port at a time, and the
 * next one waits: connections are short, one for each question. What comes is not trusted.
 */
export class Control implements Disposable {
  readonly #socket: Socket;
  readonly #what: string;
  readonly #waiting: ((line: string | undefined) => void)[] = [];
  readonly #lines: string[] = [];
  #rest = "";
  #ended = false;

  private constructor(fd: number, what: string) {
    this.#what = what;
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.setEncoding("utf8");
    this.#socket.on("data", (text: string) => this.#take(text));
    this.#socket.on("error", () => {});
    this.#socket.on("close", () => this.#end());
  }

  /** `unavailable` when QEMU does not listen. */
  static connect(path: string, what: string): Control {
    return new Control(connectUnixStream(path), what);
  }

  write(bytes: Uint8Array | string): void {
    this.#socket.write(bytes);
  }

  /** The next line that is not empty; undefined when the guest's machine ended. */
  async line(call: Call): Promise<string | undefined> {
    const known = this.#lines.shift();
    if (known !== undefined) return known;
    if (this.#ended) return undefined;
    return await new Promise((resolve, reject) => {
      const settle = (line: string | undefined): void => {
        call.signal.removeEventListener("abort", onAbort);
        resolve(line);
      };
      const onAbort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(settle), 1);
        reject(Fault.from(call.signal.reason, this.#what));
      };
      if (call.signal.aborted) return reject(Fault.from(call.signal.reason, this.#what));
      call.signal.addEventListener("abort", onAbort, { once: true });
      this.#waiting.push(settle);
    });
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
    this.#end();
  }

  #take(text: string): void {
    this.#rest += text;
    // A guest that never ends a line is no guest of ours.
    if (this.#rest.length > maxLineLength) return this.#socket.destroy() && undefined;
    const lines = this.#rest.split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") continue;
      const waiting = this.#waiting.shift();
      if (waiting !== undefined) waiting(line);
      else if (this.#lines.length < maxWaitingLines) this.#lines.push(line);
    }
  }

  #end(): void {
    this.#ended = true;
    for (const waiting of this.#waiting.splice(0)) waiting(undefined);
  }
}

const maxLineLength = 64 * 1024;
const maxWaitingLines = 1000;

/** Longer than this no guest takes to answer that is not stuck. */
const answerTimeoutMs = 10_000;

/**
 * Asks a running guest, and returns the words of its answer. `unavailable` when it does not answer in time, `failed` when
 * it says so. A payload follows the question as bytes, as many as the question says.
 */
export async function ask(
  path: string,
  what: string,
  question: string,
  call: Call,
  options: { readonly timeoutMs?: number; readonly payload?: Uint8Array } = {},
): Promise<readonly string[]> {
  using bounded = withDeadline(call, options.timeoutMs ?? answerTimeoutMs, what);
  using control = Control.connect(path, what);
  for await (const answer of answers(control, what, question, options.payload, bounded)) return answer.split(" ");
  throw new Fault("unavailable", `${what}: the guest ended`);
}

/** As `ask`, of what is answered with several lines, up to one that says `end`. */
export async function askForLines(
  path: string,
  what: string,
  question: string,
  call: Call,
): Promise<readonly string[]> {
  using bounded = withDeadline(call, answerTimeoutMs, what);
  using control = Control.connect(path, what);
  const lines: string[] = [];
  for await (const answer of answers(control, what, question, undefined, bounded)) {
    if (answer === "end") return lines;
    if (lines.length < maxWaitingLines) lines.push(answer);
  }
  throw new Fault("unavailable", `${what}: the guest ended`);
}

/** What is said with our mark, without it, until the guest's machine ends. */
async function* answers(
  control: Control,
  what: string,
  question: string,
  payload: Uint8Array | undefined,
  call: Call,
): AsyncGenerator<string> {
  const mark = randomBytes(4).toString("hex");
  // Half a line of somebody who was killed may lie there.
  control.write(`\n${mark} ${question}\n`);
  if (payload !== undefined) control.write(payload);
  for (;;) {
    const line = await control.line(call).catch((error: unknown) => {
      if (!isFault(error, "timeout")) throw error;
      throw new Fault("unavailable", `${what}: the guest does not answer`, { cause: error });
    });
    if (line === undefined) return;
    if (line.startsWith(`${mark} `)) yield line.slice(mark.length + 1);
  }
}

const guestReasons: readonly Reason[] = ["invalid", "failed"];

/** `fault invalid user "x" is not …` of the guest's scripts as a Fault. */
export function guestFault(what: string, line: string): Fault {
  const [, kind = "", ...rest] = line.split(" ");
  const text = rest.join(" ").slice(0, 2000);
  if (kind === "program") return new Fault("not-found", `"${text}" is not a program of the instance`);
  const reason = guestReasons.find((known) => known === kind) ?? "failed";
  return new Fault(reason, `${what}: ${text}`);
}
