import { closeSync, constants, existsSync, openSync, unlinkSync, writeSync } from "node:fs";
import type { Call } from "../../base/call.ts";
import { hostFault } from "../../host/errno.ts";
import { run } from "../../host/process.ts";
import type { InstancePaths, Layout } from "./layout.ts";

/** What differs between the two OCI runtimes that this engine drives. */
export interface Runtime {
  readonly name: RuntimeName;
  /** Absolute, as conmon does not search for it. */
  readonly program: string;
  /** What it needs in its environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Arguments before the command: where the runtime keeps its records. */
  globalArgs(layout: Layout): readonly string[];
  /** Lets a created container's program begin. */
  release(id: string, layout: Layout, paths: InstancePaths, call: Call): Promise<void>;
}

export type RuntimeName = "crun" | "runc";

export const runtimes: Readonly<Record<RuntimeName, Runtime>> = {
  crun: {
    name: "crun",
    program: "/usr/bin/crun",
    globalArgs: (layout) => ["--root", layout.stateDir],
    /**
     * What `crun start` does for a container without hooks: one byte into the fifo on which its init waits, and the
     * fifo's name removed, by which crun tells running from created. Saves a process of 5 ms on the way to running.
     */
    async release(id, _layout, paths) {
      try {
        // Never blocks: an init that waits has it open, and one that died is ENXIO.
        const fd = openSync(paths.startFifo, constants.O_WRONLY | constants.O_NONBLOCK);
        try {
          writeSync(fd, "0");
        } finally {
          closeSync(fd);
        }
        unlinkSync(paths.startFifo);
      } catch (error) {
        throw hostFault(error, `start ${id}: tell its init to go on`);
      }
    },
  },
  runc: {
    name: "runc",
    program: "/usr/sbin/runc",
    globalArgs: (layout) => ["--root", layout.stateDir],
    async release(id, layout, _paths, call) {
      const argv = [this.program, ...this.globalArgs(layout), "start", id];
      await run(argv, { attempted: `start ${id}`, timeoutMs: 20_000 }, call);
    },
  },
};

/**
 * Whether the init still waits to be released: both runtimes keep the fifo's name until then. It is only looked at, as
 * opening it is what releases a container of runc.
 */
export function awaitsRelease(paths: InstancePaths): boolean {
  return existsSync(paths.startFifo);
}
