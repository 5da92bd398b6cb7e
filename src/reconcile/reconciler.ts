import { backgroundCall } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { parseInstanceId, type InstanceId } from "../base/id.ts";
import type { Engine } from "../instance/contract.ts";
import { subjectOf } from "./actor.ts";
import { AddressBook } from "./address-book.ts";
import { Engines } from "./engines.ts";
import { HealthMonitor } from "./health.ts";
import type { Parts } from "./parts.ts";
import type { InstanceRecord, StackRecord } from "./record.ts";
import { RoutingTable } from "./routing.ts";
import { Sight } from "./sight.ts";
import { StackLoop, stepsAtOnce, type Shared } from "./stack-loop.ts";
import { StackState } from "./stack-state.ts";
import { Turnstile } from "./turnstile.ts";

/** The host is looked at afresh this often even when all is quiet: what people change by hand is repaired. */
const resyncMs = 20_000;
/** After a failure, a little later: several failures at once cost one look. */
const suspectMs = 250;
/** Instances that are being stopped at once. */
const exitsAtOnce = 64;

/** All stacks' loops, and the one look at the host that they share. */
export class Reconciler {
  readonly parts: Parts;
  readonly shared: Shared;
  readonly #loops = new Map<string, StackLoop>();
  readonly #stop = new AbortController();
  #revision = 0;
  #cancelLook: (() => void) | undefined;
  #lookMs = Infinity;
  /** One look at a time, that of `start` included: two at once would each miss what changes during the other. */
  #isLooking = true;
  /** Another one fell due meanwhile: what it is for may have come after this one had passed it by. */
  #isLookDue = false;

  constructor(parts: Parts) {
    this.parts = parts;
    const call = backgroundCall(parts.clock, this.#stop.signal);
    const engines = new Engines(parts.engines, call);
    const sight = new Sight({ engines: engines.all(), pool: parts.pool, network: parts.network });
    const engineOf = (id: InstanceId): Engine => {
      const state = this.#loop(id)?.state;
      const section = state?.desiredInstance(id)?.section ?? state?.instance(id)?.section;
      return sight.engineOf(id) ?? engines.of(section?.kind ?? "container");
    };
    this.shared = {
      parts,
      engines,
      engineOf,
      sight,
      book: new AddressBook(parts.store, parts.subnetPool, parts.foreignSubnets),
      routing: new RoutingTable(parts.network, call),
      health: new HealthMonitor(
        engineOf,
        (id) => {
          const loop = this.#loops.get(parseInstanceId(id)?.stack ?? "");
          loop?.healthChanged(id, parts.clock.nowMs());
          this.#revision += 1;
        },
        call,
      ),
      turnstile: new Turnstile(stepsAtOnce),
      exits: new Turnstile(exitsAtOnce),
      tell: (event) => void parts.events.publish(event).catch(() => {}),
      suspect: () => this.#lookAfter(suspectMs),
      changed: () => {
        this.#revision += 1;
      },
      call,
    };
  }

  /** Grows with everything that a view could show. */
  get revision(): number {
    return this.#revision;
  }

  /** Reads records, looks at the host, and begins. Everything that is as it should be is left alone. */
  async start(): Promise<void> {
    const { call, book, engines, sight, routing } = this.shared;
    const { store } = this.parts;
    await book.load(call);
    const [stacks, instances] = await Promise.all([
      store.list<StackRecord>("stack/", call),
      store.list<InstanceRecord>("instance/", call),
    ]);
    const byStack = Map.groupBy(instances, (entry) => parseInstanceId(entry.value.id)?.stack ?? "");
    // Follow before looking: what happens between the two is not missed, and a look that it overtakes is not used.
    for (const engine of engines.all()) void this.#follow(engine);
    await sight.refresh(call);
    if (stacks.length === 0 && instances.length === 0) this.#refuseStrangers();
    for (const entry of stacks) {
      const state = new StackState(entry.value.name, store, entry);
      await state.load(byStack.get(state.name) ?? [], call);
      this.#loops.set(state.name, new StackLoop(this.shared, state));
    }
    for (const name of new Set([...sight.stacks(), ...byStack.keys()])) {
      if (name === "" || this.#loops.has(name)) continue;
      // Nobody remembers this stack: an empty desired state takes it away.
      const state = new StackState(name, store, undefined);
      await state.load(byStack.get(name) ?? [], call);
      this.#loops.set(name, new StackLoop(this.shared, state));
    }
    book.releaseAllBut((id) => sight.instances.has(id) || this.#loop(id)?.state.instance(id) !== undefined);
    // The first write of names and ports holds those of every stack, and takes away what a daemon that died left behind.
    for (const loop of this.#loops.values()) loop.adopt();
    routing.invalidate();
    for (const loop of this.#loops.values()) loop.wake();
    this.#endLook();
  }

  /** Ends the loops. Workloads go on: they do not depend on us. */
  stop(): void {
    this.#cancelLook?.();
    this.#stop.abort(new Fault("unavailable", "the daemon is stopping"));
  }

  loops(): Iterable<StackLoop> {
    return this.#loops.values();
  }

  /** The loop of a stack that exists (or is going away); `not-found` otherwise. */
  loop(stack: string): StackLoop {
    const loop = this.find(stack);
    if (loop !== undefined) return loop;
    const known = [...this.#loops.keys()].join(", ");
    throw new Fault("not-found", `there is no stack ${stack}`, {
      hint: known === "" ? "make one: croft up" : `there is: ${known}`,
    });
  }

  find(stack: string): StackLoop | undefined {
    const loop = this.#loops.get(stack);
    return loop === undefined || loop.erased || loop.state.record === undefined ? undefined : loop;
  }

  /** The loop of a stack, made when it is new. At once: two that ask for the same new stack get the same loop. */
  open(stack: string): StackLoop {
    const known = this.#loops.get(stack);
    if (known !== undefined && !known.erased) return known;
    const state = new StackState(stack, this.parts.store, undefined);
    const loop = new StackLoop(this.shared, state);
    this.#loops.set(stack, loop);
    return loop;
  }

  forget(stack: string): void {
    if (this.#loops.get(stack)?.erased === true) this.#loops.delete(stack);
    this.#revision += 1;
  }

  /**
   * A record is erased after the last thing it stands for. So a store without any, on a host with instances, is not the
   * one that they were made by: it was lost or replaced, and to converge on it would delete all that they wrote.
   */
  #refuseStrangers(): void {
    const { instances, roots } = this.shared.sight;
    const [first] = [...instances.keys(), ...roots.keys()];
    if (first === undefined) return;
    this.stop();
    const count = new Set([...instances.keys(), ...roots.keys()]).size;
    throw new Fault("precondition", `the database is empty, but this host has ${count} instances, such as ${first}`, {
      hint: "put the database croft.db back from a backup; or, to give these instances up, run croftd --teardown and delete pool/roots beside the database (volumes stay)",
    });
  }

  async #follow(engine: Engine): Promise<void> {
    const { call, sight, tell } = this.shared;
    const { clock } = this.parts;
    while (!call.signal.aborted) {
      try {
        for await (const event of engine.watch(call)) {
          const stack = sight.follow(event, engine);
          this.#revision += 1;
          if (event.kind === "exited") {
            this.#loop(event.id)?.exited(event.id, clock.nowMs());
            const how = event.exit.oomKilled ? "was killed: out of memory" : `exited with code ${event.exit.code}`;
            const subject = subjectOf(event.id);
            const kind = event.exit.oomKilled ? "instance.oom-killed" : "instance.exited";
            tell({ kind, subject, message: `${subject} ${how}` });
          } else if (stack !== undefined) {
            if (event.kind === "broken") this.shared.suspect();
            this.#loops.get(stack)?.nudge();
          }
        }
      } catch {
        // Followed again below.
      }
      // The watch ended: what happens before the next one is seen by looking at everything.
      if (!call.signal.aborted) this.shared.suspect();
      await clock.sleep(suspectMs, call.signal).catch(() => {});
    }
  }

  #loop(id: string): StackLoop | undefined {
    return this.#loops.get(parseInstanceId(id)?.stack ?? "");
  }

  #lookAfter(delayMs: number): void {
    const { clock } = this.parts;
    // Many suspicions one after the other must not put the look off for ever.
    const dueMs = clock.monotonicMs() + delayMs;
    if (dueMs >= this.#lookMs) return;
    this.#cancelLook?.();
    this.#lookMs = dueMs;
    this.#cancelLook = clock.after(delayMs, () => {
      this.#lookMs = Infinity;
      if (this.#isLooking) this.#isLookDue = true;
      else void this.#look();
    });
  }

  async #look(): Promise<void> {
    const { call, sight, routing } = this.shared;
    this.#isLooking = true;
    try {
      await sight.refresh(call);
      if (!sight.routingIntact) routing.invalidate();
      for (const [name, loop] of this.#loops) if (loop.erased) this.#loops.delete(name);
      for (const loop of this.#loops.values()) loop.nudge();
      this.#revision += 1;
    } catch {
      // Asked again in a while.
    }
    this.#endLook();
  }

  #endLook(): void {
    this.#isLooking = false;
    if (!this.shared.call.signal.aborted) this.#lookAfter(this.#isLookDue ? suspectMs : resyncMs);
    this.#isLookDue = false;
  }
}
