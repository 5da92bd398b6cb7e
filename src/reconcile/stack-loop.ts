import type { Call, Progress } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { InstanceId } from "../base/id.ts";
import { plan } from "../stack/plan/plan.ts";
import type { Observed, Plan, Step } from "../stack/plan/step.ts";
import { Actor, subjectOf } from "./actor.ts";
import type { AddressBook } from "./address-book.ts";
import { Backoff, restartBackoff, stepBackoff } from "./backoff.ts";
import { Gate } from "./gate.ts";
import type { HealthMonitor } from "./health.ts";
import { observe } from "./observe.ts";
import { removing } from "./record.ts";
import type { Parts } from "./parts.ts";
import { routeOf } from "./route.ts";
import type { RoutingTable } from "./routing.ts";
import type { Sight } from "./sight.ts";
import type { StackState } from "./stack-state.ts";
import type { Turnstile } from "./turnstile.ts";

/** What all stacks' loops share. */
export interface Shared {
  readonly parts: Parts;
  readonly sight: Sight;
  readonly book: AddressBook;
  readonly routing: RoutingTable;
  readonly health: HealthMonitor;
  /** How many steps may be under way at once on this host. */
  readonly turnstile: Turnstile;
  /** Asks for a fresh look at the host soon: something failed, so what is known may be wrong. */
  readonly suspect: () => void;
  /** Something that a view shows has changed. */
  readonly changed: () => void;
  readonly call: Call;
}

/**
 * The loop of one stack: observe, plan, act, until the plan is empty; then sleep until something happens.
 *
 * It plans anew whenever it is woken, also while steps are under way: those are left to finish, and nothing else is begun
 * on the same thing meanwhile. A step that fails waits before it is tried again; the rest goes on without it.
 */
export class StackLoop {
  readonly state: StackState;
  readonly #shared: Shared;
  readonly #actor: Actor;
  readonly #gate: Gate;
  readonly #restarts = new Backoff<InstanceId>(restartBackoff);
  readonly #failures = new Backoff<string>(stepBackoff);
  /** Why a thing's last step failed, by its key; shown by `ps` and by a gate that closes. */
  readonly #reasons = new Map<string, Fault>();
  /** Step key → what it works on. */
  readonly #underWay = new Map<string, string>();
  readonly #listeners = new Set<(progress: Progress) => void>();
  readonly #waiting = new Set<() => void>();
  /** The plan being carried out, and what of it is done. Undefined: plan anew. */
  #plan: { readonly plan: Plan; readonly done: Set<string> } | undefined;
  #ticking = false;
  #wanted = false;
  #cancelTimer: (() => void) | undefined;
  /** True when the last plan was empty and everything it led to has reached the host. */
  #calm = false;
  #erased = false;

  constructor(shared: Shared, state: StackState) {
    this.#shared = shared;
    this.state = state;
    this.#actor = new Actor(shared.parts, shared, state);
    this.#gate = new Gate(state);
  }

  get calm(): boolean {
    return this.#calm;
  }

  get erased(): boolean {
    return this.#erased;
  }

  /** Something changed: plan anew. Cheap; many wakes before the next turn are one. */
  wake(): void {
    this.#plan = undefined;
    this.#calm = false;
    if (this.#wanted || this.#erased) return;
    this.#wanted = true;
    queueMicrotask(() => {
      this.#wanted = false;
      void this.#tick();
    });
  }

  /** Progress of this stack's instances, as it happens, until the returned function is called. */
  listen(listener: (progress: Progress) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when `done` says so; it is asked after every turn of the loop. */
  async until<Value>(done: () => Value | undefined, call: Call): Promise<Value> {
    for (;;) {
      const value = done();
      if (value !== undefined) return value;
      await this.#turn(call.signal);
    }
  }

  /** Why the last step about this instance failed, or what its health check says. */
  messageOf(id: InstanceId): string {
    const failed = [...instanceSteps]
      .map((kind) => this.#reasons.get(`${kind} ${id}`))
      .find((fault) => fault !== undefined);
    return failed?.message ?? this.#shared.health.health(id).message;
  }

  /** The step that failed first among those that fail now. */
  failure(): Fault | undefined {
    return this.#reasons.values().next().value;
  }

  /** An instance exited: its next start may have to wait. */
  exited(id: InstanceId, nowMs: number): void {
    const facts = this.#shared.sight.instances.get(id);
    const ranMs = facts?.startedMs === undefined ? 0 : nowMs - facts.startedMs;
    if (ranMs >= restartBackoff.forgivenAfterMs) this.#restarts.forget(id);
    this.#restarts.failed(id, nowMs);
    this.#shared.health.forget(id);
    this.#shared.routing.drop(id);
    this.#report(id, facts?.exit === undefined ? "exited" : `exited with code ${facts.exit.code}`);
    this.wake();
  }

  /** The health check of an instance changed its mind. */
  healthChanged(id: InstanceId, nowMs: number): void {
    const { health } = this.#shared.health.health(id);
    if (health === "unhealthy") this.#restarts.failed(id, nowMs);
    this.#report(id, health);
    this.wake();
  }

  /** The next start of an instance waits for nothing: somebody asked for it. */
  forgive(id: InstanceId): void {
    this.#restarts.forget(id);
    for (const kind of instanceSteps) this.#forgiveStep(`${kind} ${id}`);
  }

  /** The next stop of an instance waits this long, whatever its section says. */
  graceOf(id: InstanceId, graceMs: number): void {
    this.#actor.graces.set(id, graceMs);
  }

  /** Calls `hook` once, when the instance is prepared and before it is started. */
  beforeStart(id: InstanceId, hook: () => Promise<void>): void {
    this.#actor.beforeStart.set(id, hook);
  }

  /** A new generation: failures of the one before say nothing about this one. */
  beginGate(): void {
    this.#gate.begin();
    for (const key of this.#reasons.keys()) this.#forgiveStep(key);
  }

  observed(): Observed {
    return observe(this.state, this.#shared, (id) => this.#restarts.retryMs(id));
  }

  async #tick(): Promise<void> {
    if (this.#ticking) return;
    this.#ticking = true;
    try {
      while (this.#plan === undefined && !this.#shared.call.signal.aborted && !this.#erased) await this.#pass();
    } catch (thrown) {
      // Records could not be written (a full disk) or a bug: nothing is lost, the next turn tries again.
      this.#failed("reconcile", Fault.from(thrown, `reconcile ${this.state.name}`));
      this.#sleepUntil(this.#failures.retryMs("reconcile") ?? 0);
    } finally {
      this.#ticking = false;
      this.#shared.changed();
      for (const wake of this.#waiting) wake();
    }
  }

  async #pass(): Promise<void> {
    const { clock } = this.#shared.call;
    await this.#removeFinishedRun();
    this.#probe();
    const observed = this.observed();
    const planned = plan(this.state.desired(), observed, { removeVolumes: this.state.record?.pruneVolumes ?? false });
    this.#plan = { plan: planned, done: new Set() };
    this.#route(observed);
    // Whoever is started because another is ready finds it by name at once. Costs nothing when nothing changed.
    await this.#flushRouting();
    if (this.#plan?.plan !== planned) return;
    const nextMs = this.#launchReady(clock.nowMs());
    const gateMs = await this.#judge(planned, observed);
    if (this.#plan === undefined) return;
    if (planned.steps.length === 0 && this.#underWay.size === 0) await this.#settle();
    this.#sleepUntil(Math.min(nextMs, gateMs));
  }

  /** `croft run --rm`: what has run is taken away, by the same loop with nothing desired. */
  async #removeFinishedRun(): Promise<void> {
    const { record } = this.state;
    if (record?.removeOnExit !== true || record.status !== "live") return;
    const { sight, call } = this.#shared;
    const ended = this.state.desired().instances.every(({ id }) => sight.instances.get(id)?.status === "exited");
    if (!ended) return;
    await this.state.change((known) => removing(known ?? record, true, call.clock.nowMs()), call);
  }

  /** Begins every step whose turn it is. Returns when the next one that only waits for time may begin. */
  #launchReady(nowMs: number): number {
    let nextMs = Infinity;
    if (this.#plan === undefined) return nextMs;
    const { plan: planned, done } = this.#plan;
    const busy = new Set(this.#underWay.values());
    const open = new Set<string>();
    for (const step of planned.steps) if (!done.has(step.key)) open.add(step.key);
    for (const step of planned.steps) {
      if (!open.has(step.key) || step.action.kind === "await-healthy") continue;
      if (step.after.some((key) => open.has(key))) continue;
      const subject = subjectOfStep(step);
      if (busy.has(subject)) continue;
      const notBeforeMs = Math.max(step.notBeforeMs ?? 0, this.#failures.retryMs(step.key) ?? 0);
      if (notBeforeMs > nowMs) {
        nextMs = Math.min(nextMs, notBeforeMs);
        continue;
      }
      busy.add(subject);
      void this.#carryOut(step, subject);
    }
    return nextMs;
  }

  async #carryOut(step: Step, subject: string): Promise<void> {
    const { call, turnstile } = this.#shared;
    const carried = this.#plan;
    this.#underWay.set(step.key, subject);
    this.#noteAttempt(step);
    try {
      await turnstile.pass(() => this.#actor.act(step.action, call));
      this.#forgiveStep(step.key);
      carried?.done.add(step.key);
    } catch (thrown) {
      const fault = Fault.from(thrown, step.key);
      if (fault.reason !== "cancelled") this.#failed(step.key, fault);
      if (carried !== undefined && this.#plan === carried) this.#plan = undefined;
    } finally {
      this.#underWay.delete(step.key);
      this.#reportStep(step);
    }
    // Steps of the same plan that waited for this one go at once; when there is none left, look and plan again.
    if (this.#plan !== undefined && this.#plan === carried) {
      this.#launchReady(call.clock.nowMs());
      if (this.#underWay.size > 0) return;
    }
    this.wake();
  }

  #noteAttempt(step: Step): void {
    if (!("instance" in step.action)) return;
    const nowMs = this.#shared.call.clock.nowMs();
    if (step.action.kind === "create-instance") this.#gate.attempted(step.action.instance, nowMs);
    if (step.action.kind === "start-instance") this.#gate.started(step.action.instance, nowMs);
    const doing = doingWords[step.action.kind];
    if (doing !== undefined) this.#report(step.action.instance, doing);
  }

  #reportStep({ action }: Step): void {
    if (!("instance" in action) || this.#reasons.has(`${action.kind} ${action.instance}`)) return;
    const done = doneWords[action.kind];
    if (done !== undefined) this.#report(action.instance, done);
  }

  #failed(key: string, fault: Fault): void {
    const { call, suspect, parts } = this.#shared;
    const known = this.#reasons.get(key);
    this.#reasons.set(key, fault);
    this.#failures.failed(key, call.clock.nowMs());
    suspect();
    // The same failure again and again is one event.
    if (known?.message === fault.message) return;
    void parts.events
      .publish({
        kind: "step.failed",
        subject: this.state.name,
        message: `${key}: ${fault.message}`,
        detail: { reason: fault.reason },
      })
      .catch(() => {});
  }

  #forgiveStep(key: string): void {
    this.#reasons.delete(key);
    this.#failures.forget(key);
  }

  /** Probes follow what runs and has a check. Before observing: a check that changed has said nothing yet. */
  #probe(): void {
    const { health, sight, book } = this.#shared;
    for (const id of sight.ofStack(this.state.name)) {
      const facts = sight.instances.get(id);
      const section = this.state.desiredInstance(id)?.section ?? this.state.instance(id)?.section;
      if (facts?.status !== "running" || facts.startedMs === undefined || section?.health === undefined) {
        health.forget(id);
        continue;
      }
      const address = routeOf(this.state.name, id, section, book, () => false).names[0]?.address;
      health.follow({ id, address, startedMs: facts.startedMs, section: section.health });
    }
  }

  /** Names and ports lead to what is running and not known to be sick. */
  #route(observed: Observed): void {
    const { routing, sight, book } = this.#shared;
    for (const { id, health, section: applied } of observed.instances) {
      const section = this.state.desiredInstance(id)?.section ?? applied;
      const ready = sight.instances.get(id)?.status === "running" && (health === "none" || health === "healthy");
      if (section === undefined || !ready) routing.drop(id);
      else routing.set(routeOf(this.state.name, id, section, book, (name) => this.#isInternal(name)));
    }
  }

  #isInternal(network: string): boolean {
    return this.state.current?.generation.spec.networks[network]?.internal ?? false;
  }

  async #judge(planned: Plan, observed: Observed): Promise<number> {
    const record = this.state.record;
    if (record?.status !== "applying") return Infinity;
    const { call, parts, routing, sight } = this.#shared;
    const outcome = this.#gate.judge({
      observed,
      planned,
      startedMs: (id) => sight.instances.get(id)?.startedMs,
      message: (id) => this.messageOf(id),
      failures: this.#reasons,
      refusal: (holder) => routing.refusal(holder),
      nowMs: call.clock.nowMs(),
    });
    if (outcome.kind === "waiting") return outcome.untilMs;
    if (outcome.kind === "open") {
      await this.#flushRouting();
      // A port may turn out to be held only now.
      const refused = this.#gate.refusedPort((holder) => routing.refusal(holder));
      if (refused === undefined) await this.#gate.pass(parts, call);
      else await this.#gate.close(refused, parts, call);
    } else {
      await this.#gate.close(outcome.failure, parts, call);
    }
    this.#plan = undefined;
    return Infinity;
  }

  /** Nothing left to do: what was removed can be forgotten, what runs is reachable. */
  async #settle(): Promise<void> {
    const { call, parts } = this.#shared;
    await this.#flushRouting();
    const record = this.state.record;
    if (record?.status === "removing") {
      if (record.removal?.volumes === true || record.origin === "run") {
        for (const { name } of await parts.secrets.list(this.state.name, call)) {
          await parts.secrets.remove(this.state.name, name, call);
        }
        await this.state.erase(call);
        this.#erased = true;
      } else {
        await this.state.change((current) => ({ ...(current ?? record), status: "down", stopped: [] }), call);
      }
      void parts.events.publish({
        kind: "stack.removed",
        subject: this.state.name,
        message: `${this.state.name} was removed`,
      });
    } else if (record === undefined) {
      // Leftovers of a stack that nobody remembers are gone now.
      this.#erased = true;
    }
    this.#calm = true;
  }

  async #flushRouting(): Promise<void> {
    try {
      await this.#shared.routing.flush();
      this.#forgiveStep("publish");
    } catch (thrown) {
      this.#failed("publish", Fault.from(thrown, "publish names and ports"));
    }
  }

  #sleepUntil(untilMs: number): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (untilMs === Infinity) return;
    const { clock } = this.#shared.call;
    this.#cancelTimer = clock.after(Math.max(1, untilMs - clock.nowMs()), () => this.wake());
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(cancelledBy(signal));
      const wake = (): void => {
        this.#waiting.delete(wake);
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const onAbort = (): void => {
        this.#waiting.delete(wake);
        reject(cancelledBy(signal));
      };
      this.#waiting.add(wake);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  #report(id: InstanceId, state: string): void {
    for (const listener of this.#listeners) listener({ topic: subjectOf(id), state });
  }
}

const instanceSteps = [
  "create-instance",
  "start-instance",
  "update-instance",
  "repair-instance",
  "stop-instance",
  "remove-instance",
] as const;

const doingWords: Readonly<Partial<Record<Step["action"]["kind"], string>>> = {
  "create-instance": "creating",
  "start-instance": "starting",
  "stop-instance": "stopping",
  "remove-instance": "removing",
  "repair-instance": "repairing",
};

const doneWords: Readonly<Partial<Record<Step["action"]["kind"], string>>> = {
  "create-instance": "created",
  "start-instance": "started",
  "stop-instance": "stopped",
  "remove-instance": "removed",
  "repair-instance": "repaired",
  "update-instance": "updated",
};

/** What a step works on: two steps on the same thing are never under way together. */
function subjectOfStep({ action }: Step): string {
  if ("instance" in action) return action.instance;
  if ("network" in action) return `network ${action.network}`;
  return `volume ${action.volume}`;
}

function cancelledBy(signal: AbortSignal): Fault {
  const reason: unknown = signal.reason;
  return reason instanceof Fault ? reason : new Fault("cancelled", "cancelled", { cause: reason });
}
