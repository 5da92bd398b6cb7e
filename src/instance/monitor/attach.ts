import { closeSync, constants, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { InstanceId } from "../../base/id.ts";
import { hostFault } from "../../host/errno.ts";
import { connectSeqpacket } from "../../host/seqpacket.ts";
import type { Session } from "../contract.ts";
import type { InstancePaths } from "./layout.ts";

/** The first byte of a packet from conmon says which pipe it came from; a terminal is the first of them. */
const stdoutPipe = 2;
const stderrPipe = 3;

/** conmon reads no more than this at once. */
const packetBytes = 8 * 1024;

/** Joins the main process's terminal or stdio by conmon's socket. What `exited` and `signal` do is the engine's. */
export async function attachTo(
  id: InstanceId,
  paths: InstancePaths,
  main: { readonly exited: Promise<number>; signal(signal: string): Promise<void> },
  call: Call,
): Promise<Session> {
  const connection = await connectSeqpacket(join(paths.socketLink, "attach"), call);
  return {
    output: pieces(connection.packets),
    async write(bytes) {
      for (let from = 0; from < bytes.length; from += packetBytes) {
        await connection.send(bytes.subarray(from, from + packetBytes));
      }
    },
    endInput: () => connection.end(),
    resize: async (columns, rows) => resizeTerminal(id, paths, columns, rows),
    signal: (signal) => main.signal(signal),
    exited: main.exited,
    close: async () => connection.close(),
  };
}

async function* pieces(
  packets: AsyncIterable<Uint8Array>,
): AsyncGenerator<{ readonly stream: "stdout" | "stderr"; readonly bytes: Uint8Array }> {
  for await (const packet of packets) {
    const [pipe] = packet;
    if (pipe !== stdoutPipe && pipe !== stderrPipe) continue;
    yield { stream: pipe === stderrPipe ? "stderr" : "stdout", bytes: packet.subarray(1) };
  }
}

function resizeTerminal(id: InstanceId, paths: InstancePaths, columns: number, rows: number): void {
  try {
    // Never blocks: without conmon at the other end it is ENXIO.
    const fd = openSync(paths.controlFifo, constants.O_WRONLY | constants.O_NONBLOCK);
    try {
      writeSync(fd, `${rows} ${columns}\n`);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new Fault("precondition", `resize the terminal of ${id}: it is not running`, {
      cause: hostFault(error, "write the size"),
    });
  }
}
