import { existsSync, statfsSync } from "node:fs";
import { mkdir, open, truncate } from "node:fs/promises";
import { join } from "node:path";
import { type Call, backgroundCall } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { hostFault } from "../../host/errno.ts";
import { MS_NODEV, MS_NOATIME, mount } from "../../host/kernel.ts";
import { findLoopDevice, refreshCapacity, withLoopDevice } from "../../host/loop.ts";
import { unmount } from "../../host/mount.ts";
import { findProgram, run } from "../../host/process.ts";

/**
 * A quota that every host has: an ext4 file system of the wanted size in a sparse file. It takes from the disk what is
 * written to it and gives back what is deleted.
 *
 * The content is in `data/` within, as ext4 keeps a `lost+found` of its own in its root, and databases refuse a
 * directory that is not empty.
 */

export const dataInDisk = "data";

/** Whether this host can make such disks; otherwise why not. */
export function diskObstacle(): string | undefined {
  if (!existsSync("/dev/loop-control")) return "this host has no loop devices";
  const missing = ["mkfs.ext4", "e2fsck", "resize2fs"].find((program) => findProgram(program) === undefined);
  return missing === undefined ? undefined : `${missing} is not installed`;
}

/** Makes the file at `path` and an empty file system in it. */
export async function formatDisk(path: string, sizeBytes: number, call: Call): Promise<void> {
  const attempted = `make a disk of ${sizeBytes} bytes at ${path}`;
  try {
    const file = await open(path, "wx", 0o600);
    try {
      await file.truncate(sizeBytes);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw hostFault(error, attempted);
  }
  // No blocks are kept back for root. Discarding a sparse file costs nothing and lets mkfs mark all tables as zeroed;
  // otherwise the kernel would write them all, and the file would not stay sparse.
  const options = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,discard"];
  await spaceFaults(run(["mkfs.ext4", ...options, path], { attempted, endsWithUs: true }, call));
}

/** Mounts it at `target`; what is deleted in it is given back to the host at once. */
export async function mountDisk(path: string, target: string): Promise<void> {
  await withLoopDevice(path, { readOnly: false }, (device) => {
    mount(device, target, "ext4", MS_NODEV | MS_NOATIME, "discard");
  });
  try {
    await mkdir(join(target, dataInDisk), { recursive: true });
  } catch (error) {
    throw hostFault(error, `use the disk ${path}`);
  }
}

/**
 * Grows the file and the file system in it, mounted at `target`, while it is in use. Repeated after an interruption it
 * completes. Where we lack the capability for that (CAP_SYS_RESOURCE), it is unmounted meanwhile, if nobody uses it.
 */
export async function growDisk(path: string, target: string, sizeBytes: number, call: Call): Promise<void> {
  const attempted = `grow the disk ${path} to ${sizeBytes} bytes`;
  try {
    await truncate(path, sizeBytes);
    const device = findLoopDevice(path);
    if (device === undefined) throw new Fault("precondition", `${attempted}: it is not mounted`);
    refreshCapacity(device);
    const { code, stderr } = await run(["resize2fs", device], { attempted, okCodes: [0, 1], endsWithUs: true }, call);
    if (code === 0) return;
    if (!stderr.includes("Permission denied")) throw new Fault("failed", `${attempted}: ${stderr.trim()}`);
    await growUnmounted(path, target, attempted, call);
  } catch (error) {
    throw hostFault(error, attempted);
  }
}

async function growUnmounted(path: string, target: string, attempted: string, call: Call): Promise<void> {
  await unmount(target, { detach: true });
  try {
    if (!(await isReleased(path, call))) {
      throw new Fault("precondition", `${attempted}: it is in use`, {
        hint: "stop the instances that use it, or give the daemon CAP_SYS_RESOURCE",
      });
    }
    await withLoopDevice(path, { readOnly: false }, async (device) => {
      // An interrupted resize2fs leaves a broken file system, so neither our end nor a cancelled call may stop it. It
      // holds the device exclusively: until it is done, a successor of ours cannot mount it.
      const options = { attempted, timeoutMs: 24 * 3600_000 };
      // It wants a check first. Code 1: something was corrected.
      await run(["e2fsck", "-f", "-p", device], { ...options, okCodes: [0, 1] }, backgroundCall(call.clock));
      await run(["resize2fs", device], options, backgroundCall(call.clock));
    });
  } finally {
    await mountDisk(path, target);
  }
}

/** The kernel may take a moment to clear the device after its last user. */
async function isReleased(path: string, call: Call): Promise<boolean> {
  for (let tries = 0; tries < 10; tries += 1) {
    if (findLoopDevice(path) === undefined) return true;
    await call.clock.sleep(20, call.signal);
  }
  return false;
}

export function usedBytesOf(target: string): number {
  const facts = statfsSync(target);
  return (facts.blocks - facts.bfree) * facts.bsize;
}

/** A program that met a full disk says so in words only. */
export async function spaceFaults<Result>(running: Promise<Result>): Promise<Result> {
  try {
    return await running;
  } catch (error) {
    const message = error instanceof Error ? error.message : "";
    if (!/No space left on device|Disk quota exceeded|short write/.test(message)) throw error;
    throw new Fault("exhausted", message, { cause: error });
  }
}
