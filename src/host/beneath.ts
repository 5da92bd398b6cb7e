import { randomBytes } from "node:crypto";
import { closeSync, fchmodSync, fchownSync, fstatSync, lstatSync, mkdirSync, openSync, readlinkSync } from "node:fs";
import { open, rename, unlink } from "node:fs/promises";
import { Fault } from "../base/fault.ts";
import { errnoFault, errnoOf, hostFault } from "./errno.ts";
import { readBounded } from "./file.ts";
import {
  AT_FDCWD,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_WRONLY,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  openat2,
} from "./kernel.ts";

/**
 * The only way to touch a tree that a workload wrote: its image, its writable layer, its volumes.
 *
 * Every path is resolved by the kernel as if the root were `/` of the whole system: links, absolute or climbing, stay
 * within, and the magic links of proc lead nowhere. That holds while the workload is changing the tree under our hands.
 * Files are never opened before they are known to be regular, so a fifo cannot block us and a device is never touched.
 */

/** Where a path led. */
export interface Beneath {
  /** Free of links, absolute within the root: `/run/lock` for `/var/lock`. Prefix the root for the path on the host. */
  readonly path: string;
  /** A link on the way would have led a naive follower out of the root: an absolute one, or one that climbs too far. */
  readonly contained: boolean;
  /** Whether anything was made. */
  readonly created: boolean;
}

const withinRoot = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
/** As in the kernel: more links than this on one way are taken for a loop. */
const maxLinks = 40;

/**
 * Opens what is at `path` beneath `root` and returns the descriptor; the caller closes it. With `O_PATH` (the wise
 * choice) nothing of it is touched. `flags` must not create: see `makeFileBeneath`.
 */
export function openBeneath(root: string, path: string, flags: number): number {
  const rootFd = openRoot(root);
  try {
    return openat2Steady(rootFd, path, flags, withinRoot);
  } catch (error) {
    throw beneathFault(error, `open ${path} beneath ${root}`);
  } finally {
    closeSync(rootFd);
  }
}

/** The path within `root`, absolute and free of links, to which `path` leads. `not-found` when it leads nowhere. */
export function resolveBeneath(root: string, path: string): string {
  const rootFd = openRoot(root);
  try {
    const fd = openat2Steady(rootFd, path, O_PATH, withinRoot);
    try {
      return pathWithin(pathOf(rootFd), pathOf(fd));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw beneathFault(error, `resolve ${path} beneath ${root}`);
  } finally {
    closeSync(rootFd);
  }
}

/** Who owns what is made, and its permissions. Default: root, 0755 for directories and 0644 for files. */
export interface Ownership {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

/** Makes the directory `path` beneath `root`, and those above it; an existing one stays as it is. */
export function makeDirBeneath(root: string, path: string, ownership: Ownership = {}): Beneath {
  return walking(root, path, `make directory ${path} beneath ${root}`, (walk) => {
    const existed = walk.missing.length === 0;
    while (walk.missing.length > 0) makeMissingDirectory(walk, ownership);
    if (walk.file !== undefined) throw notADirectory(walk);
    return { path: walkedPath(walk), contained: walk.contained, created: !existed };
  });
}

/**
 * Makes an empty file at `path` beneath `root`, and the directories above it, to mount something on. Anything there
 * but a directory stays as it is.
 */
export function makeFileBeneath(root: string, path: string, ownership: Ownership = {}): Beneath {
  return walking(root, path, `make file ${path} beneath ${root}`, (walk) => {
    if (walk.file !== undefined) return { path: walkedPath(walk), contained: walk.contained, created: false };
    while (walk.missing.length > 1) makeMissingDirectory(walk, {});
    const [name] = walk.missing;
    if (name === undefined) throw new Fault("precondition", `${walkedPath(walk)} is a directory`);
    const fd = openSync(inside(walk, name), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600);
    try {
      own(fd, ownership, 0o644);
    } finally {
      closeSync(fd);
    }
    return { path: joined([...walk.names, name]), contained: walk.contained, created: true };
  });
}

/**
 * The content of the regular file to which `path` leads. `not-found` when there is none, `hostile` when it is a fifo, a
 * device or a socket, `exhausted` when larger than `maxBytes`. Never blocks on what it finds.
 */
export async function readFileBeneath(root: string, path: string, maxBytes: number): Promise<Buffer> {
  const attempted = `read ${path} beneath ${root}`;
  const fd = openBeneath(root, path, O_PATH);
  try {
    const facts = fstatSync(fd);
    if (facts.isDirectory()) throw new Fault("precondition", `${attempted}: it is a directory`);
    if (!facts.isFile()) throw new Fault("hostile", `${attempted}: it is not a regular file`);
    if (facts.size > maxBytes) throw new Fault("exhausted", `${attempted}: larger than ${maxBytes} bytes`);
    // Through the descriptor it is this very file, whatever the name means by now. O_NONBLOCK: a lease may be held on it.
    const file = await open(`/proc/self/fd/${fd}`, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    try {
      return await readBounded(file, maxBytes, attempted);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw beneathFault(error, attempted);
  } finally {
    closeSync(fd);
  }
}

/**
 * Puts a regular file with this content at `path` beneath `root`, making the directories above it. What was there is
 * replaced, not written to: neither a device, nor a fifo, nor another name of the same file is touched.
 */
export async function writeFileBeneath(
  root: string,
  path: string,
  data: string | Uint8Array,
  ownership: Ownership = {},
): Promise<Beneath> {
  const attempted = `write ${path} beneath ${root}`;
  const walk = startWalk(root, path, attempted);
  try {
    walkOn(walk);
    while (walk.missing.length > 1) makeMissingDirectory(walk, {});
    const name = walk.file ?? walk.missing[0];
    if (name === undefined) throw new Fault("precondition", `${attempted}: it is a directory`);
    const temporary = inside(walk, `.croft-${randomBytes(8).toString("hex")}`);
    try {
      const file = await open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600);
      try {
        await file.writeFile(data);
        own(file.fd, ownership, 0o644);
      } finally {
        await file.close();
      }
      await rename(temporary, inside(walk, name));
    } catch (error) {
      await unlink(temporary).catch(() => {});
      throw error;
    }
    return { path: joined([...walk.names, name]), contained: walk.contained, created: walk.file === undefined };
  } catch (error) {
    throw beneathFault(error, attempted);
  } finally {
    endWalk(walk);
  }
}

/**
 * A way through the tree, one name at a time. All directories on it are held open, so that `..` goes back to where we
 * came from even if someone moves them meanwhile.
 */
interface Walk {
  readonly descriptors: number[];
  /** The names that led from the root to the last descriptor: none of them is a link. */
  readonly names: string[];
  /** What is still to be walked, next name last. */
  readonly ahead: string[];
  /** The last name, when it is there and not a directory. */
  file: string | undefined;
  /** The names that do not exist, from the last descriptor on. */
  readonly missing: string[];
  contained: boolean;
  links: number;
}

function walking(root: string, path: string, attempted: string, use: (walk: Walk) => Beneath): Beneath {
  const walk = startWalk(root, path, attempted);
  try {
    walkOn(walk);
    return use(walk);
  } catch (error) {
    throw beneathFault(error, attempted);
  } finally {
    endWalk(walk);
  }
}

function startWalk(root: string, path: string, attempted: string): Walk {
  if (path.includes("\0")) throw new Fault("invalid", `${attempted}: the path contains a NUL byte`);
  return {
    descriptors: [openRoot(root)],
    names: [],
    ahead: path.split("/").toReversed(),
    file: undefined,
    missing: [],
    contained: false,
    links: 0,
  };
}

function endWalk(walk: Walk): void {
  for (const fd of walk.descriptors) closeSync(fd);
}

function walkOn(walk: Walk): void {
  for (let name = walk.ahead.pop(); name !== undefined; name = walk.ahead.pop()) {
    if (name === "" || name === ".") continue;
    if (name === "..") stepBack(walk);
    else if (walk.missing.length > 0) walk.missing.push(name);
    else if (walk.file !== undefined) throw notADirectory(walk);
    else stepInto(walk, name);
  }
}

function stepBack(walk: Walk): void {
  if (walk.file !== undefined) throw notADirectory(walk);
  if (walk.missing.pop() !== undefined) return;
  if (walk.names.pop() === undefined) {
    // At the root, as in a chroot, `..` stays.
    walk.contained = true;
    return;
  }
  const fd = walk.descriptors.pop();
  if (fd !== undefined) closeSync(fd);
}

function stepInto(walk: Walk, name: string): void {
  let facts;
  try {
    facts = lstatSync(inside(walk, name));
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    walk.missing.push(name);
    return;
  }
  if (facts.isSymbolicLink()) {
    followLink(walk, name);
  } else if (facts.isDirectory()) {
    walk.descriptors.push(openat2Steady(lastOf(walk), name, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS));
    walk.names.push(name);
  } else {
    walk.file = name;
  }
}

function followLink(walk: Walk, name: string): void {
  walk.links += 1;
  if (walk.links > maxLinks) throw new Fault("hostile", `more than ${maxLinks} links, or a loop of them`);
  const target = readlinkSync(inside(walk, name));
  if (target.startsWith("/")) {
    walk.contained = true;
    walk.names.length = 0;
    for (const fd of walk.descriptors.splice(1)) closeSync(fd);
  }
  walk.ahead.push(...target.split("/").toReversed());
}

function makeMissingDirectory(walk: Walk, ownership: Ownership): void {
  const name = walk.missing.shift();
  if (name === undefined) return;
  mkdirSync(inside(walk, name), 0o700);
  const fd = openat2Steady(lastOf(walk), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, RESOLVE_NO_SYMLINKS);
  walk.descriptors.push(fd);
  walk.names.push(name);
  own(fd, ownership, 0o755);
}

/** The path of `name` in the directory where the walk stands, reached by descriptor: nothing on it can be swapped. */
function inside(walk: Walk, name: string): string {
  return `/proc/self/fd/${lastOf(walk)}/${name}`;
}

function lastOf(walk: Walk): number {
  const fd = walk.descriptors.at(-1);
  if (fd === undefined) throw new Fault("bug", "a walk lost its root");
  return fd;
}

function walkedPath(walk: Walk): string {
  return joined(walk.file === undefined ? walk.names : [...walk.names, walk.file]);
}

function joined(names: readonly string[]): string {
  return `/${names.join("/")}`;
}

/** Sets owner and permissions by descriptor. The owner first: changing it clears setuid and setgid. */
function own(fd: number, ownership: Ownership, defaultMode: number): void {
  if (ownership.uid !== undefined || ownership.gid !== undefined) {
    fchownSync(fd, ownership.uid ?? 0, ownership.gid ?? 0);
  }
  fchmodSync(fd, ownership.mode ?? defaultMode);
}

function openRoot(root: string): number {
  return openat2(AT_FDCWD, root, { flags: O_PATH | O_DIRECTORY, resolve: 0 });
}

/** The kernel answers EAGAIN when a rename raced with a `..`; a tree that never rests is hostile. */
function openat2Steady(directoryFd: number, path: string, flags: number, resolve: number): number {
  for (let tries = 0; ; tries += 1) {
    try {
      return openat2(directoryFd, path === "" ? "." : path, { flags, resolve });
    } catch (error) {
      if (errnoOf(error) !== "EAGAIN" || tries === 32) throw error;
    }
  }
}

/** The real path of what a descriptor refers to. Refuses a name that is not UTF-8, as it could not be given back. */
function pathOf(fd: number): string {
  const bytes = readlinkSync(`/proc/self/fd/${fd}`, { encoding: "buffer" });
  const path = bytes.toString("utf8");
  if (!Buffer.from(path).equals(bytes)) throw new Fault("unsupported", `${path}: the name is not UTF-8`);
  return path;
}

function pathWithin(root: string, path: string): string {
  if (path === root) return "/";
  const prefix = root === "/" ? "/" : `${root}/`;
  if (!path.startsWith(prefix)) throw new Fault("hostile", `${path} is not beneath ${root}`);
  return path.slice(prefix.length - 1);
}

function notADirectory(walk: Walk): Fault {
  return new Fault("precondition", `${walkedPath(walk)} is not a directory`);
}

/** A loop of links, or a magic link of proc, is an attempt; everything else is what it is. */
function beneathFault(error: unknown, attempted: string): Fault {
  const errno = errnoOf(error);
  if (errno === "ELOOP") {
    return new Fault("hostile", `${attempted}: a loop of links, or a link that leads nowhere we go`, { cause: error });
  }
  if (errno !== undefined) return errnoFault(errno, attempted, error);
  if (!(error instanceof Fault) || error.message.startsWith(attempted)) return hostFault(error, attempted);
  return new Fault(error.reason, `${attempted}: ${error.message}`, { cause: error });
}
