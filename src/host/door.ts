import { Fault } from "../base/fault.ts";

/**
 * System calls by number, through the foreign function interface of whichever runtime we are in: Node, or the one that the
 * compiled programs are made with. For what neither offers, and for the few questions that are asked in each call of
 * `croft-oci`: there, loading `node:fs` alone would take a sixth of the time. Opened when it is first needed.
 */
export interface Door {
  /** -1 when it failed; then `errno` says why. */
  call(name: CallName, ...words: readonly bigint[]): bigint;
  setSignalDefault(signal: number): void;
  address(bytes: NodeJS.TypedArray): bigint;
  errno(): number;
}

const numbers = {
  x64: {
    execve: 59n,
    faccessat: 269n,
    fcntl: 72n,
    memfd_create: 319n,
    newfstatat: 262n,
    openat: 257n,
    prlimit64: 302n,
    sendfile: 40n,
  },
  arm64: {
    execve: 221n,
    faccessat: 48n,
    fcntl: 25n,
    memfd_create: 279n,
    newfstatat: 79n,
    openat: 56n,
    prlimit64: 261n,
    sendfile: 71n,
  },
} as const;

type CallName = keyof typeof numbers.x64;

let opened: Door | undefined;

export function openDoor(): Door {
  opened ??= process.versions["bun"] === undefined ? nodeDoor() : bunDoor();
  return opened;
}

/** A string as the kernel takes it. */
export function cString(text: string): Uint8Array {
  if (text.includes("\0")) throw new Fault("invalid", `"${text.replaceAll("\0", "\\0")}" holds a NUL byte`);
  return Buffer.from(`${text}\0`);
}

const AT_FDCWD = -100n;
const X_OK = 1n;

/** Whether something is at the path, links followed; whatever keeps us from seeing it is taken for an absence. */
export function exists(path: string): boolean {
  return isAccessible(path, 0n);
}

export function isExecutable(path: string): boolean {
  return isAccessible(path, X_OK);
}

function isAccessible(path: string, mode: bigint): boolean {
  const door = openDoor();
  return door.call("faccessat", AT_FDCWD, door.address(cString(path)), mode) === 0n;
}

export interface FileFacts {
  /** Equal for equal files, whatever their paths. */
  readonly identity: string;
  readonly sizeBytes: number;
}

/** Links followed; undefined when it cannot be seen. */
export function factsOf(path: string): FileFacts | undefined {
  const door = openDoor();
  // struct stat: 64 bits each of st_dev and st_ino, and st_size after 48 bytes, on both architectures.
  const stat = new BigUint64Array(18);
  if (door.call("newfstatat", AT_FDCWD, door.address(cString(path)), door.address(stat), 0n) !== 0n) return undefined;
  return { identity: `${stat[0]}:${stat[1]}`, sizeBytes: Number(stat[6]) };
}

type Syscall = (...words: readonly bigint[]) => bigint;

function named(syscall: Syscall): Door["call"] {
  const known = process.arch === "arm64" ? numbers.arm64 : numbers.x64;
  return (name, a = 0n, b = 0n, c = 0n, d = 0n, e = 0n, f = 0n) => syscall(known[name], a, b, c, d, e, f);
}

function nodeDoor(): Door {
  const { dlopen, getInt32, getRawPointer } = process.getBuiltinModule("node:ffi");
  const { functions } = dlopen(null, {
    __errno_location: { arguments: [], return: "pointer" },
    signal: { arguments: ["i32", "i64"], return: "pointer" },
    syscall: { arguments: ["i64", "i64", "i64", "i64", "i64", "i64", "i64"], return: "i64" },
  });
  const errnoAddress = functions.__errno_location();
  return {
    call: named(functions.syscall),
    setSignalDefault: (signal) => void functions.signal(signal, 0n),
    address: (bytes) => getRawPointer(bytes),
    errno: () => getInt32(errnoAddress),
  };
}

/** The part of `bun:ffi` that is used here. */
interface BunFfi {
  dlopen(
    library: string,
    symbols: Readonly<Record<string, { readonly args: readonly string[]; readonly returns: string }>>,
  ): { readonly symbols: Readonly<Record<string, (...words: readonly (bigint | number)[]) => never>> };
  ptr(bytes: NodeJS.TypedArray): number;
  readonly read: { i32(address: number, offset: number): number };
}

function bunDoor(): Door {
  const ffi = process.getBuiltinModule("bun:ffi") as unknown as BunFfi;
  const { symbols } = ffi.dlopen("libc.so.6", {
    __errno_location: { args: [], returns: "ptr" },
    signal: { args: ["i32", "i64"], returns: "i64" },
    syscall: { args: ["i64", "i64", "i64", "i64", "i64", "i64", "i64"], returns: "i64" },
  });
  const libc = symbols as unknown as {
    __errno_location(): number;
    signal(signal: number, handler: bigint): bigint;
    syscall: Syscall;
  };
  return {
    call: named(libc.syscall),
    setSignalDefault: (signal) => void libc.signal(signal, 0n),
    address: (bytes) => BigInt(ffi.ptr(bytes)),
    errno: () => ffi.read.i32(libc.__errno_location(), 0),
  };
}
