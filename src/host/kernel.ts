import { constants, closeSync, readSync } from "node:fs";
import { type ArgumentType, dlopen, getInt32 } from "node:ffi";
import { errnoFault, errnoName } from "./errno.ts";

/**
 * The Linux calls that Node does not have, by `node:ffi`, in one typed file.
 *
 * They run on the calling thread and return at once or block it, so only calls that do not wait for a disk or a peer
 * belong on the main thread. Every one throws a Fault that says what was attempted, with the errno's name in
 * `detail.errno`. Strings with a NUL byte are refused by `node:ffi` itself. There is no `fork` here and must never be:
 * the child of a threaded V8 process cannot run JavaScript.
 *
 * Calls younger than glibc 2.31 go through `syscall(2)`; those from 424 on have the same number on every architecture.
 */

/** For the directory argument of the `*at` calls: the working directory (and unused when the path is absolute). */
export const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
export const AT_RECURSIVE = 0x8000;
const AT_SYMLINK_NOFOLLOW = 0x100;

export const O_PATH = 0o10000000;
export const O_CLOEXEC = 0o2000000;

export const RESOLVE_NO_MAGICLINKS = 0x02;
export const RESOLVE_NO_SYMLINKS = 0x04;
export const RESOLVE_IN_ROOT = 0x10;

export const MS_RDONLY = 0x1;
export const MS_NOSUID = 0x2;
export const MS_NODEV = 0x4;
export const MS_NOATIME = 0x400;
export const MS_BIND = 0x1000;

export const MNT_DETACH = 0x2;
export const UMOUNT_NOFOLLOW = 0x8;

export const CLONE_NEWNET = 0x40000000;

export const OPEN_TREE_CLONE = 0x1;
const MOVE_MOUNT_F_EMPTY_PATH = 0x4;
export const MOUNT_ATTR_RDONLY = 0x1;
export const MOUNT_ATTR_NODEV = 0x4;

export const RLIMIT_NOFILE = 7;

const fsopenCloexec = 0x1;
const fsconfigSetFlag = 0;
const fsconfigSetString = 1;
const fsconfigCreate = 6;
const fsmountCloexec = 0x1;

const number = {
  pidfdSendSignal: 424n,
  openTree: 428n,
  moveMount: 429n,
  fsopen: 430n,
  fsconfig: 431n,
  fsmount: 432n,
  pidfdOpen: 434n,
  openat2: 437n,
  mountSetattr: 442n,
} as const;

const { functions: libc } = dlopen(null, {
  __errno_location: { arguments: [], return: "pointer" },
  mount: { arguments: ["string", "string", "string", "u64", "string"], return: "i32" },
  umount2: { arguments: ["string", "i32"], return: "i32" },
  unshare: { arguments: ["i32"], return: "i32" },
  setns: { arguments: ["i32", "i32"], return: "i32" },
  close_range: { arguments: ["u32", "u32", "i32"], return: "i32" },
  getrlimit: { arguments: ["i32", "buffer"], return: "i32" },
  ioctl: { arguments: ["i32", "u64", "buffer"], return: "i32" },
  statx: { arguments: ["i32", "string", "i32", "u32", "buffer"], return: "i32" },
  lseek: { arguments: ["i32", "i64", "i32"], return: "i64" },
});

/** `syscall(2)` with these argument types. One library handle each, as a symbol has one signature in a handle. */
function syscallTaking<const Arguments extends readonly ArgumentType[]>(...types: Arguments) {
  return dlopen(null, { syscall: { arguments: ["i64", ...types], return: "i32" } }).functions.syscall;
}

const syscalls = {
  openat2: syscallTaking("i32", "string", "buffer", "u64"),
  openTree: syscallTaking("i32", "string", "u32"),
  moveMount: syscallTaking("i32", "string", "i32", "string", "u32"),
  fsopen: syscallTaking("string", "u32"),
  fsconfig: syscallTaking("i32", "u32", "string", "string", "i32"),
  fsmount: syscallTaking("i32", "u32", "u32"),
  mountSetattr: syscallTaking("i32", "string", "u32", "buffer", "u64"),
  pidfdOpen: syscallTaking("i32", "u32"),
  pidfdSendSignal: syscallTaking("i32", "i32", "pointer", "u32"),
};

/** Where this thread's errno is. The address belongs to the thread, and a module is loaded once in each thread. */
const errnoAddress = libc.__errno_location();

/** `result` of a call, or a Fault for its errno. Must be given the call itself, so that nothing runs in between. */
function checked(result: number, attempted: () => string): number {
  if (result !== -1) return result;
  const errno = errnoName(getInt32(errnoAddress));
  throw errnoFault(errno, attempted());
}

/** mount(2). `data` are the file system's own options, at most 4095 bytes. Follows links in `target`. */
export function mount(source: string, target: string, type: string | null, flags: number, data: string | null): void {
  checked(libc.mount(source, target, type, BigInt(flags), data), () => `mount ${source} on ${target}`);
}

export function umount(target: string, flags: number): void {
  checked(libc.umount2(target, flags), () => `unmount ${target}`);
}

/** Moves the calling thread into new namespaces. Never on the main thread: it would move all that Node does there. */
export function unshare(flags: number): void {
  checked(libc.unshare(flags), () => `create namespaces 0x${flags.toString(16)}`);
}

/** Moves the calling thread into the namespace that `fd` refers to. Never on the main thread, except there and back. */
export function setns(fd: number, type: number): void {
  checked(libc.setns(fd, type), () => `enter namespace 0x${type.toString(16)}`);
}

/** openat2(2): the descriptor, always close-on-exec. `path` as bytes needs no final NUL. */
export function openat2(
  directoryFd: number,
  path: string | Uint8Array,
  how: { readonly flags: number; readonly mode?: number; readonly resolve: number },
): number {
  const request = new BigUint64Array([BigInt(how.flags | O_CLOEXEC), BigInt(how.mode ?? 0), BigInt(how.resolve)]);
  const name = typeof path === "string" ? path : terminated(path);
  return checked(syscalls.openat2(number.openat2, directoryFd, name, request, 24n), () => `open ${String(path)}`);
}

/** An open descriptor of a detached copy of the mount at `path`; close it. */
export function openTree(directoryFd: number, path: string, flags: number): number {
  return checked(syscalls.openTree(number.openTree, directoryFd, path, flags | O_CLOEXEC), () => `open mount ${path}`);
}

/** Attaches the detached mount `fd` at `target`, whose last part is not followed when it is a link. */
export function moveMount(fd: number, target: string): void {
  checked(syscalls.moveMount(number.moveMount, fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH), () => {
    return `mount on ${target}`;
  });
}

/** Sets and clears `MOUNT_ATTR_*` on the mount `fd` (and, recursive, on all beneath it). Linux 5.12. */
export function mountSetattr(fd: number, set: number, clear: number, recursive: boolean): void {
  const request = new BigUint64Array([BigInt(set), BigInt(clear), 0n, 0n]);
  const flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  checked(syscalls.mountSetattr(number.mountSetattr, fd, "", flags, request, 32n), () => "set attributes of a mount");
}

/**
 * Makes a file system from parameters that have no common limit of one page, and returns the detached mount's
 * descriptor. A parameter without value is a flag. The kernel's own words are part of the Fault.
 */
export function makeMount(
  type: string,
  parameters: readonly (readonly [key: string, value?: string])[],
  attributes: number,
): number {
  const context = checked(syscalls.fsopen(number.fsopen, type, fsopenCloexec), () => `open file system ${type}`);
  try {
    for (const [key, value] of parameters) {
      const command = value === undefined ? fsconfigSetFlag : fsconfigSetString;
      checked(syscalls.fsconfig(number.fsconfig, context, command, key, value ?? null, 0), () => {
        return withKernelLog(context, `mount ${type}: set ${key}${value === undefined ? "" : `=${value}`}`);
      });
    }
    checked(syscalls.fsconfig(number.fsconfig, context, fsconfigCreate, null, null, 0), () => {
      return withKernelLog(context, `mount ${type}`);
    });
    return checked(syscalls.fsmount(number.fsmount, context, fsmountCloexec, attributes), () => `mount ${type}`);
  } finally {
    closeSync(context);
  }
}

/** A descriptor that means this process and never one that gets its number later; close it. `not-found` when gone. */
export function pidfdOpen(pid: number): number {
  return checked(syscalls.pidfdOpen(number.pidfdOpen, pid, 0), () => `open process ${pid}`);
}

/** Sends a signal; `not-found` when the process has ended. Signal 0 only asks whether it could be sent. */
export function pidfdSendSignal(pidfd: number, signal: number): void {
  checked(syscalls.pidfdSendSignal(number.pidfdSendSignal, pidfd, signal, null, 0), () => `send signal ${signal}`);
}

/** ioctl(2) with a structure, which the kernel may change in place, or without argument. Returns what the call does. */
export function ioctl(fd: number, request: number, argument: Uint8Array | null): number {
  const attempted = (): string => `ioctl 0x${request.toString(16)}`;
  return checked(libc.ioctl(fd, BigInt(request), argument ?? new Uint8Array(0)), attempted);
}

/** Keeps what whoever started us left open, beyond the standard three, from reaching the programs that we start. */
export function keepDescriptorsPrivate(): void {
  const closeOnExec = 0x4;
  checked(libc.close_range(3, 0xffff_ffff, closeOnExec), () => "mark open descriptors close-on-exec");
}

/** Whether `fd`, and all duplicates of it, stand at that offset now: not beyond what its file system has offsets for. */
export function seek(fd: number, offset: bigint): boolean {
  return libc.lseek(fd, offset, 0) !== -1n;
}

/** Both limits of a resource; `Infinity` where there is none. */
export function resourceLimit(resource: number): { readonly soft: number; readonly hard: number } {
  const limits = new BigUint64Array(2);
  checked(libc.getrlimit(resource, limits), () => `read resource limit ${resource}`);
  const [soft = 0n, hard = 0n] = limits;
  return { soft: limitAsNumber(soft), hard: limitAsNumber(hard) };
}

function limitAsNumber(limit: bigint): number {
  const infinity = 0xffff_ffff_ffff_ffffn;
  return limit === infinity ? Infinity : Number(limit);
}

/** Whether something is mounted exactly at `path`, whose last part is not followed. `not-found` when it is not there. */
export function isMountRoot(path: string): boolean {
  const answer = new DataView(new ArrayBuffer(256));
  checked(libc.statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, answer), () => `look at ${path}`);
  const mountRoot = 0x2000n;
  return (answer.getBigUint64(8, littleEndian) & mountRoot) !== 0n;
}

const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

function terminated(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(bytes.length + 1);
  copy.set(bytes);
  return copy;
}

/** What the file system wrote to the log of its mount context, one message a read, after `attempted`. */
function withKernelLog(context: number, attempted: string): string {
  const buffer = Buffer.alloc(1024);
  const lines: string[] = [];
  try {
    for (;;) {
      const length = readSync(context, buffer);
      // Each message starts with its level: `e`, `w` or `i`, and a space.
      lines.push(buffer.toString("utf8", 2, length).trim());
    }
  } catch {
    // ENODATA: no more messages.
  }
  return lines.length === 0 ? attempted : `${attempted} (${lines.join("; ")})`;
}

/** Flags for `open` that Node names too, so that callers of `openat2` need no second list. */
export const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_DIRECTORY } = constants;
