import { type FSWatcher, mkdirSync, watch } from "node:fs";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { hostFault } from "../../host/errno.ts";
import { Bell } from "./bell.ts";

/**
 * Tells at once when conmon leaves an exit code, by one inotify watch on the directory of exit files, which exists while
 * anybody waits.
 */
export class ExitWatch {
  readonly #directory: string;
  readonly #listeners = new Set<(name: string) => void>();
  #watcher: FSWatcher | undefined;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Calls `listener` with the name of each file that appears or goes, until the returned function is called. */
  listen(listener: (name: string) => void): () => void {
    this.#listeners.add(listener);
    this.#watcher ??= this.#open();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      this.#watcher?.close();
      this.#watcher = undefined;
    };
  }

  /** Wakes who waits for `name`, for a change that leaves no exit file. */
  notify(name: string): void {
    for (const listener of this.#listeners) listener(name);
  }

  /**
   * Resolves true when `done` says so, which is asked now, whenever a file called `name` appears, and every `tickMs` (for
   * what leaves no file: a monitor that was killed). False after `limitMs`. Rejects when the call is cancelled.
   */
  async until(name: string, done: () => boolean, limitMs: number, call: Call): Promise<boolean> {
    const tickMs = 200;
    const deadlineMs = call.clock.monotonicMs() + limitMs;
    const bell = new Bell();
    const stopListening = this.listen((appeared) => {
      if (appeared === name) bell.ring();
    });
    const onAbort = (): void => bell.ring();
    call.signal.addEventListener("abort", onAbort, { once: true });
    try {
      for (;;) {
        throwIfCancelled(call);
        if (done()) return true;
        const restMs = deadlineMs - call.clock.monotonicMs();
        if (restMs <= 0) return false;
        await bell.heardWithin(Math.min(tickMs, restMs), call.clock);
      }
    } finally {
      call.signal.removeEventListener("abort", onAbort);
      stopListening();
    }
  }

  #open(): FSWatcher {
    try {
      mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
      const watcher = watch(this.#directory, (kind, name) => {
        if (kind !== "rename" || name === null) return;
        this.notify(name);
      });
      watcher.on("error", () => {});
      return watcher;
    } catch (error) {
      throw hostFault(error, `watch ${this.#directory}`);
    }
  }
}
