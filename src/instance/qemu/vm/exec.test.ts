import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { backgroundCall, type Call } from "../../../base/call.ts";
import { isFault } from "../../../base/fault.ts";
import { instanceId } from "../../../base/id.ts";
import type { ExecSpec, Session } from "../../contract.ts";
import { execByAgent } from "./exec.ts";

/** The guest's agent, as far as it runs programs: here they run on this machine. */
class ImitatedAgent {
  readonly #programs = new Map<number, { child: ChildProcess; out: Buffer[]; err: Buffer[]; closed: boolean }>();
  readonly #server = createServer((socket) => this.#serve(socket));
  isDisabled = false;
  /** How long it takes to begin a program. */
  delayMs = 0;
  /** How many programs it was asked to run. */
  asked = 0;

  listen(path: string): Promise<void> {
    return new Promise((resolve) => this.#server.listen(path, resolve));
  }

  close(): void {
    this.#server.close();
    for (const { child } of this.#programs.values()) child.kill("SIGKILL");
  }

  #serve(socket: Socket): void {
    let rest = "";
    socket.setEncoding("latin1");
    socket.on("error", () => {});
    socket.on("data", (text: string) => {
      const lines = (rest + text.replaceAll("\u00ff", "")).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const { execute, arguments: args } = JSON.parse(line) as { execute: string; arguments: Args };
        void this.#answer(execute, args).then(
          (value) => socket.write(`${JSON.stringify({ return: value })}\n`),
          (error: Error) =>
            socket.write(`${JSON.stringify({ error: { class: "GenericError", desc: error.message } })}\n`),
        );
      }
    });
  }

  get #running(): number {
    return [...this.#programs.values()].filter(({ closed }) => !closed).length;
  }

  async untilBusy(): Promise<void> {
    while (this.#running === 0) await setTimeout(5);
  }

  async untilIdle(): Promise<void> {
    while (this.#running > 0) await setTimeout(5);
  }

  async #answer(execute: string, args: Args): Promise<unknown> {
    if (execute === "guest-sync-delimited") return args.id;
    if (execute === "guest-exec-status") {
      const program = this.#programs.get(args.pid ?? 0);
      if (program === undefined) throw new Error("Invalid parameter 'pid'");
      if (!program.closed) return { exited: false };
      const { exitCode, signalCode } = program.child;
      const signal = signalCode === null ? {} : { signal: { SIGTERM: 15, SIGKILL: 9 }[signalCode as "SIGTERM"] };
      const data = { "out-data": base64(program.out), "err-data": base64(program.err) };
      return { exited: true, ...(exitCode === null ? {} : { exitcode: exitCode }), ...signal, ...data };
    }
    if (this.isDisabled) throw new Error("Command guest-exec has been disabled");
    this.asked += 1;
    const env = args.env === undefined ? process.env : Object.fromEntries(args.env.map((one) => one.split(/=(.*)/s)));
    const child = spawn(args.path ?? "", args.arg ?? [], { env });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", () => {
        reject(new Error(`Failed to execute child process “${args.path}” (No such file or directory)`));
      });
    });
    const program = { child, out: [] as Buffer[], err: [] as Buffer[], closed: false };
    child.stdout.on("data", (bytes: Buffer) => program.out.push(bytes));
    child.stderr.on("data", (bytes: Buffer) => program.err.push(bytes));
    child.once("close", () => (program.closed = true));
    // Not all of them read it.
    child.stdin.on("error", () => {});
    child.stdin.end(Buffer.from(args["input-data"] ?? "", "base64"));
    this.#programs.set(child.pid ?? 0, program);
    if (this.delayMs > 0) await setTimeout(this.delayMs);
    return { pid: child.pid };
  }
}

interface Args {
  readonly id?: number;
  readonly pid?: number;
  readonly path?: string;
  readonly arg?: readonly string[];
  readonly env?: readonly string[];
  readonly "input-data"?: string;
}

function base64(chunks: readonly Buffer[]): string {
  return Buffer.concat(chunks).toString("base64");
}

/** What came, piece by piece. */
async function said({ output }: Session): Promise<string> {
  const pieces = await Array.fromAsync(output);
  return pieces.map(({ stream, bytes }) => `${stream} ${Buffer.from(bytes).toString("utf8")}`).join("|");
}

describe("a program that the guest's agent runs", () => {
  const call = backgroundCall();
  const id = instanceId("shop", "files", 1, "0123abcd");
  let directory: string;
  let agent: ImitatedAgent;

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "agent."));
    agent = new ImitatedAgent();
    await agent.listen(join(directory, "agent.sock"));
  });
  after(() => {
    agent.close();
    rmSync(directory, { recursive: true });
  });

  const exec = (script: string, change: Partial<ExecSpec> = {}, inner: Call = call): Promise<Session> => {
    const spec: ExecSpec = { argv: ["sh", "-c", script], env: {}, stdin: false, ...change };
    return execByAgent(id, join(directory, "agent.sock"), spec, inner);
  };

  it("gives what it wrote, and how it ended", async () => {
    const session = await exec("echo out; echo err >&2; exit 5");
    assert.equal(await said(session), "stdout out\n|stderr err\n");
    assert.equal(await session.exited, 5);
    assert.equal(await (await exec("kill -TERM $$")).exited, 143);
  });

  it("has its input, variables and directory", async () => {
    const session = await exec("cat; pwd; echo $A; command -v cat >/dev/null && echo path", {
      stdin: true,
      env: { A: "b=c" },
      workdir: directory,
    });
    await session.write(Buffer.from("typed "));
    await session.write(Buffer.from("in\n"));
    session.endInput();
    assert.equal(await said(session), `stdout typed in\n${directory}\nb=c\npath\n`);
    assert.equal(await session.exited, 0);
  });

  it("hears signals, and ends with its session", async () => {
    const signalled = await exec("exec sleep 1000");
    await signalled.signal("SIGTERM");
    assert.equal(await signalled.exited, 143);
    const closed = await exec("echo $$; exec sleep 1000");
    await closed.close();
    assert.equal(await closed.exited, 137);
    assert.equal(await said(closed), "");
  });

  it("ends when its caller has given up, also before it began", async () => {
    const cancel = new AbortController();
    const cancellable = backgroundCall(undefined, cancel.signal);
    const session = await exec("exec sleep 1000", {}, cancellable);
    cancel.abort();
    await assert.rejects(session.exited, { reason: "cancelled" });
    await session.close();
    await agent.untilIdle();
    const soon = new AbortController();
    agent.delayMs = 200;
    const beginning = exec("exec sleep 1000", {}, backgroundCall(undefined, soon.signal));
    await agent.untilBusy();
    soon.abort();
    await assert.rejects(beginning, { reason: "cancelled" });
    agent.delayMs = 0;
    await agent.untilIdle();
  });

  it("is sent no signal when it is over", async () => {
    const session = await exec("exit 0");
    assert.equal(await session.exited, 0);
    const { asked } = agent;
    await session.close();
    assert.equal(agent.asked, asked);
  });

  it("says what cannot be", async () => {
    await assert.rejects(exec("", { argv: ["no-such-program"] }), (error) => isFault(error, "not-found"));
    const terminal = { columns: 80, rows: 24 };
    await assert.rejects(exec("true", { terminal }), (error) => isFault(error, "unsupported"));
    agent.isDisabled = true;
    await assert.rejects(exec("true"), (error) => isFault(error, "unsupported"));
    agent.isDisabled = false;
    const none = execByAgent(id, join(directory, "none.sock"), { argv: ["true"], env: {}, stdin: false }, call);
    await assert.rejects(none, (error) => isFault(error, "unavailable") && /apt-get install/.test(error.hint ?? ""));
  });
});
