import { type FSWatcher, rmSync, watch } from "node:fs";
import { join } from "node:path";
import type { InstanceId } from "../../base/id.ts";
import { errnoOf, hostFault } from "../../host/errno.ts";
import type { Layout } from "./layout.ts";

/**
 * Tells when the kernel killed a process of an instance for want of memory, also when the main process goes on. conmon
 * is told by the kernel and leaves an empty file called `oom` in the bundle.
 */
export class OomWatch {
  readonly #layout: Layout;
  readonly #onKill: (id: InstanceId) => void;
  readonly #watchers = new Map<InstanceId, FSWatcher>();

  constructor(layout: Layout, onKill: (id: InstanceId) => void) {
    this.#layout = layout;
    this.#onKill = onKill;
  }

  /** Also again, after a restart: each run has a directory of its own. */
  add(id: InstanceId): void {
    this.drop(id);
    const { bundleDir } = this.#layout.of(id);
    try {
      const watcher = watch(bundleDir, (kind, name) => {
        if (kind !== "rename" || name !== "oom" || !this.#take(join(bundleDir, name))) return;
        this.#onKill(id);
      });
      watcher.on("error", () => this.drop(id));
      this.#watchers.set(id, watcher);
    } catch (error) {
      // It ended and was cleared away before we came.
      if (errnoOf(error) !== "ENOENT") throw hostFault(error, `watch ${bundleDir}`);
    }
  }

  drop(id: InstanceId): void {
    this.#watchers.get(id)?.close();
    this.#watchers.delete(id);
  }

  close(): void {
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  /** Taken away so that the next kill makes it anew. False when somebody did that already. */
  #take(path: string): boolean {
    try {
      rmSync(path);
      return true;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return false;
      throw hostFault(error, `remove ${path}`);
    }
  }
}
