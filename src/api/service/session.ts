import { Fault, isFault } from "../../base/fault.ts";
import { backgroundCall } from "../../base/call.ts";
import type { AttachInstanceRequest, ExecInstanceRequest, ExecStart, Input } from "../../gen/croft/v1/instance_pb.ts";
import type { ExecSpec, Session } from "../../instance/contract.ts";
import type { Instances } from "../../reconcile/contract.ts";
import type { ApiCall } from "../handler.ts";

/** What a session says, in the shape that the answers of run, exec and attach share. */
export type SessionAnswer =
  | { readonly message: { readonly case: "output"; readonly value: OutputMessage } }
  | { readonly message: { readonly case: "exit"; readonly value: number } };

interface OutputMessage {
  readonly stream: { readonly case: "stdout" | "stderr"; readonly value: Uint8Array };
}

/** What a client says in a session: `start` once, then `input`. */
interface Spoken<Start> {
  readonly message:
    | { readonly case: "start"; readonly value: Start }
    | { readonly case: "input"; readonly value: Input }
    | { readonly case: undefined; readonly value?: undefined };
}

export async function* execInstance(
  instances: Instances,
  requests: AsyncIterable<ExecInstanceRequest>,
  call: ApiCall,
): AsyncGenerator<SessionAnswer> {
  const spoken = requests[Symbol.asyncIterator]();
  const start = await readStart(spoken);
  const { id } = instances.find(start.instance);
  if (start.detach) {
    // It goes on when this call has ended; what it prints goes nowhere, but must be taken or it would stand still.
    const session = await instances.exec(id, execSpec(start), backgroundCall(call.clock));
    void drain(session);
    return;
  }
  yield* converse(await instances.exec(id, execSpec(start), call), spoken, { input: start.interactive }, call);
}

export async function* attachInstance(
  instances: Instances,
  requests: AsyncIterable<AttachInstanceRequest>,
  call: ApiCall,
): AsyncGenerator<SessionAnswer> {
  const spoken = requests[Symbol.asyncIterator]();
  const { instance, terminal, noStdin } = await readStart(spoken);
  const session = await instances.attach(instances.find(instance).id, call);
  if (terminal !== undefined) await delivered(session.resize(terminal.columns, terminal.rows));
  yield* converse(session, spoken, { input: !noStdin }, call);
}

/** The first message, which must say what to start. */
export async function readStart<Start>(spoken: AsyncIterator<Spoken<Start>>): Promise<NonNullable<Start>> {
  const { done, value } = await spoken.next();
  const start = done !== true && value.message.case === "start" ? value.message.value : undefined;
  if (start !== undefined && start !== null) return start;
  throw new Fault("invalid", "the first message must be start");
}

/**
 * Carries input and output until the process ends, then says its exit code. A client that ends its side ends the
 * process's input; one that goes away ends the session.
 */
export async function* converse<Start>(
  session: Session,
  spoken: AsyncIterator<Spoken<Start>>,
  options: { readonly input: boolean },
  call: ApiCall,
): AsyncGenerator<SessionAnswer> {
  let failure: unknown;
  const close = (): void => void session.close().catch(() => {});
  const listening = listen(session, spoken, options).catch((thrown: unknown) => {
    failure ??= thrown;
    close();
  });
  call.signal.addEventListener("abort", close, { once: true });
  // A client that goes away takes the wait for the exit code with it, and then nobody asks for it.
  session.exited.catch(() => {});
  try {
    for await (const { stream, bytes } of session.output) {
      yield { message: { case: "output", value: { stream: { case: stream, value: bytes } } } };
    }
    const code = await session.exited;
    if (failure !== undefined) throw failure;
    yield { message: { case: "exit", value: code } };
  } finally {
    call.signal.removeEventListener("abort", close);
    // The client may still be typing. Its next word finds nobody, which is no failure any more.
    void listening;
    await session.close();
  }
}

async function listen<Start>(
  session: Session,
  spoken: AsyncIterator<Spoken<Start>>,
  { input }: { readonly input: boolean },
): Promise<void> {
  if (!input) session.endInput();
  for (;;) {
    const { done, value } = await spoken.next();
    if (done === true) break;
    if (value.message.case !== "input") throw new Fault("invalid", "after start there is nothing but input");
    await hear(session, value.message.value, input);
  }
  if (input) session.endInput();
}

async function hear(session: Session, { kind }: Input, input: boolean): Promise<void> {
  switch (kind.case) {
    case "data":
      if (!input) throw new Fault("invalid", "this session takes no input", { hint: "start it as interactive" });
      return await delivered(session.write(kind.value));
    case "end":
      return session.endInput();
    case "resize":
      return await delivered(session.resize(kind.value.columns, kind.value.rows));
    case "signal":
      return await delivered(session.signal(kind.value));
    case undefined:
      throw new Fault("invalid", "an input message says nothing");
  }
}

/**
 * Waits until the program has what is sent to it. One that has ended, or takes no more input, as `head` does, fails nothing:
 * how it ends is the answer. What the client said wrong, or too much of, is not: the program would go on without it.
 */
export async function delivered(sending: Promise<void>): Promise<void> {
  try {
    await sending;
  } catch (thrown) {
    if (isFault(thrown, "invalid") || isFault(thrown, "exhausted")) throw thrown;
  }
}

async function drain(session: Session): Promise<void> {
  try {
    for await (const _ of session.output);
  } catch {
    // Nobody asked to hear of it.
  }
}

function execSpec({ command, env, user, workdir, terminal, interactive }: ExecStart): ExecSpec {
  if (command.length === 0) throw new Fault("invalid", "the command is empty", { hint: "name the program to run" });
  return {
    argv: command,
    env,
    stdin: interactive,
    ...(user !== "" && { user }),
    ...(workdir !== "" && { workdir }),
    ...(terminal !== undefined && { terminal: { columns: terminal.columns, rows: terminal.rows } }),
  };
}
