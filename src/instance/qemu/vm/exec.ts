import { constants } from "node:os";
import { backgroundCall, type Call, orCancelled, withDeadline } from "../../../base/call.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/id.ts";
import type { ExecSpec, Session } from "../../contract.ts";
import type { Piece } from "../../monitor/merged.ts";
import { signalNumber } from "../../monitor/signal.ts";
import { type Agent, requireAgent } from "./agent.ts";

/** What may be given to a program: the agent takes it all at once, before the program begins. */
const maxInputBytes = 2 ** 20;
/** How often is asked whether it ended: at first often, as most do at once. */
const askMs = { first: 20, last: 500 };

/** Less than a health check waits by itself, so that it can say that no agent is there. */
const patienceMs = 2_500;
/** How long an agent that is there takes at most to begin a program or to be told to end it. */
const answerTimeoutMs = 10_000;

interface Status {
  readonly exited: boolean;
  readonly exitcode?: number;
  readonly signal?: number;
  readonly "out-data"?: string;
  readonly "err-data"?: string;
}

interface Ended {
  readonly code: number;
  readonly pieces: readonly Piece[];
}

/**
 * Runs a program in a machine by the agent of its guest, which gives out what it wrote when it has ended, and takes its
 * input before it begins. A connection to the agent is had for one question only, as there can be but one at a time.
 */
export async function execByAgent(id: InstanceId, agentSocket: string, spec: ExecSpec, call: Call): Promise<Session> {
  const attempted = `run ${spec.argv[0] ?? "nothing"} in ${id}`;
  if (spec.terminal !== undefined) {
    throw new Fault("unsupported", `${attempted}: the guest's agent has no terminals`, {
      hint: "leave the terminal out, or log in: by ssh, or croft vm console",
    });
  }
  const over = new AbortController();
  const own: Call = { ...call, signal: AbortSignal.any([call.signal, over.signal]) };
  const asked = <Result>(work: (agent: Agent) => Promise<Result>, inner: Call): Promise<Result> =>
    requireAgent(agentSocket, attempted, inner, work, patienceMs);
  let pid: number | undefined;
  let isOver = false;
  let beginning: Promise<void> | undefined;
  const begin = (input: Uint8Array | undefined): Promise<void> => {
    beginning = asked(async (agent) => {
      // An agent that was told is heard out, whoever has given up: what has begun must be known, to be ended.
      using bounded = withDeadline(backgroundCall(call.clock), answerTimeoutMs, attempted);
      pid = await beginProgram(agent, spec, input, attempted, bounded);
    }, own);
    return orCancelled(beginning, own);
  };
  const send = async (name: string, inner: Call): Promise<void> => {
    if (pid === undefined) return;
    const argv = ["-c", `kill -${signalNumber(name)} ${pid}`];
    await asked((agent) => agent.execute("guest-exec", { path: "/bin/sh", arg: argv }, inner), inner);
  };
  /** Never throws. Not by the call, which may be why it is ended. */
  const end = async (): Promise<void> => {
    if (isOver) return;
    using bounded = withDeadline(backgroundCall(call.clock), answerTimeoutMs, attempted);
    await beginning?.then(() => send("SIGKILL", bounded)).catch(() => {});
  };
  const untilEnded = async (): Promise<Ended> => {
    for (let waitMs = askMs.first; ; waitMs = Math.min(askMs.last, waitMs * 1.5)) {
      const status = await asked((agent) => agent.execute("guest-exec-status", { pid }, own) as Promise<Status>, own);
      if (status.exited) {
        isOver = true;
        return { code: codeOf(status), pieces: piecesOf(status) };
      }
      await own.clock.sleep(waitMs, own.signal);
    }
  };
  const input = new Input();
  if (!spec.stdin) {
    try {
      await begin(undefined);
    } catch (error) {
      void end();
      throw error;
    }
  }
  const ended = spec.stdin ? input.whole.then(begin).then(untilEnded) : untilEnded();
  const exited = ended.then(
    ({ code }) => code,
    (thrown: unknown) => {
      // Whoever closed it does not wait for its end.
      if (over.signal.aborted) return 128 + constants.signals.SIGKILL;
      throw thrown;
    },
  );
  exited.catch(() => {});
  return {
    output: outputOf(ended, over.signal),
    write: async (bytes) => input.add(bytes, attempted),
    endInput: () => input.end(),
    resize: async () => {
      throw new Fault("precondition", `${attempted}: it has no terminal`);
    },
    signal: (name) => send(name, call),
    exited,
    async close() {
      over.abort(new Fault("cancelled", `${attempted}: the session was closed`));
      await end();
    },
  };
}

async function beginProgram(
  agent: Agent,
  spec: ExecSpec,
  input: Uint8Array | undefined,
  attempted: string,
  call: Call,
): Promise<number> {
  const [path, ...arg] = argvOf(spec);
  const request = {
    path,
    arg,
    env: envOf(spec),
    "capture-output": true,
    ...(input === undefined ? {} : { "input-data": Buffer.from(input).toString("base64") }),
  };
  try {
    return ((await agent.execute("guest-exec", request, call)) as { readonly pid: number }).pid;
  } catch (error) {
    const { message } = Fault.from(error, attempted);
    if (/no such file or directory/i.test(message)) {
      throw new Fault("not-found", `${attempted}: the guest has no such program`, { cause: error });
    }
    if (isFault(error, "unsupported") || /disabled/i.test(message)) {
      throw new Fault("unsupported", `${attempted}: the guest's agent does not run programs`, {
        hint: "allow it guest-exec where it is configured: BLACKLIST_RPC, FILTER_RPC_ARGS",
        cause: error,
      });
    }
    throw error;
  }
}

/** The agent runs all as root, in its own directory. Programs of the guest change that, before they become the one asked for. */
function argvOf({ argv, user, workdir }: ExecSpec): readonly string[] {
  const inside = workdir === undefined ? argv : ["env", "-C", workdir, "--", ...argv];
  return user === undefined ? inside : ["runuser", "-u", user, "--", ...inside];
}

/** With any variable given, the agent gives none of its own. */
function envOf({ env }: ExecSpec): readonly string[] | undefined {
  const names = Object.keys(env);
  if (names.length === 0) return undefined;
  const all = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", ...env };
  return Object.entries(all).map(([name, value]) => `${name}=${value}`);
}

function codeOf({ exitcode, signal }: Status): number {
  return signal === undefined ? (exitcode ?? 0) : 128 + signal;
}

function piecesOf(status: Status): readonly Piece[] {
  const pieces: Piece[] = [];
  for (const [stream, data] of [
    ["stdout", status["out-data"]],
    ["stderr", status["err-data"]],
  ] as const) {
    if (data !== undefined && data !== "") pieces.push({ stream, bytes: Buffer.from(data, "base64") });
  }
  return pieces;
}

async function* outputOf(ended: Promise<Ended>, over: AbortSignal): AsyncGenerator<Piece> {
  try {
    yield* (await ended).pieces;
  } catch (error) {
    if (!over.aborted) throw error;
  }
}

/** What is written until somebody says that this is all. */
class Input {
  readonly whole: Promise<Uint8Array>;
  readonly #chunks: Uint8Array[] = [];
  readonly #end: (bytes: Uint8Array) => void;
  #sizeBytes = 0;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<Uint8Array>();
    this.whole = promise;
    this.#end = resolve;
  }

  add(bytes: Uint8Array, attempted: string): void {
    this.#sizeBytes += bytes.length;
    if (this.#sizeBytes > maxInputBytes) {
      throw new Fault("exhausted", `${attempted}: more than a MiB of input, which the guest's agent takes at once`, {
        hint: "copy it by ssh",
      });
    }
    this.#chunks.push(Buffer.from(bytes));
  }

  end(): void {
    this.#end(Buffer.concat(this.#chunks));
  }
}
