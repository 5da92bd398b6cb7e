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

/** Lets so many do something at the same time; the others wait in order. */
export class Gate {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(limit: number) {
    this.#free = limit;
  }

  async pass<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      // The place goes straight to the next one, so that nobody can slip in between.
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
