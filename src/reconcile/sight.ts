import type { Call } from "../base/call.ts";
import { parseInstanceId, type InstanceId, type NetworkId, type VolumeId } from "../base/id.ts";
import type { Engine, InstanceEvent, InstanceFacts } from "../instance/contract.ts";
import type { NetworkDriver, NetworkFacts } from "../network/contract.ts";
import type { Pool, VolumeFacts } from "../storage/contract.ts";

/**
 * What the loop last saw on the host, of all stacks. It is refreshed from the drivers' lists at the start, now and then,
 * and after every failure; between that it follows the engine's events and what the loop itself did. It is a cache and
 * nothing more: dropping it loses nothing.
 */
export class Sight {
  readonly instances = new Map<InstanceId, InstanceFacts>();
  /** Value: whether everything of it is there. */
  readonly ports = new Map<InstanceId, boolean>();
  /** Value: whether it is attached. */
  readonly roots = new Map<InstanceId, boolean>();
  readonly networks = new Map<NetworkId, Omit<NetworkFacts["networks"][number], "id">>();
  readonly volumes = new Map<VolumeId, VolumeFacts>();
  routingIntact = false;

  readonly #engine: Engine;
  readonly #pool: Pool;
  readonly #network: NetworkDriver;
  /** Instances by stack, whichever driver knows them. */
  readonly #stacks = new Map<string, Set<InstanceId>>();
  /** Grows with each change, so that a slow refresh does not overwrite what happened meanwhile. */
  #changes = 0;

  constructor(drivers: { readonly engine: Engine; readonly pool: Pool; readonly network: NetworkDriver }) {
    this.#engine = drivers.engine;
    this.#pool = drivers.pool;
    this.#network = drivers.network;
  }

  /**
   * Asks every driver. Returns false when something changed while they answered: then what they said may be older than
   * what is known, nothing is taken over, and the caller asks again later.
   */
  async refresh(call: Call): Promise<boolean> {
    const before = this.#changes;
    const [instances, pool, network] = await Promise.all([
      this.#engine.list(call),
      this.#pool.list(call),
      this.#network.list(call),
    ]);
    if (this.#changes !== before) return false;
    replace(
      this.instances,
      instances.map((facts) => [facts.id, facts]),
    );
    replace(
      this.roots,
      pool.roots.map((root) => [root.id, root.attached]),
    );
    replace(
      this.volumes,
      pool.volumes.map((volume) => [volume.id, volume]),
    );
    replace(
      this.networks,
      network.networks.map((facts) => [facts.id, facts]),
    );
    replace(
      this.ports,
      network.ports.map((port) => [port.id, port.intact]),
    );
    this.routingIntact = network.routingIntact;
    this.#stacks.clear();
    for (const id of [...this.instances.keys(), ...this.roots.keys(), ...this.ports.keys()]) this.#index(id);
    return true;
  }

  /** Takes over what the engine says happened. Returns the stack it concerns. */
  follow(event: InstanceEvent, nowMs: number): string | undefined {
    const facts = this.instances.get(event.id);
    if (event.kind === "started") {
      this.sawInstance({
        id: event.id,
        status: "running",
        pid: event.pid,
        startedMs: facts?.status === "running" ? (facts.startedMs ?? nowMs) : nowMs,
        intact: true,
        limits: facts?.limits ?? {},
      });
    } else if (event.kind === "exited" && facts !== undefined) {
      const { pid: _, ...rest } = facts;
      this.sawInstance({ ...rest, status: "exited", exit: event.exit });
    }
    return parseInstanceId(event.id)?.stack;
  }

  sawInstance(facts: InstanceFacts): void {
    this.#changes += 1;
    this.instances.set(facts.id, facts);
    this.#index(facts.id);
  }

  sawRoot(id: InstanceId, attached: boolean): void {
    this.#changes += 1;
    this.roots.set(id, attached);
    this.#index(id);
  }

  sawPort(id: InstanceId): void {
    this.#changes += 1;
    this.ports.set(id, true);
    this.#index(id);
  }

  sawNetwork(id: NetworkId, subnet: string, internal: boolean): void {
    this.#changes += 1;
    this.networks.set(id, { subnet, internal, intact: true });
  }

  lostNetwork(id: NetworkId): void {
    this.#changes += 1;
    this.networks.delete(id);
  }

  sawVolume(volume: VolumeFacts): void {
    this.#changes += 1;
    this.volumes.set(volume.id, volume);
  }

  lostVolume(id: VolumeId): void {
    this.#changes += 1;
    this.volumes.delete(id);
  }

  lostInstance(id: InstanceId): void {
    this.#changes += 1;
    this.instances.delete(id);
    this.roots.delete(id);
    this.ports.delete(id);
    const stack = parseInstanceId(id)?.stack ?? "";
    const members = this.#stacks.get(stack);
    members?.delete(id);
    if (members?.size === 0) this.#stacks.delete(stack);
  }

  /** Every instance of a stack that any driver knows. */
  ofStack(stack: string): ReadonlySet<InstanceId> {
    return this.#stacks.get(stack) ?? none;
  }

  /** Stacks that own something on the host: also networks and nothing else. */
  stacks(): ReadonlySet<string> {
    const names = new Set(this.#stacks.keys());
    for (const id of this.networks.keys()) names.add(stackOf(id));
    return names;
  }

  #index(id: InstanceId): void {
    const stack = parseInstanceId(id)?.stack;
    if (stack === undefined) return;
    const members = this.#stacks.get(stack);
    if (members === undefined) this.#stacks.set(stack, new Set([id]));
    else members.add(id);
  }
}

const none: ReadonlySet<InstanceId> = new Set();

/** The stack of a network or volume id, `shop.back`. */
export function stackOf(id: NetworkId | VolumeId): string {
  return id.slice(0, id.indexOf("."));
}

function replace<Key, Value>(map: Map<Key, Value>, entries: readonly (readonly [Key, Value])[]): void {
  map.clear();
  for (const [key, value] of entries) map.set(key, value);
}
