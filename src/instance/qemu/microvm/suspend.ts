import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { createReadStream, createWriteStream, lchownSync, mkdirSync, rmSync } from "node:fs";
import { createServer, Socket } from "node:net";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { backgroundCall, type Call, orCancelled, withDeadline } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { listenUnixStream } from "../../../host/unix-listen.ts";
import { connectUnixStream } from "../../../host/unix-stream.ts";
import { readRecord, writeRecord } from "../../monitor/record.ts";
import type { GuestSize } from "../guest/size.ts";
import type { Qmp } from "../qmp.ts";
import { type MachinePaths, socketDirInside } from "./place.ts";

/**
 * Memory of guests that were put to sleep. It holds secrets, so it lies on disk encrypted, and its key in memory alone: a
 * guest sleeps through restarts of the daemon, and after a reboot of the host it boots instead.
 */
export interface Suspended {
  readonly startedMs: number;
  readonly size: GuestSize;
  /** In base64. */
  readonly key: string;
  readonly vector: string;
  readonly tag: string;
}

export interface SuspendPlace {
  /** On a file system that is memory. */
  readonly recordFile: string;
  readonly memoryFile: string;
}

const cipher = "aes-256-gcm";
const socketName = "memory";
/** QEMU's own is that of a network. */
const bytesPerSecond = 2 ** 34;
/** Longer than this only a QEMU takes that is stuck. */
const answerTimeoutMs = 20_000;

export function readSuspended({ recordFile }: SuspendPlace): Suspended | undefined {
  return readRecord(recordFile) as Suspended | undefined;
}

/** Idempotent. The key first: without it the rest is noise. */
export function forgetSuspended({ recordFile, memoryFile }: SuspendPlace): void {
  rmSync(recordFile, { force: true });
  rmSync(memoryFile, { force: true });
}

/** Writes memory and devices of a machine that stands still from now on; when this returns it is asleep. */
export async function saveMemory(
  what: string,
  qmp: Qmp,
  machine: MachinePaths,
  uid: number,
  place: SuspendPlace,
  facts: Pick<Suspended, "startedMs" | "size">,
  call: Call,
): Promise<void> {
  const key = randomBytes(32);
  const vector = randomBytes(12);
  const encrypt = createCipheriv(cipher, key, vector);
  const path = join(machine.socketDir, socketName);
  rmSync(path, { force: true });
  mkdirSync(dirname(place.memoryFile), { recursive: true, mode: 0o700 });
  const server = createServer();
  try {
    const come = new Promise<Socket>((resolve) => server.once("connection", resolve));
    server.listen({ fd: listenUnixStream(path) });
    // QEMU runs, and the directory is its own: what was put there instead of the socket is not followed.
    lchownSync(path, uid, uid);
    await qmp.execute("stop", {}, call);
    await qmp.execute("migrate-set-parameters", { "max-bandwidth": bytesPerSecond }, call);
    await qmp.execute("migrate", { uri: `unix:${socketDirInside}/${socketName}` }, call);
    const socket = await soon(come, what, qmp, call);
    const file = createWriteStream(place.memoryFile, { mode: 0o600, flush: true });
    await pipeline(socket, encrypt, file, { signal: call.signal });
    await settled(what, qmp, call);
    const texts = { key: key.toString("base64"), vector: vector.toString("base64") };
    writeRecord(place.recordFile, {
      ...facts,
      ...texts,
      tag: encrypt.getAuthTag().toString("base64"),
    } satisfies Suspended);
  } catch (error) {
    forgetSuspended(place);
    // It was not to end because it could not be saved; nor to stand still, when whoever asked has given up.
    using bounded = withDeadline(backgroundCall(call.clock), answerTimeoutMs, what);
    await qmp.execute("migrate_cancel", {}, bounded).catch(() => {});
    await qmp.execute("cont", {}, bounded).catch(() => {});
    throw Fault.from(error, what);
  } finally {
    server.close();
    rmSync(path, { force: true });
  }
}

/** QEMU connects at once, or never. */
async function soon<Value>(work: Promise<Value>, what: string, qmp: Qmp, call: Call): Promise<Value> {
  const living = { ...call, signal: AbortSignal.any([call.signal, qmp.over]) };
  using bounded = withDeadline(living, answerTimeoutMs, what);
  return await orCancelled(work, bounded);
}

/** Brings back what was saved into a machine that waits for it, and lets it go on. */
export async function loadMemory(
  what: string,
  qmp: Qmp,
  machine: MachinePaths,
  place: SuspendPlace,
  suspended: Suspended,
  call: Call,
): Promise<void> {
  const path = join(machine.socketDir, socketName);
  await qmp.execute("migrate-incoming", { uri: `unix:${socketDirInside}/${socketName}` }, call);
  const decrypt = createDecipheriv(
    cipher,
    Buffer.from(suspended.key, "base64"),
    Buffer.from(suspended.vector, "base64"),
  );
  decrypt.setAuthTag(Buffer.from(suspended.tag, "base64"));
  const socket = new Socket({ fd: connectUnixStream(path), readable: true, writable: true });
  // Fails at the end when the file was changed: before the guest goes on.
  await pipeline(createReadStream(place.memoryFile), decrypt, socket, { signal: call.signal });
  await settled(what, qmp, call);
  await qmp.execute("cont", {}, call);
  rmSync(path, { force: true });
}

async function settled(what: string, qmp: Qmp, call: Call): Promise<void> {
  for (;;) {
    const { status } = (await qmp.execute("query-migrate", {}, call)) as { readonly status?: string };
    if (status === "completed") return;
    if (status === "failed" || status === "cancelled") throw new Fault("failed", `${what}: QEMU cannot`);
    await call.clock.sleep(5, call.signal);
  }
}
