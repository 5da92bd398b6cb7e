import { hostFault } from "../../host/errno.ts";

/** Several may ask for one thing at once; they take turns. */
export class Turns<Id> {
  readonly #last = new Map<Id, Promise<void>>();

  /** Runs `work` once all that was asked for before on `id` is done; its errors say what was attempted. */
  async run<Result>(id: Id, attempted: string, work: () => Promise<Result>): Promise<Result> {
    const before = this.#last.get(id);
    const { promise, resolve } = Promise.withResolvers<void>();
    const mine = before === undefined ? promise : before.then(() => promise);
    this.#last.set(id, mine);
    try {
      if (before !== undefined) await before;
      return await work();
    } catch (error) {
      throw hostFault(error, attempted);
    } finally {
      resolve();
      if (this.#last.get(id) === mine) this.#last.delete(id);
    }
  }
}
