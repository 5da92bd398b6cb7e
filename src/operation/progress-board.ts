import type { Progress } from "../base/call.ts";

/** Beyond this many topics the oldest are dropped: enough for a stack of thousands, and bounded. */
const topicLimit = 4096;

/** The latest line of each topic, and which of them changed since somebody last looked. Nothing here is durable. */
export class ProgressBoard {
  readonly #lines = new Map<string, { readonly progress: Progress; readonly version: number }>();
  #version = 0;

  /** Grows with each report. */
  get version(): number {
    return this.#version;
  }

  report(progress: Progress): void {
    this.#version += 1;
    this.#lines.set(progress.topic, { progress, version: this.#version });
    if (this.#lines.size <= topicLimit) return;
    const [oldest] = this.#lines.keys();
    if (oldest !== undefined) this.#lines.delete(oldest);
  }

  /** The lines reported after `version`, in the order in which their topics first appeared. */
  since(version: number): readonly Progress[] {
    const lines: Progress[] = [];
    for (const line of this.#lines.values()) if (line.version > version) lines.push(line.progress);
    return lines;
  }
}
