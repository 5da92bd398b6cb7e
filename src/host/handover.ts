import { constants, openSync } from "node:fs";
import { Fault } from "../base/fault.ts";
import { errnoFault, errnoName } from "./errno.ts";

/**
 * Becoming another program: execve(2), and what must be put right before it so that the program finds what our caller
 * gave us. In a module of its own because it also runs inside the compiled `croft-oci`, where there is no `node:ffi`.
 *
 * Both runtimes change what a child inherits: they raise the soft limit on open files, ignore SIGPIPE and SIGXFSZ, and
 * mark inherited descriptors close-on-exec. A container must not see any of it.
 */
export interface Handover {
  /** Becomes `argv[0]`, an absolute path, keeping descriptors 3 up to `3 + keptFds`. Returns only by a Fault. */
  become(argv: readonly string[], env: Readonly<Record<string, string | undefined>>, keptFds: number): never;
  /** Undoes what our own runtime did to the limits of this process, for children that are started. */
  restoreLimits(): void;
  /**
   * A lock on one byte of an open file, which belongs to this process: it outlives `become`, is not handed to children,
   * and ends with the process, however that dies. Returns false when another process has it.
   */
  lockByte(fd: number, offset: bigint): boolean;
  /** A file in memory that the program after `become` can read by the returned path. */
  memoryFile(name: string): { readonly fd: number; readonly path: string };
}

/** What both foreign function interfaces offer us: a system call by number, and the address of some bytes. */
interface Door {
  syscall(number: bigint, ...words: readonly bigint[]): bigint;
  setSignalDefault(signal: number): void;
  address(bytes: NodeJS.TypedArray): bigint;
  errno(): number;
}

const numbers = {
  x64: { execve: 59n, fcntl: 72n, memfdCreate: 319n, prlimit64: 302n },
  arm64: { execve: 221n, fcntl: 25n, memfdCreate: 279n, prlimit64: 261n },
} as const;

const F_SETFD = 2n;
const F_SETLK = 6n;
const F_WRLCK = 1;
const RLIMIT_NOFILE = 7n;
const sigpipe = 13;
const sigxfsz = 25;

export async function openHandover(): Promise<Handover> {
  const number = process.arch === "arm64" ? numbers.arm64 : numbers.x64;
  const door = process.versions["bun"] === undefined ? await nodeDoor() : await bunDoor();
  const keepOpen = (fd: number): void => {
    // Of a descriptor that is not open, the program itself says so.
    door.syscall(number.fcntl, BigInt(fd), F_SETFD, 0n);
  };
  return {
    become(argv, env, keptFds) {
      for (let fd = 0; fd < 3 + keptFds; fd += 1) keepOpen(fd);
      restoreOpenFiles(door, number.prlimit64);
      door.setSignalDefault(sigpipe);
      door.setSignalDefault(sigxfsz);
      const pairs = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
      const program = bytesOf(argv[0] ?? "");
      const words = pointers(door, argv);
      const environment = pointers(door, pairs);
      door.syscall(
        number.execve,
        door.address(program),
        door.address(words.pointers),
        door.address(environment.pointers),
      );
      const errno = errnoName(door.errno());
      // Read after the call, so that no collector takes the strings away before it.
      if (words.kept.length + environment.kept.length === 0) throw new Fault("bug", "a program needs a name");
      throw errnoFault(errno, `run ${argv[0]}`);
    },
    restoreLimits: () => restoreOpenFiles(door, number.prlimit64),
    lockByte(fd, offset) {
      // struct flock: short l_type, short l_whence, padding, then 64 bits each of start and length, then the pid.
      const flock = new DataView(new ArrayBuffer(32));
      flock.setInt16(0, F_WRLCK, true);
      flock.setBigInt64(8, offset, true);
      flock.setBigInt64(16, 1n, true);
      const bytes = new Uint8Array(flock.buffer);
      if (door.syscall(number.fcntl, BigInt(fd), F_SETLK, door.address(bytes)) !== -1n) {
        keepOpen(fd);
        return true;
      }
      const errno = errnoName(door.errno());
      if (errno === "EAGAIN" || errno === "EACCES") return false;
      throw errnoFault(errno, "lock the name of a container");
    },
    memoryFile(name) {
      const made = door.syscall(number.memfdCreate, door.address(bytesOf(name)), 0n);
      if (made === -1n) throw errnoFault(errnoName(door.errno()), "make a file in memory");
      const fd = Number(made);
      return { fd, path: `/proc/self/fd/${fd}` };
    },
  };
}

/**
 * The soft limit as our parent has it. What it was before our runtime raised it is not to be found out, and whoever
 * starts a runtime starts it with the limits it has itself.
 */
function restoreOpenFiles(door: Door, prlimit64: bigint): void {
  const parents = new BigUint64Array(2);
  if (process.ppid === 0) return;
  if (door.syscall(prlimit64, BigInt(process.ppid), RLIMIT_NOFILE, 0n, door.address(parents)) === -1n) return;
  const own = new BigUint64Array(2);
  door.syscall(prlimit64, 0n, RLIMIT_NOFILE, 0n, door.address(own));
  const [soft = 0n] = parents;
  const [current = 0n, hard = 0n] = own;
  if (soft >= current) return;
  door.syscall(prlimit64, 0n, RLIMIT_NOFILE, door.address(new BigUint64Array([soft, hard])), 0n);
}

function pointers(door: Door, words: readonly string[]): { pointers: BigUint64Array; kept: readonly Uint8Array[] } {
  const kept = words.map(bytesOf);
  return { pointers: new BigUint64Array([...kept.map((bytes) => door.address(bytes)), 0n]), kept };
}

function bytesOf(word: string): Uint8Array {
  if (word.includes("\0")) throw new Fault("invalid", `"${word.replaceAll("\0", "\\0")}" holds a NUL byte`);
  return Buffer.from(`${word}\0`);
}

async function nodeDoor(): Promise<Door> {
  const { dlopen, getInt32, getRawPointer } = await import("node:ffi");
  const { functions } = dlopen(null, {
    __errno_location: { arguments: [], return: "pointer" },
    signal: { arguments: ["i32", "i64"], return: "pointer" },
    syscall: { arguments: ["i64", "i64", "i64", "i64", "i64", "i64", "i64"], return: "i64" },
  });
  const errnoAddress = functions.__errno_location();
  return {
    syscall: (number, a = 0n, b = 0n, c = 0n, d = 0n, e = 0n, f = 0n) => functions.syscall(number, a, b, c, d, e, f),
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

async function bunDoor(): Promise<Door> {
  const name = "bun:ffi";
  const ffi = (await import(name)) as BunFfi;
  const { symbols } = ffi.dlopen("libc.so.6", {
    __errno_location: { args: [], returns: "ptr" },
    signal: { args: ["i32", "i64"], returns: "i64" },
    syscall: { args: ["i64", "i64", "i64", "i64", "i64", "i64", "i64"], returns: "i64" },
  });
  const libc = symbols as unknown as {
    __errno_location(): number;
    signal(signal: number, handler: bigint): bigint;
    syscall(...words: readonly bigint[]): bigint;
  };
  return {
    syscall: (number, a = 0n, b = 0n, c = 0n, d = 0n, e = 0n, f = 0n) => libc.syscall(number, a, b, c, d, e, f),
    setSignalDefault: (signal) => void libc.signal(signal, 0n),
    address: (bytes) => BigInt(ffi.ptr(bytes)),
    errno: () => ffi.read.i32(libc.__errno_location(), 0),
  };
}

/** Opens the file whose bytes are locked, making it when it is not there. Never truncated, never removed. */
export function openLockFile(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
}
