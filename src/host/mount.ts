import { close, closeSync, openSync, readFileSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { Fault } from "../base/fault.ts";
import { errnoOf, hostFault } from "./errno.ts";
import {
  AT_FDCWD,
  AT_RECURSIVE,
  MNT_DETACH,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_RDONLY,
  MS_NOATIME,
  MS_NODEV,
  MS_NOSUID,
  MS_RDONLY,
  OPEN_TREE_CLONE,
  O_CLOEXEC,
  O_NOFOLLOW,
  O_PATH,
  UMOUNT_NOFOLLOW,
  isMountRoot,
  makeMount,
  mount,
  mountSetattr,
  moveMount,
  openTree,
  umount,
} from "./kernel.ts";
import { withLoopDevice } from "./loop.ts";

/**
 * Mounting, without a process. Targets must exist and are of our own making or were resolved by `beneath.ts`; the last
 * part of a target is never followed when it is a link.
 */

/**
 * Mounts an EROFS image read-only: from the file itself where the kernel can (Linux 6.12, and not on every file system),
 * elsewhere by a loop device.
 */
export async function mountErofs(file: string, target: string): Promise<void> {
  const flags = MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOATIME;
  try {
    mount(file, target, "erofs", flags, null);
  } catch (error) {
    if (errnoOf(error) !== "ENOTBLK") throw error;
    await withLoopDevice(file, { readOnly: true }, (device) => mount(device, target, "erofs", flags, null));
  }
}

export interface OverlayOptions {
  /** The uppermost first; at least one, at most 500. */
  readonly lowers: readonly string[];
  /** Absent together with `work`: a read-only view of the lowers. */
  readonly upper?: string;
  readonly work?: string;
  readonly target: string;
  readonly readOnly?: boolean;
  /** Device nodes in the tree do not open. Default true. */
  readonly nodev?: boolean;
}

/**
 * Mounts an overlay.
 *
 * Redirects and metadata-only copies are off, so no extended attribute in a hostile layer can name another path. The
 * lowers are handed over one by one where the kernel can (Linux 6.8), as all together have to fit into one page
 * elsewhere; there they are named by descriptors, which are short.
 */
export async function mountOverlay(options: OverlayOptions): Promise<void> {
  if (overlayByParameters === false) return mountOverlayByPage(options);
  const attributes =
    (options.readOnly === true ? MOUNT_ATTR_RDONLY : 0) | (options.nodev === false ? 0 : MOUNT_ATTR_NODEV);
  try {
    attach(makeMount("overlay", overlayParameters(options), attributes), options.target);
    overlayByParameters = true;
  } catch (error) {
    const refused = ["EINVAL", "ENOSYS"].includes(errnoOf(error) ?? "");
    if (overlayByParameters === true || !refused) throw error;
    // An old kernel, or a mount that no kernel would make: the old way tells.
    mountOverlayByPage(options);
    overlayByParameters = false;
  }
}

/** Whether this kernel takes `lowerdir+`; undefined until the first mount has told. */
let overlayByParameters: boolean | undefined;

const overlaySafety: readonly (readonly [string, string])[] = [
  ["redirect_dir", "nofollow"],
  ["metacopy", "off"],
  ["index", "off"],
];

function overlayParameters(options: OverlayOptions): [string, string?][] {
  const parameters: [string, string?][] = [["source", "croft"]];
  for (const lower of options.lowers) parameters.push(["lowerdir+", lower]);
  if (options.upper !== undefined) parameters.push(["upperdir", options.upper]);
  if (options.work !== undefined) parameters.push(["workdir", options.work]);
  for (const [key, value] of overlaySafety) parameters.push([key, value]);
  return parameters;
}

/** The way of kernels before 6.8: all options in one page, directories named by descriptors of this process. */
export function mountOverlayByPage(options: OverlayOptions): void {
  const descriptors: number[] = [];
  const named = (path: string): string => {
    const fd = openSync(path, O_PATH | O_CLOEXEC);
    descriptors.push(fd);
    return `/proc/self/fd/${fd}`;
  };
  try {
    const parts = [`lowerdir=${options.lowers.map(named).join(":")}`];
    if (options.upper !== undefined) parts.push(`upperdir=${named(options.upper)}`);
    if (options.work !== undefined) parts.push(`workdir=${named(options.work)}`);
    for (const [key, value] of overlaySafety) parts.push(`${key}=${value}`);
    const data = parts.join(",");
    if (data.length > 4095) {
      throw new Fault("unsupported", `mount ${options.lowers.length} layers on ${options.target}: too many`, {
        hint: "this kernel takes about 200 layers, Linux 6.8 and later 500",
      });
    }
    const flags = (options.readOnly === true ? MS_RDONLY : 0) | (options.nodev === false ? 0 : MS_NODEV);
    mount("croft", options.target, "overlay", flags, data);
  } catch (error) {
    throw hostFault(error, `mount an overlay on ${options.target}`);
  } finally {
    for (const fd of descriptors) closeSync(fd);
  }
}

export interface TmpfsOptions {
  readonly sizeBytes: number;
  /** Default 0o755. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

/** Mounts an empty tmpfs without devices and setuid. Its pages count as memory of whoever writes them. */
export async function mountTmpfs(target: string, options: TmpfsOptions): Promise<void> {
  const data = [
    `size=${options.sizeBytes}`,
    `mode=${(options.mode ?? 0o755).toString(8)}`,
    `uid=${options.uid ?? 0}`,
    `gid=${options.gid ?? 0}`,
  ].join(",");
  mount("croft", target, "tmpfs", MS_NODEV | MS_NOSUID, data);
}

export interface BindOptions {
  readonly readOnly?: boolean;
  /** Also what is mounted beneath `source`. */
  readonly recursive?: boolean;
  /** Device nodes there do not open. */
  readonly nodev?: boolean;
}

/** Shows `source`, a directory or file, at `target` too, with its limits from the first moment on (Linux 5.12). */
export async function bind(source: string, target: string, options: BindOptions = {}): Promise<void> {
  const recursive = options.recursive === true;
  const attributes =
    (options.readOnly === true ? MOUNT_ATTR_RDONLY : 0) | (options.nodev === true ? MOUNT_ATTR_NODEV : 0);
  const tree = openTree(AT_FDCWD, source, OPEN_TREE_CLONE | (recursive ? AT_RECURSIVE : 0));
  try {
    if (attributes !== 0) mountSetattr(tree, attributes, 0, recursive);
    moveMount(tree, target);
  } finally {
    closeSync(tree);
  }
}

/**
 * Takes the uppermost mount at `target` away; nothing mounted or nothing there is fine. Busy is a Fault with errno
 * EBUSY.
 *
 * With `detach` it is never busy: it disappears before this function returns its promise, and ends when its last user
 * does. If that is us, the promise resolves when its content is on the disk. Ending an overlay writes back the whole
 * file system beneath it, which may take seconds; that is waited for on a thread of Node's pool, as closing the last
 * descriptor is what ends a detached mount. With `abandon` nobody waits for that: its content is to be deleted.
 */
export async function unmount(
  target: string,
  options: { readonly detach?: boolean; readonly abandon?: boolean } = {},
): Promise<void> {
  const detach = options.detach === true || options.abandon === true;
  let last: number | undefined;
  try {
    if (detach) last = openSync(target, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    umount(target, UMOUNT_NOFOLLOW | (detach ? MNT_DETACH : 0));
  } catch (error) {
    if (["EINVAL", "ENOENT"].includes(errnoOf(error) ?? "")) return;
    throw hostFault(error, `unmount ${target}`);
  } finally {
    if (last !== undefined && options.abandon === true) close(last, () => {});
    else if (last !== undefined) await closeDescriptor(last);
  }
}

const closeDescriptor = promisify(close);

/** One line of `/proc/self/mountinfo`. */
export interface Mount {
  readonly id: number;
  readonly parentId: number;
  /** `major:minor`. */
  readonly device: string;
  /** The directory of the file system that is shown. */
  readonly root: string;
  readonly target: string;
  readonly options: string;
  readonly type: string;
  readonly source: string;
  readonly superOptions: string;
}

/** All mounts of this process, in the order in which they were made; given a directory, those on it and beneath it. */
export function listMounts(directory?: string): Mount[] {
  const mounts = parseMounts(readFileSync("/proc/self/mountinfo", "utf8"));
  if (directory === undefined) return mounts;
  const top = withoutLinks(directory);
  const prefix = top === "/" ? "/" : `${top}/`;
  return mounts.filter(({ target }) => target === top || target.startsWith(prefix));
}

/** The mount table knows real paths only; the last part is taken as it is, as nothing is mounted on a link. */
function withoutLinks(path: string): string {
  const absolute = resolve(path);
  try {
    return join(realpathSync(dirname(absolute)), basename(absolute));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return absolute;
    throw hostFault(error, `look for mounts beneath ${path}`);
  }
}

/** Parses mountinfo, in which space, tab, newline and backslash of a path are three octal digits after a backslash. */
export function parseMounts(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    if (line === "") continue;
    // A variable number of optional fields ends with a lone dash.
    const fields = line.split(" ");
    const dash = fields.indexOf("-", 6);
    const [id, parentId, device, root, target, options] = fields;
    const [type, source, superOptions] = fields.slice(dash + 1);
    if (dash < 0 || options === undefined || type === undefined) {
      throw new Fault("corrupt", `read the mount table: not a line of it: ${line}`);
    }
    mounts.push({
      id: Number(id),
      parentId: Number(parentId),
      device: device ?? "",
      root: unescaped(root ?? ""),
      target: unescaped(target ?? ""),
      options,
      type,
      source: unescaped(source ?? ""),
      superOptions: superOptions ?? "",
    });
  }
  return mounts;
}

function unescaped(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** Whether something is mounted exactly at `path`; false when nothing is there. Cheap: does not read the mount table. */
export function isMountPoint(path: string): boolean {
  try {
    return isMountRoot(path);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) return false;
    throw error;
  }
}

/** Attaches a detached mount and closes its descriptor, which ends the mount if attaching failed. */
function attach(fd: number, target: string): void {
  try {
    moveMount(fd, target);
  } finally {
    closeSync(fd);
  }
}
