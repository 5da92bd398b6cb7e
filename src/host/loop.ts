import { closeSync, openSync, readFileSync, readdirSync, realpathSync } from "node:fs";
import { Fault } from "../base/fault.ts";
import { errnoOf, hostFault } from "./errno.ts";
import { O_CLOEXEC, O_RDONLY, O_RDWR, ioctl } from "./kernel.ts";

/** Loop devices: a file as a block device, for file systems that the kernel mounts from a device only. */

const loopGetFree = 0x4c82;
const loopConfigure = 0x4c0a;
const loopSetCapacity = 0x4c07;
const flagReadOnly = 1;
const flagAutoclear = 4;
const flagDirectIo = 16;

/**
 * Calls `use` with a loop device (`/dev/loop7`) that is backed by `file`, and returns what it returns.
 *
 * A device that is backed by the file already is used again: two devices of one file would be two caches of one file
 * system, which destroys it, and a detached mount lives on as long as its last user. A new device clears itself when
 * nothing holds it any more: mounted in `use`, it lives as long as the mount; after a failure, and after a crash of ours
 * at any moment, the kernel takes it back. Linux 5.8.
 */
export async function withLoopDevice<Result>(
  file: string,
  options: { readonly readOnly: boolean },
  use: (device: string) => Result | Promise<Result>,
): Promise<Result> {
  const attempted = `attach ${file} to a loop device`;
  let loop: { readonly device: string; readonly fd: number } | undefined;
  try {
    loop = openLoop(file, options.readOnly);
    return await use(loop.device);
  } catch (error) {
    throw hostFault(error, attempted);
  } finally {
    if (loop !== undefined) closeSync(loop.fd);
  }
}

/** Makes the device as large as its file has become. */
export function refreshCapacity(device: string): void {
  const fd = openSync(device, O_RDWR | O_CLOEXEC);
  try {
    ioctl(fd, loopSetCapacity, null);
  } finally {
    closeSync(fd);
  }
}

/** The device that is backed by `file`, by its name today; undefined when there is none. */
export function findLoopDevice(file: string): string | undefined {
  const path = realpathSync(file);
  return readdirSync("/sys/block")
    .filter((name) => name.startsWith("loop"))
    .find((name) => backingFile(name) === path)
    ?.replace(/^/, "/dev/");
}

function backingFile(name: string): string | undefined {
  try {
    return readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8").replace(/\n$/, "");
  } catch (error) {
    // The folder is there only while the device has a file; ENXIO when it loses it under our eyes.
    if (["ENOENT", "ENXIO"].includes(errnoOf(error) ?? "")) return undefined;
    throw hostFault(error, `read the file behind ${name}`);
  }
}

function openLoop(file: string, readOnly: boolean): { readonly device: string; readonly fd: number } {
  const access = readOnly ? O_RDONLY : O_RDWR;
  const backing = openSync(file, access | O_CLOEXEC);
  try {
    // Someone else may take the free device first, or the one found may clear itself; each try looks anew.
    for (let tries = 0; tries < 64; tries += 1) {
      const found = findLoopDevice(file);
      const device = found ?? freeDevice();
      const fd = openSync(device, access | O_CLOEXEC);
      const holds =
        found === undefined ? configure(fd, backing, readOnly) : backingFile(found.slice(5)) === realpathSync(file);
      if (holds) return { device, fd };
      closeSync(fd);
    }
  } finally {
    closeSync(backing);
  }
  throw new Fault("exhausted", "every free loop device was taken by another program");
}

function freeDevice(): string {
  const control = openSync("/dev/loop-control", O_RDWR | O_CLOEXEC);
  try {
    return `/dev/loop${ioctl(control, loopGetFree, null)}`;
  } finally {
    closeSync(control);
  }
}

/** False when another program was faster. */
function configure(loop: number, backing: number, readOnly: boolean): boolean {
  // Direct I/O keeps the content from being cached twice; not every file system below can.
  for (const direct of [flagDirectIo, 0]) {
    try {
      ioctl(loop, loopConfigure, loopConfig(backing, flagAutoclear | direct | (readOnly ? flagReadOnly : 0)));
      return true;
    } catch (error) {
      if (errnoOf(error) === "EBUSY") return false;
      if (direct === 0 || errnoOf(error) !== "EINVAL") throw error;
    }
  }
  return false;
}

/** `struct loop_config`: the backing descriptor, the block size (0: the kernel's choice), `struct loop_info64`, reserved. */
function loopConfig(backing: number, flags: number): Uint8Array {
  const config = Buffer.alloc(304);
  new Int32Array(config.buffer, config.byteOffset, 1)[0] = backing;
  const flagsOffset = 8 + 52;
  new Uint32Array(config.buffer, config.byteOffset + flagsOffset, 1)[0] = flags;
  return config;
}
