import { closeSync, openSync } from "node:fs";
import { Fault } from "../base/fault.ts";
import { errnoOf, hostFault } from "./errno.ts";
import { O_CLOEXEC, O_RDONLY, O_RDWR, ioctl } from "./kernel.ts";

/** Loop devices: a file as a block device, for file systems that the kernel mounts from a device only. */

const loopGetFree = 0x4c82;
const loopConfigure = 0x4c0a;
const flagReadOnly = 1;
const flagAutoclear = 4;
const flagDirectIo = 16;

/**
 * Calls `use` with a loop device (`/dev/loop7`) that is backed by `file`, and returns what it returns.
 *
 * The device is set to clear itself when nothing holds it any more: mounted in `use`, it lives as long as the mount;
 * after a failure, and after a crash of ours at any moment, the kernel takes it back. Linux 5.8.
 */
export function withLoopDevice<Result>(
  file: string,
  options: { readonly readOnly: boolean },
  use: (device: string) => Result,
): Result {
  const attempted = `attach ${file} to a loop device`;
  const access = options.readOnly ? O_RDONLY : O_RDWR;
  let backing: number | undefined;
  try {
    backing = openSync(file, access | O_CLOEXEC);
    // Someone else may take the free device first; each try asks anew.
    for (let tries = 0; tries < 64; tries += 1) {
      const device = freeDevice();
      const loop = openSync(device, access | O_CLOEXEC);
      try {
        if (configure(loop, backing, options.readOnly)) return use(device);
      } finally {
        closeSync(loop);
      }
    }
    throw new Fault("exhausted", `${attempted}: every free device was taken by another program`);
  } catch (error) {
    throw hostFault(error, attempted);
  } finally {
    if (backing !== undefined) closeSync(backing);
  }
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
