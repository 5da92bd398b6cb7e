import type { InstanceId } from "../../base/id.ts";

/** Lets what changes one instance happen one after the other; different instances do not wait for each other. */
export class Turns {
  readonly #last = new Map<InstanceId, Promise<unknown>>();

  async take<Result>(id: InstanceId, work: () => Promise<Result>): Promise<Result> {
    const before = this.#last.get(id) ?? Promise.resolve();
    const mine = before.then(work, work);
    // Whoever comes next waits for the end, however it ends; who asked gets the failure.
    const ended = mine.catch(() => {});
    this.#last.set(id, ended);
    try {
      return await mine;
    } finally {
      if (this.#last.get(id) === ended) this.#last.delete(id);
    }
  }

  /** Resolves when nobody changes it. */
  async idle(id: InstanceId): Promise<void> {
    await this.#last.get(id);
  }
}
