import { join } from "node:path";
import type { Home } from "../../../base/home.ts";
import type { InstanceId } from "../../../base/id.ts";
import { type InstancePaths, type Layout, layoutOf } from "../../monitor/layout.ts";

/** Where machines keep their things: those of every monitored engine, and a few of their own. */
export interface MachineLayout extends Layout {
  /** What outlives runs and reboots, one directory for each instance. */
  readonly keptDir: string;
  of(id: InstanceId): MachinePaths;
  /** The TPM of a machine is a process of its own, with a name that nobody takes for an instance. */
  ofTpm(id: InstanceId): { readonly id: InstanceId; readonly paths: InstancePaths };
}

export interface MachinePaths extends InstancePaths {
  /** QEMU's own: its sockets, and pictures of the screen. */
  readonly ioDir: string;
  readonly qmpSocket: string;
  readonly agentSocket: string;
  readonly vncSocket: string;
  readonly screenFile: string;
  /** swtpm's socket is in it, and QEMU sees it, too. */
  readonly tpmSocketDir: string;
  /** Of the current run, and of the last one. */
  readonly shapeFile: string;
  /** There while a machine stands at its first instruction and is about to be told to go on. */
  readonly pausedFile: string;
  /** There while the guest's file systems are frozen, or may be. */
  readonly frozenFile: string;
  /** The cloud-init seed. It holds secrets, so it is in memory. */
  readonly seedFile: string;
  readonly keptDir: string;
  /** The variables of UEFI firmware, in qcow2 so that snapshots hold them. */
  readonly nvramFile: string;
  readonly tpmStateDir: string;
  readonly snapshotsFile: string;
  readonly revertFile: string;
  readonly suspendedFile: string;
}

export function machineLayout(home: Home): MachineLayout {
  const layout = layoutOf(home, "machine");
  const keptDir = join(home.libDir, "machine-state");
  return {
    ...layout,
    keptDir,
    of(id) {
      const paths = layout.of(id);
      const ioDir = join(paths.dir, "io");
      const kept = join(keptDir, id);
      return {
        ...paths,
        ioDir,
        qmpSocket: join(ioDir, "qmp.sock"),
        agentSocket: join(ioDir, "agent.sock"),
        vncSocket: join(ioDir, "vnc.sock"),
        screenFile: join(ioDir, "screen.png"),
        tpmSocketDir: join(paths.dir, "tpm"),
        shapeFile: join(paths.dir, "shape.json"),
        pausedFile: join(paths.dir, "paused"),
        frozenFile: join(paths.dir, "frozen"),
        seedFile: join(paths.dir, "seed.img"),
        keptDir: kept,
        nvramFile: join(kept, "nvram.qcow2"),
        tpmStateDir: join(kept, "tpm"),
        snapshotsFile: join(kept, "snapshots.json"),
        revertFile: join(kept, "revert.json"),
        suspendedFile: join(kept, "suspended.json"),
      };
    },
    ofTpm(id) {
      const tpmId = `${id}.tpm` as InstanceId;
      return { id: tpmId, paths: layout.of(tpmId) };
    },
  };
}
