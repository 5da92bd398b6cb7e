import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { hostFault } from "../../../host/errno.ts";
import { run } from "../../../host/process.ts";
import type { AttachedDisk } from "../../../storage/contract.ts";
import type { MachineDisk } from "../../contract.ts";
import { parseQcow2, qcow2HeadBytes } from "../../../base/qcow2.ts";

/** An open file of a disk; the caller closes it. */
export interface OpenFile {
  readonly fd: number;
  readonly format: "qcow2" | "raw";
}

/**
 * Opens the files of a disk, nearest first, and holds what they say of each other against what the pool says: an image
 * that names another file than that is `hostile`, a truncated or mutilated one `corrupt`. On failure nothing stays open.
 */
export function openChain({ name, disk, readOnly, cdrom }: MachineDisk): readonly OpenFile[] {
  const files: OpenFile[] = [];
  const paths = [disk.path, ...disk.backing];
  let format: string = disk.format;
  try {
    for (const [index, path] of paths.entries()) {
      const what = index === 0 ? `disk ${name}` : `disk ${name}, backing file ${path}`;
      const writes = index === 0 && !readOnly && !cdrom;
      const fd = open(path, writes, what);
      const next = inspect(fd, path, format, paths[index + 1], what);
      files.push({ fd, format: format === "qcow2" ? "qcow2" : "raw" });
      format = next;
    }
    return files;
  } catch (error) {
    closeAll(files);
    throw error;
  }
}

export function closeAll(files: readonly { readonly fd: number }[]): void {
  for (const { fd } of files) closeSync(fd);
}

/** Opened by us, so QEMU's user needs no right to it. Not a link: the pool hands over files. */
function open(path: string, writes: boolean, what: string): number {
  try {
    const flags = writes ? constants.O_RDWR : constants.O_RDONLY;
    const fd = openSync(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const facts = fstatSync(fd);
    if (facts.isFile() || facts.isBlockDevice()) return fd;
    closeSync(fd);
    throw new Fault("invalid", `${what}: ${path} is no file`);
  } catch (error) {
    throw hostFault(error, `open ${what}: ${path}`);
  }
}

/** The format of the next file of the chain. Closes `fd` when it throws. */
function inspect(fd: number, path: string, format: string, backing: string | undefined, what: string): string {
  try {
    if (format === "raw") {
      if (backing !== undefined)
        throw new Fault("corrupt", `${what}: a raw file has no backing file, but ${backing} is said to be it`);
      return "raw";
    }
    if (format !== "qcow2")
      throw new Fault("unsupported", `${what}: its format is ${format}`, { hint: "disks are qcow2 or raw" });
    const head = Buffer.alloc(qcow2HeadBytes);
    const sizeBytes = readSync(fd, head, 0, qcow2HeadBytes, 0);
    const facts = fstatSync(fd);
    const header = parseQcow2(head.subarray(0, sizeBytes), facts.isFile() ? facts.size : Number.MAX_SAFE_INTEGER, what);
    const named = header.backing;
    if (named === undefined && backing === undefined) return "raw";
    if (named === undefined)
      throw new Fault("corrupt", `${what}: it has no backing file, but ${backing} is said to be it`);
    if (backing === undefined || resolve(dirname(path), named.file) !== resolve(backing)) {
      throw new Fault(
        "hostile",
        `${what}: its backing file is ${JSON.stringify(named.file)}, which is not the pool's`,
        {
          hint: "an image may not name files of this machine; flatten it where it comes from: qemu-img convert",
        },
      );
    }
    if (named.format === undefined)
      throw new Fault("corrupt", `${what}: it does not say which format its backing file has`);
    return named.format;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Looks through all tables of a qcow2 file of its own, for references beyond its end for example: `corrupt`. */
export async function checkDisk(name: string, disk: AttachedDisk, call: Call): Promise<void> {
  if (disk.format !== "qcow2") return;
  const argv = ["qemu-img", "check", "--output=json", "-f", "qcow2", "--force-share", disk.path];
  const options = { attempted: `check disk ${name}`, okCodes: [0, 1, 2, 3], timeoutMs: 60_000, endsWithUs: true };
  const { code, stdout, stderr } = await run(argv, options, call);
  // Leaked clusters, code 3, cost space and nothing else.
  if (code === 0 || code === 3) return;
  if (code === 1)
    throw new Fault("corrupt", `check disk ${name}: ${stderr.trim().split("\n").at(-1) ?? "it cannot be read"}`);
  const found = JSON.parse(stdout) as { corruptions?: number; "check-errors"?: number };
  throw new Fault(
    "corrupt",
    `disk ${name} is damaged: ${found.corruptions ?? found["check-errors"] ?? "some"} errors in its tables`,
    {
      hint: "it was truncated or written to by something else; restore it from a snapshot or a backup",
    },
  );
}
