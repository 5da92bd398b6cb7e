import { statSync } from "node:fs";
import { posix } from "node:path";
import { Fault } from "../../base/fault.ts";
import { makeDirBeneath, makeFileBeneath } from "../../host/beneath.ts";
import { hostFault } from "../../host/errno.ts";

/**
 * Where mounts really go. An image, and a workload as root in its own tree, can put links anywhere: a runtime that
 * follows `/data -> /etc` mounts on the host. So every destination is walked here first, beneath the root or beneath the
 * volume it lies in; what is missing is made, and the runtime is given a path in which no link is left.
 */
export interface PlacedMount {
  /** Link-free path inside the container. */
  readonly path: string;
  /** Where further mounts beneath it find their mount points; undefined for an empty tmpfs, which has no links. */
  readonly source?: string;
}

/** File systems of the kernel that every container has. A link in their place is refused; nothing else mounts there. */
export const kernelMounts: readonly string[] = ["/proc", "/sys", "/dev"];

export class MountTree {
  readonly #root: string;
  readonly #placed: PlacedMount[] = [];

  /** `root` is the container's root directory on the host. Makes `/proc`, `/sys` and `/dev` in it. */
  constructor(root: string) {
    this.#root = root;
    for (const path of kernelMounts) {
      const found = makeDirBeneath(root, path).path;
      if (found === path) continue;
      throw new Fault("hostile", `${path} of the image is a link to ${found}`, {
        hint: "such an image tries to trick container runtimes; do not use it",
      });
    }
  }

  /** A directory from the host, or one file: `kind` is what the source is. */
  addBind(source: string, destination: string): PlacedMount & { readonly kind: "directory" | "file" } {
    const kind = kindOf(source);
    const placed = { path: this.#resolve(destination, kind), source, kind };
    this.#placed.push(placed);
    return placed;
  }

  addTmpfs(destination: string): PlacedMount {
    const placed = { path: this.#resolve(destination, "directory") };
    this.#placed.push(placed);
    return placed;
  }

  /** The working directory, made when it is missing. Never in proc: its links lead to the host (CVE-2024-21626). */
  workdir(path: string): string {
    return this.#resolve(path, "directory", true);
  }

  /** Walks on until it stays within one tree: a link of the root may lead into a volume mounted in it. */
  #resolve(destination: string, kind: "directory" | "file", isWorkdir = false): string {
    let path = posix.normalize(posix.join("/", destination));
    if (path === "/" && !isWorkdir) {
      throw new Fault("invalid", `mount on ${destination}: the root is the image's`, { hint: "choose a path in it" });
    }
    // Each turn enters a mount that comes later in the list or ends; a chain longer than this is a loop.
    for (let turn = 0; turn < 40; turn += 1) {
      refuseKernelPath(path, destination);
      const cover = this.#covering(path);
      const inner = cover === undefined ? path : path.slice(cover.path.length) || "/";
      const tree = cover === undefined ? this.#root : cover.source;
      // A fresh tmpfs is empty; the runtime makes the way in it.
      if (tree === undefined) return path;
      const made = makeIn(tree, inner, kind, destination);
      const next = cover === undefined ? made : posix.join(cover.path, made);
      if (this.#covering(next) === cover) {
        refuseKernelPath(next, destination);
        return next.length > 1 ? next.replace(/\/+$/, "") : next;
      }
      path = next;
    }
    throw new Fault("hostile", `${destination}: links lead from mount to mount without end`);
  }

  /** The innermost mount placed so far that `path` lies in. */
  #covering(path: string): PlacedMount | undefined {
    return this.#placed.findLast((mount) => path === mount.path || path.startsWith(`${mount.path}/`));
  }
}

function makeIn(tree: string, path: string, kind: "directory" | "file", destination: string): string {
  try {
    return kind === "directory" ? makeDirBeneath(tree, path).path : makeFileBeneath(tree, path).path;
  } catch (error) {
    const fault = hostFault(error, `make the mount point ${destination}`);
    const wrongKind = fault.reason === "precondition";
    if (!wrongKind) throw fault;
    throw new Fault("invalid", `mount on ${destination}: ${fault.message}`, {
      hint: `mount a ${kind} on a ${kind}`,
      cause: fault,
    });
  }
}

function refuseKernelPath(path: string, destination: string): void {
  const inside = kernelMounts.find((kernel) => path === kernel || path.startsWith(`${kernel}/`));
  if (inside === undefined || path === "/dev/shm") return;
  const how = path === destination ? "" : `, a link to ${path},`;
  throw new Fault(path === destination ? "invalid" : "hostile", `${destination}${how} lies in ${inside}`, {
    hint: `${inside} belongs to the kernel; choose another path`,
  });
}

function kindOf(source: string): "directory" | "file" {
  try {
    return statSync(source).isDirectory() ? "directory" : "file";
  } catch (error) {
    const fault = hostFault(error, `mount ${source} of the host`);
    if (fault.reason !== "not-found") throw fault;
    throw new Fault("invalid", fault.message, { hint: "make it first, or name a volume instead", cause: error });
  }
}
