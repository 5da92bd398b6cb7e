import { closeSync, openSync, readFileSync } from "node:fs";
import { dlopen, getInt32 } from "node:ffi";
import { Fault } from "../base/fault.ts";
import { errnoFault, errnoName, errnoOf, hostFault } from "./errno.ts";

/**
 * Tap devices: links whose other end is a file descriptor of a virtual machine's process. Netlink cannot make them. Here
 * they are persistent, so that they are there before the machine starts and whatever becomes of it; they are removed
 * like any link.
 */

const tunSetInterface = 0x400454ca;
const tunSetPersist = 0x400454cb;
const tunSetOwner = 0x400454cc;
const iffTap = 0x2;
const iffNoPacketInfo = 0x1000;
const iffVnetHeader = 0x4000;
const nameBytes = 16;

/** `ioctl` twice, as its argument is a structure in one request and a plain number in the others. */
const { functions: structural } = dlopen(null, {
  __errno_location: { arguments: [], return: "pointer" },
  ioctl: { arguments: ["i32", "u64", "buffer"], return: "i32" },
});
const { functions: numeric } = dlopen(null, {
  ioctl: { arguments: ["i32", "u64", "u64"], return: "i32" },
});

/**
 * Makes the tap `name`, which `ownerUid` may open; or, where it is there already, gives it to that owner. One whose other
 * end a machine has is left as it is: there is one such end, and without it the owner cannot be changed.
 */
export function createTap(name: string, ownerUid: number): void {
  const attempted = `create tap ${name}`;
  let fd: number;
  try {
    fd = join(name, attempted);
  } catch (error) {
    if (errnoOf(error) === "EBUSY") return;
    throw error;
  }
  try {
    checked(numeric.ioctl(fd, BigInt(tunSetOwner), BigInt(ownerUid)), attempted);
    checked(numeric.ioctl(fd, BigInt(tunSetPersist), 1n), attempted);
  } finally {
    closeSync(fd);
  }
}

/**
 * The other end of the tap `name`, for a machine's process to have; close it when that has it. `not-found` when there is no
 * such link, as asking the kernel for it would make one.
 */
export function openTap(name: string): number {
  const attempted = `open tap ${name}`;
  const known = readFileSync("/proc/self/net/dev", "utf8").split("\n");
  if (!known.some((line) => line.trimStart().startsWith(`${name}:`))) {
    throw new Fault("not-found", `${attempted}: there is no such link`);
  }
  return join(name, attempted);
}

/** A tap that is there only as long as somebody has it open, and belongs to no bridge. */
export function openPassingTap(name: string): number {
  return join(name, `create tap ${name}`);
}

/** `name` is made when it is not there. */
function join(name: string, attempted: string): number {
  const request = Buffer.alloc(40);
  request.write(name, 0, nameBytes - 1, "latin1");
  request.writeUInt16LE(iffTap | iffNoPacketInfo | iffVnetHeader, nameBytes);
  let fd: number;
  try {
    fd = openSync("/dev/net/tun", "r+");
  } catch (error) {
    throw hostFault(error, attempted);
  }
  try {
    checked(structural.ioctl(fd, BigInt(tunSetInterface), request), attempted);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function checked(result: number, attempted: string): void {
  if (result === -1) throw errnoFault(errnoName(getInt32(errnoAddress)), attempted);
}

const errnoAddress = structural.__errno_location();
