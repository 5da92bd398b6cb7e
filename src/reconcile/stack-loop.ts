import type { Call, Progress } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { InstanceId } from "../base/id.ts";
import { Wake } from "../base/wake.ts";
import type { NewEvent } from "../event/contract.ts";
import { plan } from "../stack/plan/plan.ts";
import type { InstanceSection } from "../stack/model.ts";
import type { Observed, Plan, Step } from "../stack/plan/step.ts";
import { Actor } from "./actor.ts";
import type { AddressBook } from "./address-book.ts";
import type { Engine } from "../instance/contract.ts";
import type { Engines } from "./engines.ts";
import { Backoff, restartBackoff, stepBackoff } from "./backoff.ts";
import { Gate } from "./gate.ts";
import type { HealthMonitor } from "./health.ts";
import { observe } from "./observe.ts";
import { prunes, removing, type StackRecord } from "./record.ts";
import { networkIdOf, type Parts } from "./parts.ts";
import { PlanRun, type Answer } from "./plan-run.ts";
import { routeOf } from "./route.ts";
import type { RoutingTable } from "./routing.ts";
import type { Sight } from "./sight.ts";
import { StepProgress } from "./step-progress.ts";
import { endingSteps, groundSteps, instanceSteps, subjectOfStep } from "./step-word.ts";
import type { StackState } from "./stack-state.ts";
import type { Turnstile } from "./turnstile.ts";

/** What all stacks' loops share. */
export interface Shared {
  readonly parts: Parts;
  readonly engines: Engines;
  /** The engine that has an instance, or that would run it. */
  readonly engineOf: (id: InstanceId) => Engine;
  readonly sight: Sight;
  readonly book: AddressBook;
  readonly routing: RoutingTable;
  readonly health: HealthMonitor;
  /** How many steps may be under way at once on this host. */
  readonly turnstile: Turnstile;
  /** The same for stops: they mostly wait for programs that end in their own time. */
  readonly exits: Turnstile;
  /** Records an event. One that cannot be recorded stops nothing. */
  readonly tell: (event: NewEvent) => void;
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
  /** What is being worked on: one step at a time for each. */
  readonly #underWay = new Map<string, { readonly kind: Step["action"]["kind"]; readonly callOff: AbortController }>();
  /** How many of those steps are stops. */
  #stopping = 0;
  readonly #progress = new StepProgress();
  /** Rings after every turn. */
  readonly #turned = new Wake();
  /** Whose process we ended, or are about to: its exit is not a failure. */
  readonly #ended = new Set<InstanceId>();
  /** Instances of this stack that are probed or led to: also those that vanish are let go of. */
  #known: ReadonlySet<InstanceId> = new Set();
  /** What ran when the daemon came back and was not probed yet: until its check says otherwise, it is led to as before. */
  #adopted = new Set<InstanceId>();
  /** The plan being carried out. Undefined: plan anew. */
  #plan: PlanRun | undefined;
  /** How long planning took last: the larger the stack, the longer news are gathered before it is planned anew. */
  #planningMs = 0;
  #cancelNudge: (() => void) | undefined;
  #ticking = false;
  #wanted = false;
  #cancelTimer: (() => void) | undefined;
  /** When that timer rings. */
  #wakeMs = Infinity;
  /** True when the last plan was empty and everything it led to has reached the host. */
  #calm = false;
  #erased = false;

  constructor(shared: Shared, state: StackState) {
    this.#shared = shared;
    this.state = state;
    this.#actor = new Actor(shared.parts, shared, state);
    this.#gate = new Gate(state, shared.tell);
  }

  get calm(): boolean {
    return this.#calm;
  }

  get erased(): boolean {
    return this.#erased;
  }

  /** Before the first turn: leads to what runs, so that what the host has of names and ports is not taken away meanwhile. */
  adopt(): void {
    const { sight } = this.#shared;
    if (this.state.record !== undefined && this.state.record.current > 0 && this.state.current === undefined) return;
    this.#adopted = new Set(sight.ofStack(this.state.name));
    for (const id of this.#adopted) this.#lead(id, true);
  }

  /**
   * Something was seen on the host: plan anew, soon. The plan that is carried out stays until then. In a stack of thousands
   * where everything starts at once, planning takes a fixed share of the time, whatever the number of events.
   */
  nudge(): void {
    this.#calm = false;
    if (this.#planningMs < briefMs || this.#plan === undefined) return this.wake();
    this.#cancelNudge ??= this.#shared.call.clock.after(this.#planningMs * 2, () => this.wake());
  }

  /** What is wanted changed: plan anew, and begin nothing more of the old plan. Many wakes before the next turn are one. */
  wake(): void {
    this.#cancelNudge?.();
    this.#cancelNudge = undefined;
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
    return this.#progress.listen(listener);
  }

  /** Resolves when `done` says so; it is asked after every turn of the loop. */
  async until<Value>(done: () => Value | undefined, call: Call): Promise<Value> {
    for (;;) {
      const value = done();
      if (value !== undefined) return value;
      await this.#turned.next(call.signal);
    }
  }

  /** Why the last step about this instance failed, or what its health check says. */
  messageOf(id: InstanceId): string {
    return this.failureOf(id)?.message ?? this.#shared.health.health(id).message;
  }

  /** Why a step about this instance fails now; of these kinds alone. */
  failureOf(id: InstanceId, kinds: readonly (typeof instanceSteps)[number][] = instanceSteps): Fault | undefined {
    return kinds.map((kind) => this.#reasons.get(`${kind} ${id}`)).find((fault) => fault !== undefined);
  }

  /** The step that failed first among those that fail now. */
  failure(): Fault | undefined {
    return this.#reasons.values().next().value;
  }

  /** A network or volume that could not be made, changed or removed too often to be waited for. */
  stuck(): { readonly key: string; readonly fault: Fault } | undefined {
    for (const [key, fault] of this.#reasons) if (this.#isStuck(key)) return { key, fault };
    return undefined;
  }

  #isStuck(key: string): boolean {
    return groundSteps.has(key.slice(0, key.indexOf(" "))) && this.#failures.count(key) >= groundAttempts;
  }

  /** An instance exited: its next start may have to wait. */
  exited(id: InstanceId, nowMs: number): void {
    const facts = this.#shared.sight.instances.get(id);
    const ranMs = facts?.startedMs === undefined ? 0 : nowMs - facts.startedMs;
    if (ranMs >= restartBackoff.forgivenAfterMs) this.#restarts.forget(id);
    if (!this.#ended.delete(id)) this.#restarts.failed(id, nowMs);
    this.#adopted.delete(id);
    this.#shared.health.forget(id);
    this.#shared.routing.drop(id);
    this.#progress.became(id, facts?.exit === undefined ? "exited" : `exited with code ${facts.exit.code}`);
    this.nudge();
  }

  /** The health check of an instance changed its mind. */
  healthChanged(id: InstanceId, nowMs: number): void {
    const { health } = this.#shared.health.health(id);
    if (health === "unhealthy") this.#restarts.failed(id, nowMs);
    this.#adopted.delete(id);
    this.#progress.became(id, health);
    this.nudge();
  }

  /** The next start of an instance waits for nothing: somebody asked for it. */
  forgive(id: InstanceId): void {
    this.#restarts.forget(id);
    for (const kind of instanceSteps) this.#forgiveStep(`${kind} ${id}`);
  }

  /** The next stop of the run that there is waits this long, whatever its section says; undefined: as its section says. */
  graceOf(id: InstanceId, graceMs: number | undefined): void {
    if (graceMs === undefined) this.#actor.graces.delete(id);
    else this.#actor.graces.set(id, graceMs);
  }

  /** Calls `hook` once, when the instance is prepared and before it is started. */
  beforeStart(id: InstanceId, hook: () => Promise<void>): void {
    this.#actor.beforeStart.set(id, hook);
  }

  /** The generation that the stack went back from by itself, until the next one is applied. */
  get wentBackFrom(): number | undefined {
    return this.#gate.closedOn;
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
      this.#forgiveStep("reconcile");
    } catch (thrown) {
      // Records could not be written (a full disk) or a bug: nothing is lost, the next turn tries again.
      this.#failed("reconcile", Fault.from(thrown, `reconcile ${this.state.name}`));
      this.#sleepUntil(this.#failures.retryMs("reconcile") ?? 0);
    } finally {
      this.#ticking = false;
      this.#shared.changed();
      this.#turned.ring();
    }
  }

  async #pass(): Promise<void> {
    const { clock } = this.#shared.call;
    await this.#removeFinishedRun();
    const beganMs = clock.monotonicMs();
    // What follows from this plan follows for this record only: another may come in while the host is written to.
    const { record } = this.state;
    this.#probe();
    const observed = this.observed();
    const planned = plan(this.state.desired(), observed, { removeVolumes: prunes(this.state.record) });
    const run = new PlanRun(planned);
    this.#plan = run;
    this.#forgetOthers(planned);
    this.#route(observed);
    this.#reserve(planned);
    this.#planningMs = clock.monotonicMs() - beganMs;
    // Whoever is started because another is ready finds it by name at once. Costs nothing when nothing changed.
    await this.#flushRouting();
    if (this.#plan !== run) return;
    const nextMs = this.#launchReady(clock.nowMs());
    const gateMs = await this.#judge(record, planned, observed);
    if (this.#plan !== run) return;
    this.#sleepUntil(Math.min(nextMs, gateMs));
    // What is refused is left as it is: a stack of which something stays is not gone.
    if (planned.steps.length > 0 || planned.refusals.length > 0 || this.#underWay.size > 0) return;
    await this.#settle(record);
    if (this.#plan === run) this.#calm = true;
  }

  /** Failures of steps that are not asked for any more say nothing. */
  #forgetOthers(planned: Plan): void {
    if (this.#reasons.size === 0) return;
    const keys = new Set(planned.steps.map((step) => step.key));
    for (const key of this.#reasons.keys()) {
      if (!keys.has(key) && key !== "publish" && key !== "reconcile") this.#forgiveStep(key);
    }
  }

  /** Addresses of all that is about to be made: chosen at once, they are written at once. */
  #reserve(planned: Plan): void {
    const { book } = this.#shared;
    for (const { action } of planned.steps) {
      if (action.kind !== "create-instance") continue;
      for (const name of this.state.desiredInstance(action.instance)?.section.networks ?? []) {
        try {
          book.reserve(action.instance, networkIdOf(this.state.name, name));
        } catch {
          // There is none left: the step itself will say so.
        }
      }
    }
  }

  /** `croft run --rm`: what has run is taken away, by the same loop with nothing desired. */
  async #removeFinishedRun(): Promise<void> {
    const { record } = this.state;
    if (record?.removeOnExit !== true || record.status !== "live") return;
    const { sight, call } = this.#shared;
    const ended = this.state.desired().instances.every(({ id }) => sight.instances.get(id)?.status === "exited");
    if (!ended) return;
    await this.state.change(
      (known) => (known.status === "live" ? removing(known, true, call.clock.nowMs()) : known),
      call,
    );
  }

  /** Begins every step whose turn it is. Returns when the next one that only waits for time may begin. */
  #launchReady(nowMs: number): number {
    let nextMs = Infinity;
    const run = this.#plan;
    if (run === undefined) return nextMs;
    run.offer((step): Answer => {
      const subject = subjectOfStep(step);
      const underWay = this.#underWay.get(subject);
      if (underWay !== undefined) {
        // A guest may take long to start; who wants it gone does not wait for that.
        const isEnd = step.action.kind === "stop-instance" || step.action.kind === "remove-instance";
        if (underWay.kind === "start-instance" && isEnd) {
          underWay.callOff.abort(new Fault("cancelled", `${step.key}: what was being started is to end`));
        }
        return "not now";
      }
      const notBeforeMs = Math.max(step.notBeforeMs ?? 0, this.#failures.retryMs(step.key) ?? 0);
      if (notBeforeMs > nowMs) {
        nextMs = Math.min(nextMs, notBeforeMs);
        return "not now";
      }
      // A long plan must not keep others waiting, nor itself when it is overtaken.
      const isFull = this.#underWay.size - this.#stopping >= stepsAtOnce;
      if (isFull && step.action.kind !== "stop-instance") return "full";
      void this.#carryOut(step, subject, run);
      return "begun";
    });
    return nextMs;
  }

  async #carryOut(step: Step, subject: string, run: PlanRun): Promise<void> {
    const { call, turnstile, exits } = this.#shared;
    const { action } = step;
    const isStop = action.kind === "stop-instance";
    const callOff = new AbortController();
    const acting = { ...call, signal: AbortSignal.any([call.signal, callOff.signal]) };
    this.#underWay.set(subject, { kind: action.kind, callOff });
    if (isStop) this.#stopping += 1;
    this.#noteAttempt(step);
    try {
      await (isStop ? exits : turnstile).pass(() => this.#actor.act(action, acting));
      this.#progress.done(step, this.#reasons.has(step.key));
      this.#forgiveStep(step.key);
      if (action.kind === "start-instance" && run.isAwaited(step.key)) await this.#routeOne(action.instance);
      if (action.kind === "remove-instance") this.#forgetInstance(action.instance);
      if (action.kind === "create-network") this.#reserve(run.plan);
      run.done(step.key);
    } catch (thrown) {
      const fault = Fault.from(thrown, step.key);
      if (fault.reason !== "cancelled") {
        this.#failed(step.key, fault);
        this.#progress.failed(step, fault);
      }
      this.nudge();
    } finally {
      this.#underWay.delete(subject);
      if (isStop) this.#stopping -= 1;
    }
    // Steps that waited for this one go at once; when there is none left, look and plan again.
    const nextMs = this.#launchReady(call.clock.nowMs());
    if (this.#plan !== run || nextMs < Infinity) this.nudge();
    else if (this.#underWay.size === 0) this.wake();
  }

  /** What was remembered of an instance that is gone. */
  #forgetInstance(id: InstanceId): void {
    this.#restarts.forget(id);
    this.#ended.delete(id);
    this.#adopted.delete(id);
    this.#shared.health.forget(id);
  }

  #noteAttempt(step: Step): void {
    this.#progress.begun(step, this.#reasons.has(step.key));
    if (!("instance" in step.action)) return;
    const nowMs = this.#shared.call.clock.nowMs();
    if (step.action.kind === "create-instance") this.#gate.attempted(step.action.instance, nowMs);
    if (step.action.kind === "start-instance") {
      this.#gate.started(step.action.instance, nowMs);
      this.#ended.delete(step.action.instance);
    }
    if (
      endingSteps.has(step.action.kind) &&
      this.#shared.sight.instances.get(step.action.instance)?.pid !== undefined
    ) {
      this.#ended.add(step.action.instance);
    }
    if (triedSteps.has(step.action.kind)) this.#wakeForVerdict(step.action.instance, nowMs);
  }

  /** A start that never returns is judged in time, too: nothing else would wake us. */
  #wakeForVerdict(id: InstanceId, nowMs: number): void {
    const section = this.state.desiredInstance(id)?.section;
    if (section === undefined || this.state.record?.status !== "applying") return;
    const patience = this.#shared.engineOf(id).patience ?? 1;
    this.#sleepUntil(Math.min(this.#wakeMs, nowMs + section.update.healthyWithinMs * patience));
  }

  #failed(key: string, fault: Fault): void {
    const { call, suspect, tell } = this.#shared;
    const known = this.#reasons.get(key);
    this.#reasons.set(key, fault);
    this.#failures.failed(key, call.clock.nowMs());
    suspect();
    // The same failure again and again is one event.
    if (known?.message === fault.message) return;
    tell({
      kind: "step.failed",
      subject: this.state.name,
      message: `${key}: ${fault.message}`,
      detail: { reason: fault.reason },
    });
  }

  #forgiveStep(key: string): void {
    this.#reasons.delete(key);
    this.#failures.forget(key);
  }

  /** Probes follow what runs and has a check. Before observing: a check that changed has said nothing yet. */
  #probe(): void {
    const { health, sight, book, routing } = this.#shared;
    const there = sight.ofStack(this.state.name);
    for (const id of this.#known) {
      if (there.has(id)) continue;
      health.forget(id);
      routing.drop(id);
    }
    this.#known = new Set(there);
    for (const id of there) {
      const facts = sight.instances.get(id);
      const section = this.#sectionOf(id);
      if (facts?.status !== "running" || facts.startedMs === undefined || section?.health === undefined) {
        health.forget(id);
        continue;
      }
      const network = section.networks[0];
      const address = network === undefined ? undefined : book.addressOf(id, networkIdOf(this.state.name, network));
      health.follow({ id, address, startedMs: facts.startedMs, section: section.health });
    }
  }

  /** Names and ports lead to what is running and not known to be sick. */
  #route(observed: Observed): void {
    for (const { id, health } of observed.instances) {
      this.#lead(id, health === "none" || health === "healthy" || this.#adopted.has(id));
    }
  }

  /** Whoever needs an instance without a check finds it by name when it is started. */
  async #routeOne(id: InstanceId): Promise<void> {
    if (this.#sectionOf(id)?.health !== undefined) return;
    this.#lead(id, true);
    await this.#flushRouting();
  }

  #lead(id: InstanceId, isWell: boolean): void {
    const { routing, sight, book } = this.#shared;
    const section = this.#sectionOf(id);
    // While it finishes what it has, it still runs and is healthy: nothing new may be sent to it.
    const isLeaving = endingSteps.has(this.#underWay.get(id)?.kind ?? "");
    const isReady = isWell && !isLeaving && sight.instances.get(id)?.status === "running";
    if (section === undefined || !isReady) routing.drop(id);
    else routing.set(routeOf(this.state.name, id, section, book, (name) => this.#isInternal(name)));
  }

  #sectionOf(id: InstanceId): InstanceSection | undefined {
    return this.state.desiredInstance(id)?.section ?? this.state.instance(id)?.section;
  }

  #isInternal(network: string): boolean {
    return this.state.current?.generation.spec.networks[network]?.internal ?? false;
  }

  async #judge(record: StackRecord | undefined, planned: Plan, observed: Observed): Promise<number> {
    if (record?.status !== "applying" || this.state.record !== record) return Infinity;
    const { call, engineOf, routing, sight } = this.#shared;
    const outcome = this.#gate.judge({
      observed,
      planned,
      startedMs: (id) => sight.instances.get(id)?.startedMs,
      message: (id) => this.messageOf(id),
      failures: this.#reasons,
      isHopeless: (step) => this.#isStuck(step),
      refusal: (holder) => routing.refusal(holder),
      nowMs: call.clock.nowMs(),
      patience: (id) => engineOf(id).patience ?? 1,
    });
    if (outcome.kind === "waiting") return outcome.untilMs;
    if (outcome.kind === "open") {
      await this.#flushRouting();
      // A port may turn out to be held only now.
      const refused = this.#gate.refusedPort((holder) => routing.refusal(holder));
      if (refused === undefined) await this.#gate.pass(call);
      else await this.#gate.close(refused, engineOf, call);
    } else {
      await this.#gate.close(outcome.failure, engineOf, call);
    }
    this.#plan = undefined;
    return Infinity;
  }

  /** Nothing left to do: what was removed can be forgotten, what runs is reachable. */
  async #settle(record: StackRecord | undefined): Promise<void> {
    const { call, book, sight, tell } = this.#shared;
    await this.#flushRouting();
    await this.#actor.detachIdleVolumes(call);
    const wanted = new Set(this.state.desired().networks.map(({ id }) => id));
    await book.tidy(this.state.name, (id) => wanted.has(id) || sight.networks.has(id), call);
    // Leftovers of a stack that nobody remembers are gone now. Unless somebody is about to write the first record of it.
    if (record === undefined) {
      await this.state.exclusively(async () => {
        this.#erased = this.state.record === undefined;
      });
    }
    if (record?.status !== "removing") return;
    if (!(await this.state.exclusively(() => this.#finishRemoval(record, call)))) return;
    tell({ kind: "stack.removed", subject: this.state.name, message: `${this.state.name} was removed` });
  }

  /** False when the stack is not what was planned for any more: somebody applied to it, or asked for more to be removed. */
  async #finishRemoval(record: StackRecord, call: Call): Promise<boolean> {
    const { secrets } = this.#shared.parts;
    if (this.state.record !== record) return false;
    if (record.removal?.volumes === true || record.origin === "run") {
      for (const { name } of await secrets.list(this.state.name, call)) {
        await secrets.remove(this.state.name, name, call);
      }
      await this.state.erase(call);
      this.#erased = true;
    } else {
      await this.state.change((known) => ({ ...known, status: "down", stopped: [] }), call);
    }
    return true;
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
    this.#wakeMs = untilMs;
    if (untilMs === Infinity) return;
    const { clock } = this.#shared.call;
    this.#cancelTimer = clock.after(Math.max(1, untilMs - clock.nowMs()), () => {
      this.#wakeMs = Infinity;
      this.wake();
    });
  }
}

/** From the first of them on an instance has its time to become healthy. */
const triedSteps: ReadonlySet<Step["action"]["kind"]> = new Set(["create-instance", "start-instance"]);

/** Attempts at a network or volume until it is hopeless: with the pauses between them, half a minute. */
const groundAttempts = 8;

/** Planning that takes no longer than this is done at every event. */
const briefMs = 2;
/** Steps of one stack under way at once: enough to keep both processors and the disk busy, few enough that each ends soon. */
export const stepsAtOnce = 12;
