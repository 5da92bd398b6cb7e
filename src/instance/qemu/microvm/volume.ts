import { chownSync, closeSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../../base/fault.ts";
import type { Cgroups } from "../../../host/cgroup.ts";
import { hostFault } from "../../../host/errno.ts";
import { identifyProcess, isAlive, type ProcessIdentity } from "../../../host/proc.ts";
import { findProgram, spawnDetached } from "../../../host/process.ts";
import { listenUnixStream } from "../../../host/unix-listen.ts";
import type { LaunchMount, ProgramLaunch } from "../../contract.ts";
import { type GuestMount, rootTag, sharedFileName, volumeTag } from "../guest/launch.ts";
import { readRecord, writeRecord } from "../../monitor/record.ts";
import { type MachinePaths, socketDirInside } from "./place.ts";

/**
 * Directories of the host that a guest sees: one virtiofsd serves each, in namespaces of its own that hold nothing but the
 * directory. They do not depend on the daemon; the control group named after the instance finds them.
 */
export interface Volume {
  /** By which the guest mounts it. */
  readonly tag: string;
  readonly source: string;
  readonly readOnly: boolean;
  /** A single file, which is shown in a directory of its own. */
  readonly isFile?: true;
}

/** What of a launch is served, by the tag of each: its root, when that is a directory, and what is bound and not copied. */
export function volumesOf(launch: ProgramLaunch): readonly Volume[] {
  const root: Volume[] =
    launch.root.kind === "directory" ? [{ tag: rootTag, source: launch.root.path, readOnly: false }] : [];
  const bound = launch.mounts.flatMap((mount, index): Volume[] => {
    if (mount.kind !== "bind") return [];
    const { source, readOnly } = mount;
    if (isDirectory(source)) return [{ tag: volumeTag(index), source, readOnly }];
    return isCopied(mount) ? [] : [{ tag: volumeTag(index), source, readOnly, isFile: true }];
  });
  return [...root, ...bound];
}

/** Files that programs of the host hand to every container: a copy serves as well, as nobody looks for changes. */
const copiedFiles: ReadonlySet<string> = new Set([
  "/etc/hosts",
  "/etc/hostname",
  "/etc/resolv.conf",
  "/run/.containerenv",
]);

const maxCopiedBytes = 16 * 2 ** 20;

/** Whoever may write to a file wants to be seen doing it. */
function isCopied({ destination, readOnly }: { readonly destination: string; readonly readOnly: boolean }): boolean {
  return readOnly || copiedFiles.has(destination);
}

/**
 * A mount as the guest makes it. The content of a bound file is read at the start and handed over; one that the program may
 * write to, and that somebody may look at, is served.
 */
export function guestMount(mount: LaunchMount): GuestMount {
  if (mount.kind !== "bind" || isDirectory(mount.source)) return mount;
  if (!isCopied(mount)) return { ...mount, kind: "shared-file" };
  try {
    const { size, mode } = statSync(mount.source);
    if (size > maxCopiedBytes) throw new Fault("unsupported", `mount ${mount.source}: it is too large to be copied`);
    const content = readFileSync(mount.source);
    return { kind: "file", destination: mount.destination, content, mode: mode & 0o777, secret: false };
  } catch (error) {
    throw hostFault(error, `mount ${mount.source}`);
  }
}

function isDirectory(path: string): boolean {
  const facts = statSync(path, { throwIfNoEntry: false });
  if (facts === undefined) throw new Fault("not-found", `mount ${path}: it does not exist`);
  return facts.isDirectory();
}

/** The control group of those that serve an instance whose own group is `cgroup`. */
export function volumesCgroup(cgroup: string): string {
  return `${cgroup}.volumes`;
}

const programs = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

/**
 * Starts what serves the volumes; each listens when this returns. `onEnd` is called when one ends, whyever. Returns the
 * sockets, as QEMU finds them.
 */
export function serveVolumes(
  volumes: readonly Volume[],
  machine: MachinePaths,
  uid: number,
  cgroup: string,
  cgroups: Cgroups,
  onEnd: () => void,
): readonly { readonly tag: string; readonly socketPath: string }[] {
  if (volumes.length === 0) return [];
  const program = programs.find((path) => findProgram(path) !== undefined);
  if (program === undefined) {
    throw new Fault("unsupported", "virtiofsd is not installed: it serves volumes to microVMs", {
      hint: "install it: apt-get install virtiofsd, or qemu-system-common where it is part of that",
    });
  }
  mkdirSync(machine.dir, { recursive: true, mode: 0o700 });
  const served: ProcessIdentity[] = [];
  return volumes.map(({ tag, source, isFile }) => {
    const socketPath = join(machine.socketDir, tag);
    const directory = isFile === true ? join(machine.dir, "shown", tag) : source;
    const shown = isFile === true ? showFile(source, directory) : [];
    rmSync(socketPath, { force: true });
    const socket = listenUnixStream(socketPath);
    try {
      // Who connects must be allowed to write to it.
      chownSync(socketPath, uid, uid);
      const options = `source=${directory.replaceAll(/[\\,]/g, (mark) => `\\${mark}`)},sandbox=namespace,cache=auto,xattr,log_level=err`;
      const child = spawnDetached([...shown, program, "-f", "--fd=3", "-o", options], {
        cwd: "/",
        stdio: ["ignore", "ignore", "ignore", socket],
      });
      served.push(identifyProcess(child.pid) ?? { pid: child.pid, startTicks: 0 });
      // Before it is told to anybody: whatever happens from now on, it is found.
      writeRecord(machine.volumesFile, served);
      cgroups.adopt(volumesCgroup(cgroup), child.pid);
      void child.exited.then(onEnd);
    } finally {
      closeSync(socket);
    }
    return { tag, socketPath: `${socketDirInside}/${tag}` };
  });
}

/** Makes a directory with a place for the file, and returns the words that put it there for whoever follows them. */
function showFile(source: string, directory: string): readonly string[] {
  const place = join(directory, sharedFileName);
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  writeFileSync(place, "");
  const script = join(import.meta.dirname, "serve-file.sh");
  return ["unshare", "--mount", "--propagation", "slave", "sh", script, source, place];
}

/** Whether all that were started to serve an instance do. */
export function volumesServed(machine: MachinePaths): boolean {
  const served = (readRecord(machine.volumesFile) as readonly ProcessIdentity[] | undefined) ?? [];
  return served.every(isAlive);
}
