import { closeSync, existsSync, openSync, readdirSync, statfsSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../base/fault.ts";
import { errnoOf, hostFault } from "./errno.ts";
import { CLONE_NEWNET, MNT_DETACH, MS_BIND, mount, setns, umount, unshare } from "./kernel.ts";

/**
 * Network namespaces with a name in the file system: a bind mount of the namespace's file, which keeps it alive without
 * any process in it.
 *
 * A namespace belongs to a thread. These functions move the calling thread, usually the main one, into another namespace
 * and back within one synchronous call, so that no other JavaScript can run, and no child process can be started, in
 * between. If the way back ever failed, everything the daemon did from then on would happen on the wrong network: then
 * the process ends at once, which loses nothing, as the daemon converges after any death.
 */

/**
 * Makes a namespace named by the file `path`, whose directory must exist, and returns what `prepare` returned, which
 * runs inside it. Without a way to be half-made: a file that names no namespace is completed by the next call.
 * Throws `already-exists` when `path` names one already. Takes about a millisecond of kernel time.
 */
export function createNamespace<Result>(path: string, prepare: () => Result): Result {
  if (isNamespace(path)) throw new Fault("already-exists", `create network namespace ${path}: it exists already`);
  try {
    closeSync(openSync(path, "a", 0o444));
  } catch (error) {
    throw hostFault(error, `create network namespace ${path}`);
  }
  return thereAndBack(
    () => unshare(CLONE_NEWNET),
    () => {
      const result = prepare();
      // Last, so that a file which names a namespace names a prepared one.
      mount(ownNamespaceFile, path, null, MS_BIND, null);
      return result;
    },
  );
}

/** Runs `action` inside the namespace named by `path`. It must be synchronous. `not-found` when there is none. */
export function inNamespace<Result>(path: string, action: () => Result): Result {
  if (!isNamespace(path)) throw new Fault("not-found", `enter network namespace ${path}: it does not exist`);
  const fd = openSync(path, "r");
  try {
    return thereAndBack(() => setns(fd, CLONE_NEWNET), action);
  } finally {
    closeSync(fd);
  }
}

/**
 * Takes the name away; idempotent. The namespace goes when its last process ended, and with it what is in it: the kernel
 * does that later, in a thread of its own.
 */
export function removeNamespace(path: string): void {
  try {
    if (isNamespace(path)) umount(path, MNT_DETACH);
    unlinkSync(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw hostFault(error, `remove network namespace ${path}`);
  }
}

/** Whether the file `path` names a namespace. A file left by a creation that was interrupted does not. */
export function isNamespace(path: string): boolean {
  const nsfsMagic = 0x6e736673;
  try {
    return statfsSync(path).type === nsfsMagic;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw hostFault(error, `look at network namespace ${path}`);
  }
}

/** The files in `directory` that name, or began to name, a namespace. A missing directory has none. */
export function listNamespaces(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory).map((name) => join(directory, name));
}

const ownNamespaceFile = "/proc/thread-self/ns/net";

function thereAndBack<Result>(go: () => void, action: () => Result): Result {
  const home = openSync(ownNamespaceFile, "r");
  try {
    go();
    try {
      const result = action();
      if (result instanceof Promise) throw new Fault("bug", "asynchronous work was given to another network namespace");
      return result;
    } finally {
      try {
        setns(home, CLONE_NEWNET);
      } catch {
        process.abort();
      }
    }
  } finally {
    closeSync(home);
  }
}
