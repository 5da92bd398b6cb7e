import { randomInt } from "node:crypto";
import { Socket } from "node:net";
import { type Call, throwIfCancelled, withDeadline } from "../../../base/call.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import { connectUnixStream } from "../../../host/unix-stream.ts";

/**
 * qemu-ga, the agent that a guest may run: one JSON object a line on a port of the machine. Whether it is there shows in
 * whether it answers; what it says is the guest's word and no more.
 */
export class Agent implements Disposable {
  readonly #socket: Socket;
  readonly #lines: string[] = [];
  #rest = "";
  #ended = false;
  #wake: (() => void) | undefined;

  constructor(fd: number) {
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.setEncoding("latin1");
    this.#socket.on("data", (text: string) => this.#take(text));
    this.#socket.on("error", () => {});
    this.#socket.on("close", () => {
      this.#ended = true;
      this.#wake?.();
    });
  }

  /** Throws away what an earlier client left half said, and waits for the agent to be there. */
  async open(call: Call): Promise<void> {
    const id = randomInt(2 ** 31);
    this.#socket.write(Buffer.from([0xff]));
    this.#socket.write(`${JSON.stringify({ execute: "guest-sync-delimited", arguments: { id } })}\n`);
    for (;;) {
      const answer = await this.#next(call);
      if (answer["return"] === id) return;
    }
  }

  async execute(command: string, args: object, call: Call): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    const answer = await this.#next(call);
    const error = answer["error"] as { readonly class?: string; readonly desc?: string } | undefined;
    if (error === undefined) return answer["return"];
    const reason = error.class === "CommandNotFound" ? "unsupported" : "failed";
    throw new Fault(reason, `guest agent: ${command}: ${String(error.desc).slice(0, 500)}`);
  }

  /** Says something that is not answered: a guest that shuts down. */
  post(command: string, args: object): void {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
  }

  [Symbol.dispose](): void {
    this.#socket.destroySoon();
  }

  async #next(call: Call): Promise<Readonly<Record<string, unknown>>> {
    const onAbort = (): void => this.#wake?.();
    call.signal.addEventListener("abort", onAbort, { once: true });
    try {
      for (;;) {
        throwIfCancelled(call);
        const line = this.#lines.shift();
        if (line !== undefined) {
          const parsed = parseLine(line);
          if (parsed !== undefined) return parsed;
          continue;
        }
        if (this.#ended) throw new Fault("unavailable", "guest agent: the connection was closed");
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      call.signal.removeEventListener("abort", onAbort);
    }
  }

  #take(text: string): void {
    const lines = (this.#rest + text.replaceAll("\u00ff", "")).split("\n");
    this.#rest = lines.pop() ?? "";
    this.#lines.push(...lines);
    if (this.#rest.length > maxLineChars || this.#lines.length > maxLines) this.#socket.destroy();
    this.#wake?.();
  }
}

const maxLineChars = 16 * 2 ** 20;
const maxLines = 1000;

/** What an earlier client was not there to hear may be half a line. */
function parseLine(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value = JSON.parse(Buffer.from(line, "latin1").toString("utf8")) as unknown;
    return value !== null && typeof value === "object" ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** A guest without agent never answers; one with it does so in milliseconds, in seconds where nothing is accelerated. */
export const agentTimeoutMs = 3_000;

/** What `work` returns, or undefined when the guest has no agent that answers. */
export async function withAgent<Result>(
  socketPath: string,
  call: Call,
  work: (agent: Agent, call: Call) => Promise<Result>,
  timeoutMs: number = agentTimeoutMs,
): Promise<Result | undefined> {
  let agent: Agent;
  try {
    agent = new Agent(connectUnixStream(socketPath));
  } catch (error) {
    if (isFault(error, "not-found") || isFault(error, "unavailable")) return undefined;
    throw error;
  }
  using _ = agent;
  try {
    using bounded = withDeadline(call, timeoutMs, "reach the guest agent");
    await agent.open(bounded);
  } catch (error) {
    if (isFault(error, "timeout") || isFault(error, "unavailable")) return undefined;
    throw error;
  }
  return await work(agent, call);
}

/** The same for what cannot be done without: `unavailable` when no agent answers, saying what was `attempted`. */
export async function requireAgent<Result>(
  socketPath: string,
  attempted: string,
  call: Call,
  work: (agent: Agent) => Promise<Result>,
  timeoutMs: number = agentTimeoutMs,
): Promise<Result> {
  const told = await withAgent(socketPath, call, async (agent) => ({ said: await work(agent) }), timeoutMs);
  if (told !== undefined) return told.said;
  throwIfCancelled(call);
  throw new Fault("unavailable", `${attempted}: no agent answers in the guest`, {
    hint: "install it there: apt-get install qemu-guest-agent; it may still be booting",
  });
}
