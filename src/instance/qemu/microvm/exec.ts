import { constants } from "node:os";
import { PassThrough } from "node:stream";
import type { ClientChannel } from "ssh2";
import { backgroundCall, type Call, type Clock, orCancelled, withDeadline } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { hostFault } from "../../../host/errno.ts";
import type { ExecSpec, ProgramLaunch, Session } from "../../contract.ts";
import { exitOf, leaveToGuest } from "../../monitor/guest-channel.ts";
import { merged } from "../../monitor/merged.ts";
import { signalNumber } from "../../monitor/signal.ts";
import { readRecord, writeRecord } from "../../monitor/record.ts";
import { makeHostKey } from "../guest/host-key.ts";
import { execCommand } from "../guest/launch.ts";
import { ask, guestFault } from "./control.ts";
import { type KeyRecord, keyVersion, type MachinePaths } from "./place.ts";
import { beginTimeoutMs, type ShellCommand, type ShellPlace, type Shells } from "./shell.ts";

/** Runs a program in the guest, beside the main one. `unavailable` when the guest does not answer. */
export async function execInGuest(
  place: ShellPlace,
  machine: MachinePaths,
  launch: ProgramLaunch,
  spec: ExecSpec,
  shells: Shells,
  call: Call,
): Promise<Session> {
  const { terminal } = spec;
  const beginning = begin(place, execCommand(launch, spec), terminal, shells, call);
  const end = (program: GuestProgram): Promise<void> => endProgram(program, machine, place.what, call.clock);
  let program: GuestProgram;
  try {
    program = await orCancelled(beginning, call);
  } catch (error) {
    // Its caller has given up: what begins all the same ends at once.
    void beginning.then(end, () => {});
    throw error;
  }
  const { channel, stdout, pid, exited } = program;
  const onAbort = (): void => void end(program);
  call.signal.addEventListener("abort", onAbort, { once: true });
  void exited.finally(() => call.signal.removeEventListener("abort", onAbort));
  if (!spec.stdin && terminal === undefined) channel.end();
  return {
    output: merged(stdout, channel.stderr),
    write: (bytes) =>
      new Promise((resolve, reject) => {
        channel.write(bytes, (error) => (error ? reject(hostFault(error, "write to exec")) : resolve()));
      }),
    // A terminal has no end of input; its line discipline makes one of this character.
    endInput: () => void (terminal === undefined ? channel.end() : channel.write(Uint8Array.of(0x04))),
    async resize(columns, rows) {
      if (terminal === undefined) throw new Fault("precondition", "resize exec: it has no terminal");
      channel.setWindow(rows, columns, 0, 0);
    },
    async signal(signal) {
      // One that has ended is not told so by an error.
      await ask(machine.controlSocket, place.what, `kill ${signalNumber(signal)} ${pid}`, call);
    },
    exited,
    close: () => end(program),
  };
}

/** A program that has begun. */
interface GuestProgram extends ShellCommand {
  /** What it wrote, without the first line, which is ours. */
  readonly stdout: PassThrough;
  /** In the guest. */
  readonly pid: number;
  readonly exited: Promise<number>;
  isOver(): boolean;
}

/** Its first line of output says whether it began, and as which process. */
async function begin(
  place: ShellPlace,
  script: string,
  terminal: ExecSpec["terminal"],
  shells: Shells,
  call: Call,
): Promise<GuestProgram> {
  const pty = terminal === undefined ? {} : { pty: { rows: terminal.rows, cols: terminal.columns, term: "xterm" } };
  const command = await shells.exec(place, script, pty, call);
  const { channel } = command;
  leaveToGuest(channel);
  const exited = exitOf(channel);
  let over = false;
  void exited.then(() => (over = true));
  const stdout = new PassThrough();
  using bounded = withDeadline(backgroundCall(call.clock), beginTimeoutMs, place.what);
  let first: string;
  try {
    first = await orCancelled(firstLine(channel, stdout), bounded);
    // Not closed by us: ssh2 gives the channel's number to the next one before it hears that the guest closed it, too.
    if (!first.startsWith("started ")) await orCancelled(exited, bounded);
  } catch (error) {
    command.hangUp();
    throw new Fault("unavailable", `${place.what}: the guest does not answer`, { cause: error });
  }
  if (first.startsWith("fault ")) throw guestFault(place.what, first);
  if (!first.startsWith("started ")) throw new Fault("unavailable", `${place.what}: the guest ended`);
  return { ...command, stdout, pid: Number(first.slice("started ".length)), exited, isOver: () => over };
}

/** Never throws. Whoever began it may have given up; a guest that does not end it is not waited for any longer. */
async function endProgram(
  program: GuestProgram,
  { controlSocket }: MachinePaths,
  what: string,
  clock: Clock,
): Promise<void> {
  if (program.isOver()) return;
  const kill = `kill ${constants.signals.SIGKILL} ${program.pid}`;
  await ask(controlSocket, what, kill, backgroundCall(clock)).catch(() => program.hangUp());
}

/**
 * The guest's dropbear. It is begun when it is first needed, with a key that is made then; one whose key nobody knows any
 * more is begun anew. So what an earlier version of us wrote need not be understood.
 */
export function shellPlace(what: string, machine: MachinePaths): ShellPlace {
  let key = readRecord(machine.keyFile) as KeyRecord | undefined;
  if (key?.version !== keyVersion) {
    const { publicBlob, dropbear } = makeHostKey();
    key = {
      version: keyVersion,
      publicBlob: publicBlob.toString("base64"),
      dropbear: dropbear.toString("base64"),
    };
    writeRecord(machine.keyFile, key);
  }
  const payload = Buffer.from(key.dropbear, "base64");
  return {
    what,
    socketPath: machine.shellSocket,
    hostKey: Buffer.from(key.publicBlob, "base64"),
    async begin(call) {
      const [answer] = await ask(machine.controlSocket, what, `shell ${payload.length}`, call, { payload });
      if (answer !== "ok") throw new Fault("unavailable", `${what}: the guest cannot`);
    },
  };
}

const maxFirstLine = 4096;

/** Reads up to the first newline; what follows goes to `rest`. Empty when it ended before. */
function firstLine(channel: ClientChannel, rest: PassThrough): Promise<string> {
  return new Promise((resolve) => {
    let known = Buffer.alloc(0);
    const onData = (bytes: Buffer): void => {
      known = Buffer.concat([known, bytes]);
      const end = known.indexOf(0x0a);
      if (end === -1 && known.length < maxFirstLine) return;
      channel.off("data", onData);
      channel.off("end", onEnd);
      channel.pause();
      if (end + 1 < known.length) rest.write(known.subarray(end + 1));
      channel.pipe(rest);
      resolve(known.toString("utf8", 0, Math.max(end, 0)).trimEnd());
    };
    const onEnd = (): void => {
      rest.end();
      resolve("");
    };
    channel.on("data", onData as (...values: never[]) => void);
    channel.on("end", onEnd);
  });
}
