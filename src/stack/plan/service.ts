import type { InstanceSection } from "../model.ts";
import { alterationOf, refuseDisks, type Alteration } from "./alter.ts";
import { describeChange, describeDuration, diffInstance } from "./diff.ts";
import type { Draft } from "./draft.ts";
import type { Ground } from "./ground.ts";
import { isHealthy, isUp, staysEnded } from "./slot.ts";
import type { Slot } from "./slot.ts";
import type { Cost, DesiredInstance, ObservedInstance } from "./step.ts";
import type { Teardown } from "./teardown.ts";

/**
 * Plans the slots of one section that should be there. Slots that already hold the right instance are mended at once;
 * the others are replaced one after the other, each when the one before it is healthy; new ones are made at once.
 *
 * Decided from what is there alone, so a plan made after an interruption goes on where the last one was: a new instance
 * that is not healthy yet holds back the next replacement, and one that is healthy lets the old one beside it go.
 */
export class ServicePlanner {
  readonly #draft: Draft;
  readonly #ground: Ground;
  readonly #teardown: Teardown;
  /** Section name → stops that somebody asked for. */
  readonly #requestedStops = new Map<string, string[]>();

  constructor(draft: Draft, ground: Ground, teardown: Teardown) {
    this.#draft = draft;
    this.#ground = ground;
    this.#teardown = teardown;
  }

  /**
   * `gate`: what must be done before an instance of the section is started. Returns what must be done before the
   * section can be said to be ready; empty when it is ready now.
   */
  plan(slots: readonly Slot[], gate: readonly string[]): readonly string[] {
    refuseDisks(slots, this.#draft);
    const ready: string[] = [];
    const surplus: Slot[] = [];
    const inTurn: Slot[] = [];
    for (const slot of slots) {
      if (slot.desired === undefined) surplus.push(slot);
      else if (isReplaced(slot) || isRestarted(slot)) inTurn.push(slot);
      else push(ready, this.#settle(slot, slot.desired, gate));
    }
    // Replacing one that does not work costs nothing; one that works may have to wait for it.
    inTurn.sort((left, right) => works(left) - works(right) || left.ordinal - right.ordinal);
    let before: readonly string[] = [...gate, ...ready];
    for (const slot of inTurn) {
      if (slot.desired === undefined) continue;
      const done = isReplaced(slot)
        ? this.#replace(slot, slot.desired, before)
        : this.#settle(slot, slot.desired, before);
      if (done === undefined) continue;
      ready.push(done);
      before = [done];
    }
    const first = slots.find((slot) => slot.desired !== undefined)?.desired;
    for (const slot of surplus) {
      // Where no capacity may be missing, what is too many goes only when what stays is healthy.
      const waits = first?.section.update.order === "start-first" && !slot.others.some((old) => this.#movesAway(old));
      this.#teardown.remove(slot.others, waits ? ready : [], "none", "fewer replicas");
    }
    return ready;
  }

  /** What is stopped by request is stopped after what needs it and is stopped by request too. */
  orderStops(sections: Iterable<DesiredInstance>): void {
    if (this.#requestedStops.size === 0) return;
    for (const { name, section } of sections) {
      const dependents = this.#requestedStops.get(name);
      if (dependents === undefined) continue;
      for (const needed of section.needs) {
        for (const stop of this.#requestedStops.get(needed) ?? []) this.#draft.delay(stop, dependents);
      }
    }
  }

  /**
   * An instance that failed and stays so by its policy is not waited for by the loop, but what needs it is not started
   * either: it waits, visibly, until somebody acts.
   */
  awaitFailed(slots: readonly Slot[]): readonly string[] {
    const keys: string[] = [];
    for (const { current, desired } of slots) {
      if (current === undefined || desired === undefined || !desired.running) continue;
      if (!staysEnded(current, desired) || current.exitCode === 0) continue;
      const code = current.exitCode === undefined ? "" : ` with code ${current.exitCode}`;
      const why = `exited${code}, and restart = "${desired.section.restart}" leaves it so`;
      keys.push(this.#draft.addIfAwaited({ kind: "await-healthy", instance: desired.id }, "none", why));
    }
    return keys;
  }

  /** A slot that holds nothing, or the right instance (perhaps beside old ones). Returns when it is ready, if it is not. */
  #settle(slot: Slot, desired: DesiredInstance, gate: readonly string[]): string | undefined {
    const { current, broken, others } = slot;
    if (current === undefined) {
      if (broken === undefined) return this.#build(desired, gate, "none", "not there yet");
      const why = "half-made or broken beyond repair";
      const gone = this.#teardown.remove([broken, ...others], this.#moves(slot, desired) ? [] : gate, "recreate", why);
      return this.#build(desired, [...gate, ...gone], "recreate", why);
    }
    const why = "its replacement is there";
    if (desired.section.update.order === "start-first" && desired.running && !this.#moves(slot, desired)) {
      const ready = this.#mend(current, desired, gate);
      this.#teardown.remove(others, ready === undefined ? [] : [ready], "recreate", why);
      return ready;
    }
    const gone = this.#teardown.remove(others, [], "recreate", why);
    return this.#mend(current, desired, gone.length === 0 ? gate : [...gate, ...gone]);
  }

  /** A slot that holds only instances of another specification. Returns when it is ready. */
  #replace(slot: Slot, desired: DesiredInstance, before: readonly string[]): string {
    const old = slot.others.find(isUp) ?? slot.others[0];
    const why = old === undefined ? "changed" : whyReplaced(old, desired, this.#ground);
    const broken = slot.broken === undefined ? [] : [slot.broken];
    const moves = this.#moves(slot, desired);
    if (desired.section.update.order === "start-first" && desired.running && !moves) {
      const cleared = this.#teardown.remove(broken, before, "recreate", why);
      const done = this.#build(desired, [...before, ...cleared], "recreate", why);
      this.#teardown.remove(slot.others, [done], "recreate", why);
      return done;
    }
    const gone = this.#teardown.remove([...broken, ...slot.others], moves ? [] : before, "recreate", why);
    return this.#build(desired, [...before, ...gone], "recreate", why);
  }

  /** Create, start and, when there is a check, await. Returns the last of them. */
  #build(desired: DesiredInstance, after: readonly string[], cost: Cost, why: string): string {
    const create = this.#draft.add({ kind: "create-instance", instance: desired.id }, cost, why, {
      after: this.#onGround(desired.section, after),
    });
    if (!desired.running) return create;
    const start = this.#draft.add({ kind: "start-instance", instance: desired.id }, cost, why, { after: [create] });
    return desired.section.health === undefined ? start : this.#await(desired, [start]);
  }

  /** The right instance, whatever its state: fields, links, running or not. Returns when it is ready, if it is not. */
  #mend(current: ObservedInstance, desired: DesiredInstance, gate: readonly string[]): string | undefined {
    const moved = this.#moved(current, desired);
    const alteration = moved ?? alterationOf(current, desired);
    if (current.revertAsked !== undefined) return this.#revert(current, desired);
    if (!desired.running) return this.#rest(current, desired, alteration);
    const isRestart = alteration?.cost === "restart";
    if (isUp(current) && moved !== undefined) return this.#renew(current, desired, gate, moved, []);
    // What is frozen was frozen by somebody: it stays as it is until it is thawed.
    if (current.status === "frozen" && isRestart) return undefined;
    if (current.status === "running" && isRestart) return this.#renew(current, desired, gate, alteration, gate);
    const updated = this.#update(desired, alteration);
    if (current.status === "frozen" || staysEnded(current, desired)) return undefined;
    const before = updated === undefined ? [] : [updated];
    if (current.status !== "running") return this.#start(current, desired, gate, before);
    const why = whyRestarted(current, desired);
    if (why !== undefined) return this.#restart(current, desired, [...gate, ...before], why);
    return isHealthy(current, desired) ? undefined : this.#await(desired, before);
  }

  /** It should not run: stopped, or its memory on disk, as somebody asked. */
  #rest(current: ObservedInstance, desired: DesiredInstance, alteration: Alteration | undefined): undefined {
    const { id: instance, name, suspended } = desired;
    const ends = isUp(current) || (current.status === "suspended" && suspended !== true);
    const end = !ends
      ? undefined
      : suspended === true
        ? this.#draft.add({ kind: "suspend-instance", instance }, "none", "suspended by request")
        : this.#draft.add({ kind: "stop-instance", instance }, "none", "stopped by request");
    if (end !== undefined) {
      this.#holdNetworks(current, desired, end);
      const stops = this.#requestedStops.get(name);
      if (stops === undefined) this.#requestedStops.set(name, [end]);
      else stops.push(end);
    }
    // A memory on disk belongs to the preparation it was saved with.
    if (suspended === true && (ends || current.status === "suspended")) return;
    this.#update(desired, alteration, alteration?.cost === "restart" && end !== undefined ? [end] : []);
  }

  /** A machine stays what it is when its network gets other addresses: it is taken off for that moment. */
  #moved(current: ObservedInstance, desired: DesiredInstance): Alteration | undefined {
    const names = this.#networksThatMove(current, desired);
    if (names.length === 0) return undefined;
    const fields = new Set(alterationOf(current, desired)?.fields).add("networks");
    const why = `network ${names.join(", ")} changes its addresses`;
    return { fields: [...fields], cost: isUp(current) ? "restart" : "hot", why };
  }

  #revert(current: ObservedInstance, desired: DesiredInstance): string {
    const cost = isUp(current) ? "restart" : "none";
    const why = `going back to snapshot ${current.revertAsked}`;
    const revert = this.#draft.add({ kind: "revert-instance", instance: desired.id }, cost, why);
    this.#holdNetworks(current, desired, revert);
    if (!desired.running) return revert;
    // Whether it runs then depends on the snapshot, so the next plan starts it or finds it running: whoever needs it waits.
    const ready = this.#draft.addIfAwaited({ kind: "await-healthy", instance: desired.id }, "none", why);
    this.#draft.delay(ready, [revert]);
    return ready;
  }

  /** Addresses of a network change when the machine on it is off. What is replaced has its removal for that. */
  #holdNetworks(current: ObservedInstance, desired: DesiredInstance, off: string): void {
    for (const name of this.#networksThatMove(current, desired)) {
      this.#draft.delay(this.#ground.networkSteps.get(name) ?? "", [off]);
    }
  }

  /** Networks that a machine is on, or is to be on, whose addresses change. */
  #networksThatMove({ section: was }: ObservedInstance, { section }: DesiredInstance): readonly string[] {
    if (section.kind !== "vm") return [];
    const names = new Set([...(was?.networks ?? [...this.#ground.readdressed]), ...section.networks]);
    return [...names].filter((name) => this.#ground.readdressed.has(name));
  }

  /** It runs, and something of it changes only while it does not. */
  #renew(
    current: ObservedInstance,
    desired: DesiredInstance,
    gate: readonly string[],
    { why, fields }: Alteration,
    beforeStop: readonly string[],
  ): string {
    const { id: instance } = desired;
    const stop = this.#draft.add({ kind: "stop-instance", instance }, "restart", why, { after: beforeStop });
    this.#holdNetworks(current, desired, stop);
    const update = this.#draft.add({ kind: "update-instance", instance, fields }, "restart", why, {
      after: this.#onGround(desired.section, [stop, ...gate]),
    });
    const start = this.#draft.add({ kind: "start-instance", instance }, "restart", why, { after: [update] });
    return desired.section.health === undefined ? start : this.#await(desired, [start]);
  }

  /** It is whole but does not run: attach what a reboot took away, start, await. */
  #start(
    current: ObservedInstance,
    desired: DesiredInstance,
    gate: readonly string[],
    before: readonly string[],
  ): string {
    const exited = current.status === "exited";
    const code = current.exitCode === undefined ? "" : ` with code ${current.exitCode}`;
    const attached = current.attached ? before : [...before, this.#repair(desired, "none", before)];
    const start = this.#draft.add(
      { kind: "start-instance", instance: desired.id },
      exited ? "restart" : "none",
      exited ? `exited${code}` : "not running",
      { after: this.#onGround(desired.section, [...gate, ...attached]), notBeforeMs: current.restartAfterMs },
    );
    return desired.section.health === undefined ? start : this.#await(desired, [start]);
  }

  /** It runs and must not go on as it does: stop, attach what is missing, start, await. */
  #restart(current: ObservedInstance, desired: DesiredInstance, before: readonly string[], why: string): string {
    const stop = this.#draft.add({ kind: "stop-instance", instance: desired.id }, "restart", why, {
      after: before,
      // The pause is for programs that fail by themselves; a person who asks does not wait.
      notBeforeMs: why === failing ? current.restartAfterMs : undefined,
    });
    const attached = current.attached ? stop : this.#repair(desired, "restart", [stop]);
    const start = this.#draft.add({ kind: "start-instance", instance: desired.id }, "restart", why, {
      after: [attached],
    });
    return desired.section.health === undefined ? start : this.#await(desired, [start]);
  }

  #repair(desired: DesiredInstance, cost: Cost, before: readonly string[]): string {
    return this.#draft.add({ kind: "repair-instance", instance: desired.id }, cost, detached, {
      after: this.#onGround(desired.section, before),
    });
  }

  #await(desired: DesiredInstance, after: readonly string[]): string {
    const within = desired.section.update.healthyWithinMs;
    return this.#draft.add(
      { kind: "await-healthy", instance: desired.id },
      "none",
      `within ${describeDuration(within)}`,
      { after },
    );
  }

  /** Brings the fields that change in place up to date. What only the planner reads is never a reason to touch one. */
  #update(
    desired: DesiredInstance,
    alteration: Alteration | undefined,
    after: readonly string[] = [],
  ): string | undefined {
    if (alteration === undefined) return undefined;
    const { fields, why } = alteration;
    const action = { kind: "update-instance", instance: desired.id, fields } as const;
    return this.#draft.add(action, "hot", why, { after: this.#onGround(desired.section, after) });
  }

  #onGround(section: InstanceSection, after: readonly string[]): readonly string[] {
    const { networkSteps, volumeSteps } = this.#ground;
    if (networkSteps.size === 0 && volumeSteps.size === 0) return after;
    const keys = [...after];
    for (const name of section.networks) push(keys, networkSteps.get(name));
    for (const mount of section.mounts) if (mount.kind === "volume") push(keys, volumeSteps.get(mount.volume));
    return keys;
  }

  /** Whether the old or the new instance is on a network that changes its addresses: then both cannot be there at once. */
  #moves(slot: Slot, desired: DesiredInstance): boolean {
    const { readdressed } = this.#ground;
    if (readdressed.size === 0) return false;
    const { broken, others } = slot;
    const old = broken === undefined ? others : [broken, ...others];
    return desired.section.networks.some((name) => readdressed.has(name)) || old.some((one) => this.#movesAway(one));
  }

  #movesAway(old: ObservedInstance): boolean {
    const { readdressed } = this.#ground;
    if (readdressed.size === 0) return false;
    return old.section === undefined || old.section.networks.some((name) => readdressed.has(name));
  }
}

const failing = "its health check fails";
const detached = "its links or volumes are gone from the host";

/** Why a running instance is started again; undefined when it is not. */
function whyRestarted(current: ObservedInstance, desired: DesiredInstance): string | undefined {
  // A process keeps the links and mounts it was started with: new ones reach only a new process.
  if (!current.attached) return detached;
  if (current.restartAsked === true) return "a restart was asked for";
  const fails = desired.section.health !== undefined && current.health === "unhealthy";
  return fails && desired.section.restart !== "never" ? failing : undefined;
}

function isReplaced(slot: Slot): boolean {
  return slot.current === undefined && slot.others.length > 0;
}

function isRestarted({ current, desired }: Slot): boolean {
  if (current?.status !== "running" || desired?.running !== true) return false;
  if (current.restartAsked === true && current.attached) return true;
  return alterationOf(current, desired)?.cost === "restart";
}

function whyReplaced(old: ObservedInstance, desired: DesiredInstance, ground: Ground): string {
  if (old.section === undefined) return "its specification changed";
  const { section, image, secrets, files, diskImages } = old;
  const changes = diffInstance({ section, image, secrets, files, diskImages }, desired);
  const hot: ReadonlySet<string> = new Set(["replicas", "update"]);
  const { networks: before } = old.section;
  const networks = desired.section.networks.filter((name) => ground.networkSteps.has(name) && before.includes(name));
  const reasons = [
    ...(networks.length > 0 ? [`network ${networks.join(", ")} changed`] : []),
    ...changes.filter((change) => !hot.has(change.field)).map(describeChange),
  ];
  if (reasons.length > 0) return reasons.join(", ");
  return desired.image === undefined
    ? `image ${desired.section.image} is made or fetched anew`
    : "its image, a file, a secret or a network changed";
}

/** 1 when something in the slot works, for sorting. */
function works({ current, others }: Slot): number {
  const all = current === undefined ? others : [current, ...others];
  return all.some((one) => one.status === "running" && (one.health === "healthy" || one.health === "none")) ? 1 : 0;
}

function push(list: string[], item: string | undefined): void {
  if (item !== undefined) list.push(item);
}
