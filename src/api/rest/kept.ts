import type { DescMethod } from "@bufbuild/protobuf";
import type { Served } from "../handler.ts";

/** Enough for a dashboard and a few scripts that each ask with a query of their own. */
const maxKept = 64;

/**
 * Encoded answers of methods that have a revision, by URL. A list that is asked for many times a second is encoded once
 * for each change of it.
 */
export class Kept {
  readonly #revisions = new Map<DescMethod, () => number>();
  readonly #answers = new Map<string, { revision: number; current: () => number; body: Uint8Array }>();

  constructor(services: readonly Served[]) {
    for (const { service, revisions } of services) {
      for (const method of service.methods) {
        const revision = revisions[method.localName];
        if (revision !== undefined) this.#revisions.set(method, revision);
      }
    }
  }

  /** The answer to this URL, while it is still what the handler would say. */
  find(url: string): Uint8Array | undefined {
    const answer = this.#answers.get(url);
    return answer !== undefined && answer.revision === answer.current() ? answer.body : undefined;
  }

  /** Ask before calling the handler: a change meanwhile then makes the answer old, never wrong. */
  revision(method: DescMethod): number | undefined {
    return this.#revisions.get(method)?.();
  }

  keep(url: string, method: DescMethod, revision: number, body: string): void {
    const current = this.#revisions.get(method);
    if (current === undefined) return;
    if (this.#answers.size >= maxKept) this.#answers.clear();
    this.#answers.set(url, { revision, current, body: Buffer.from(body) });
  }
}
