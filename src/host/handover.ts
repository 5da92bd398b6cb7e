import { Fault } from "../base/fault.ts";
import { cString, type Door, factsOf, openDoor } from "./door.ts";
import { errnoFault, errnoName } from "./errno.ts";

/**
 * Becoming another program: execve(2), and what must be put right before it so that the program finds what our caller
 * gave us.
 *
 * Both runtimes change what a child inherits: they raise the soft limit on open files, ignore SIGPIPE and SIGXFSZ, and
 * mark inherited descriptors close-on-exec. A container must not see any of it.
 */
export interface Handover {
  /**
   * Becomes `argv[0]`, an absolute path, keeping descriptors 3 up to `3 + keptFds`. Returns only by a Fault. `sealed`: from a
   * copy in memory that nobody can change, if it can be had.
   */
  become(
    argv: readonly string[],
    env: Readonly<Record<string, string | undefined>>,
    keptFds: number,
    sealed?: boolean,
  ): never;
  /** Undoes what our own runtime did to the limits of this process, for children that are started. */
  restoreLimits(): void;
  /**
   * A lock on one byte of an open file, which belongs to this process: it outlives `become`, is not handed to children,
   * and ends with the process, however that dies. Returns false when another process has it.
   */
  lockByte(fd: number, offset: bigint): boolean;
  /**
   * A file in memory. Its path leads there for whatever we become, and for our children, which do not inherit the
   * descriptor.
   */
  memoryFile(name: string): { readonly fd: number; readonly path: string };
}

const F_SETFD = 2n;
const F_SETLK = 6n;
const F_ADD_SEALS = 1033n;
/** F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_WRITE. */
const allSeals = 15n;
const AT_FDCWD = -100n;
const O_CLOEXEC = 0o2000000n;
const MFD_CLOEXEC = 1n;
const MFD_ALLOW_SEALING = 2n;
const F_WRLCK = 1;
const RLIMIT_NOFILE = 7n;
const sigpipe = 13;
const sigxfsz = 25;

export function openHandover(): Handover {
  const door = openDoor();
  /** Descriptors of ours that what we become is to have: locks and files in memory. */
  const held: number[] = [];
  const keepOpen = (fd: number): void => {
    // Of a descriptor that is not open, the program itself says so.
    door.call("fcntl", BigInt(fd), F_SETFD, 0n);
  };
  return {
    become(argv, env, keptFds, sealed = false) {
      for (let fd = 0; fd < 3 + keptFds; fd += 1) keepOpen(fd);
      for (const fd of held) keepOpen(fd);
      restoreOpenFiles(door);
      door.setSignalDefault(sigpipe);
      door.setSignalDefault(sigxfsz);
      const pairs = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
      const path = argv[0] ?? "";
      const words = pointers(door, argv);
      const environment = pointers(door, pairs);
      const copy = sealed ? sealedCopy(door, path) : undefined;
      for (const program of [...(copy === undefined ? [] : [cString(copy)]), cString(path)]) {
        door.call("execve", door.address(program), door.address(words.pointers), door.address(environment.pointers));
      }
      const errno = errnoName(door.errno());
      // Read after the call, so that no collector takes the strings away before it.
      if (words.kept.length + environment.kept.length === 0) throw new Fault("bug", "a program needs a name");
      throw errnoFault(errno, `run ${argv[0]}`);
    },
    restoreLimits: () => restoreOpenFiles(door),
    lockByte(fd, offset) {
      // struct flock: short l_type, short l_whence, padding, then 64 bits each of start and length, then the pid.
      const flock = new DataView(new ArrayBuffer(32));
      flock.setInt16(0, F_WRLCK, true);
      flock.setBigInt64(8, offset, true);
      flock.setBigInt64(16, 1n, true);
      const bytes = new Uint8Array(flock.buffer);
      if (door.call("fcntl", BigInt(fd), F_SETLK, door.address(bytes)) !== -1n) {
        held.push(fd);
        return true;
      }
      const errno = errnoName(door.errno());
      if (errno === "EAGAIN" || errno === "EACCES") return false;
      throw errnoFault(errno, "lock the name of a container");
    },
    memoryFile(name) {
      const made = door.call("memfd_create", door.address(cString(name)), MFD_CLOEXEC);
      if (made === -1n) throw errnoFault(errnoName(door.errno()), "make a file in memory");
      const fd = Number(made);
      held.push(fd);
      // Our number as this /proc has it: to a child `self` is the child, and another namespace has other numbers.
      const own = process.getBuiltinModule("node:fs").readlinkSync("/proc/self");
      return { fd, path: `/proc/${own}/fd/${fd}` };
    },
  };
}

/** A larger program costs more to copy than it saves. */
const maxSealedBytes = 4 * 2 ** 20;

/** The path of a copy that cannot be written to; undefined when there is none to be had, as without memory. */
function sealedCopy(door: Door, path: string): string | undefined {
  const sizeBytes = factsOf(path)?.sizeBytes;
  if (sizeBytes === undefined || sizeBytes > maxSealedBytes) return undefined;
  const name = cString(path.slice(path.lastIndexOf("/") + 1));
  const copy = door.call("memfd_create", door.address(name), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  const original = door.call("openat", AT_FDCWD, door.address(cString(path)), O_CLOEXEC);
  if (copy === -1n || original === -1n) return undefined;
  const copied = door.call("sendfile", copy, original, 0n, BigInt(sizeBytes));
  if (copied !== BigInt(sizeBytes) || door.call("fcntl", copy, F_ADD_SEALS, allSeals) === -1n) return undefined;
  return `/proc/self/fd/${copy}`;
}

/**
 * The soft limit as our parent has it. What it was before our runtime raised it is not to be found out, and whoever
 * starts a runtime starts it with the limits it has itself.
 */
function restoreOpenFiles(door: Door): void {
  const parents = new BigUint64Array(2);
  if (process.ppid === 0) return;
  if (door.call("prlimit64", BigInt(process.ppid), RLIMIT_NOFILE, 0n, door.address(parents)) === -1n) return;
  const own = new BigUint64Array(2);
  door.call("prlimit64", 0n, RLIMIT_NOFILE, 0n, door.address(own));
  const [soft = 0n] = parents;
  const [current = 0n, hard = 0n] = own;
  if (soft >= current) return;
  door.call("prlimit64", 0n, RLIMIT_NOFILE, door.address(new BigUint64Array([soft, hard])), 0n);
}

function pointers(door: Door, words: readonly string[]): { pointers: BigUint64Array; kept: readonly Uint8Array[] } {
  const kept = words.map(cString);
  return { pointers: new BigUint64Array([...kept.map((bytes) => door.address(bytes)), 0n]), kept };
}
