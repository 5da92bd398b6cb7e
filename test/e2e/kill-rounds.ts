import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { TestDaemon } from "./daemon.ts";

/** A stack that daemons are killed over. */
export interface Victim {
  readonly stack: string;
  /** Files of two generations, of which the first is there when the rounds begin. */
  readonly one: string;
  readonly two: string;
  readonly instances: number;
  /** Ids of instances that both generations have the same. */
  readonly lasting: RegExp;
  /** A file in a volume, to which each start of one instance adds a line. */
  readonly lines: { readonly volume: string; readonly file: string };
  /** The longest that an order runs before the daemon is killed; that of `down` in place of it. */
  readonly longestMs: { readonly change: number; readonly down: number };
  readonly convergeLimitMs: number;
  /** Throws when the host holds more or less than what this many instances of the stack take; at most once per 50 ms. */
  leaks(count: number): void;
  /** Throws when one that lasts is not what it was; asked after each round but those of `down`. */
  same?(): Promise<void>;
}

export interface Rounds {
  readonly count: number;
  readonly seed: number;
  onProgress(text: string): void;
}

/** What must stay the same while nothing asks for a change, by the id of the instance. */
type Seen = ReadonlyMap<string, { readonly pid: number | undefined; readonly started: string | undefined }>;

/**
 * `kill -9` of the daemon at random moments during up, update, rollback and down. After each restart it must converge; what
 * needed no change must be the same process; nothing may be left over and nothing lost.
 */
export async function killInRounds(daemon: TestDaemon, victim: Victim, rounds: Rounds): Promise<void> {
  const killing = new Killing(daemon, victim, rounds);
  for (let round = 1; round <= rounds.count; round += 1) {
    await killing.round(round);
    if (round % 10 === 0) rounds.onProgress(`${round} rounds`);
  }
}

class Killing {
  readonly #daemon: TestDaemon;
  readonly #victim: Victim;
  readonly #seed: number;
  readonly #random: () => number;
  #lines: number;

  constructor(daemon: TestDaemon, victim: Victim, { seed }: Rounds) {
    this.#daemon = daemon;
    this.#victim = victim;
    this.#seed = seed;
    this.#random = generator(seed);
    this.#lines = this.#dataLines();
  }

  async round(round: number): Promise<void> {
    const { lasting, longestMs } = this.#victim;
    const before = await this.#seen();
    const verb = this.#pick(["up one", "up two", "up one", "up two", "rollback", "nothing", "down"]);
    const delayMs = Math.floor(this.#random() * (verb === "down" ? longestMs.down : longestMs.change));
    const what = `round ${round}: ${verb}, killed after ${delayMs} ms (seed ${this.#seed})`;
    const done = this.#command(verb);
    await sleep(delayMs);
    await this.#daemon.kill9();
    await this.#daemon.start();
    // The command line follows through a restart: it ends when what it asked for has ended.
    await done;
    const now = await this.#converged(what);
    if (verb !== "down") {
      for (const [id, was] of before) {
        const is = now.get(id);
        if (is !== undefined) assert.deepEqual(is, was, `${what}: ${id} was touched`);
        else assert.doesNotMatch(id, lasting, `${what}: ${id} is gone`);
      }
      await this.#victim.same?.();
    }
    await this.#withoutLeaks(what, now.size);
    const lines = now.size === 0 ? this.#lines : this.#dataLines();
    assert.ok(lines >= this.#lines, `${what}: the volume lost data`);
    this.#lines = lines;
    if (now.size === 0) {
      const { code, stderr } = await this.#daemon.croft(["up", this.#victim.one, "--yes"]);
      assert.equal(code, 0, `${what}: ${stderr}`);
    }
  }

  #command(verb: string): Promise<unknown> {
    const { one, two, stack } = this.#victim;
    switch (verb) {
      case "up one":
        return this.#daemon.croft(["up", one, "--yes"]);
      case "up two":
        return this.#daemon.croft(["up", two, "--yes"]);
      case "rollback":
        return this.#daemon.croft(["rollback", stack, "--yes"]);
      case "down":
        return this.#daemon.croft(["down", stack, "--yes"]);
      default:
        return Promise.resolve();
    }
  }

  async #seen(): Promise<Seen> {
    const { instances } = await this.#daemon.client.instances.list({ stack: this.#victim.stack });
    return new Map(instances.map(({ id, pid, started }) => [id, { pid, started }]));
  }

  /** Resolves when the stack is whole (healthy, all of it running) or wholly gone. */
  async #converged(what: string): Promise<Seen> {
    const { stack: name, instances: count, convergeLimitMs } = this.#victim;
    const untilMs = Date.now() + convergeLimitMs;
    for (;;) {
      const { stacks } = await this.#daemon.client.stacks.list();
      const stack = stacks.find((one) => one.name === name);
      const known = await this.#seen();
      if (stack === undefined && known.size === 0) return known;
      if (stack?.status === "healthy" && stack.instancesRunning === count && known.size === count) return known;
      if (Date.now() > untilMs) {
        const { instances: shown } = await this.#daemon.client.instances.list({ stack: name, all: true });
        assert.fail(`${what}: not converged: ${JSON.stringify({ stack, shown })}\n${this.#daemon.log().slice(-2000)}`);
      }
      await sleep(50);
    }
  }

  /** What has converged is looked at once more when it is not clean: the last of it may be on its way out. */
  async #withoutLeaks(what: string, count: number): Promise<void> {
    const untilMs = Date.now() + this.#victim.convergeLimitMs;
    for (;;) {
      try {
        return this.#victim.leaks(count);
      } catch (thrown) {
        if (Date.now() > untilMs)
          throw new Error(`${what}: more or less on the host than that takes`, { cause: thrown });
      }
      await sleep(50);
    }
  }

  #dataLines(): number {
    const { volume, file } = this.#victim.lines;
    return readFileSync(join(this.#daemon.libDir, "pool", "volumes", volume, "data", file), "utf8").split("\n").length;
  }

  #pick<Value>(from: readonly [Value, ...Value[]]): Value {
    return from[Math.floor(this.#random() * from.length)] ?? from[0];
  }
}

/** mulberry32: small, seeded, good enough to choose moments. */
function generator(from: number): () => number {
  let state = from;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
