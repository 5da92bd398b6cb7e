import type { Call } from "../base/call.ts";
import { parseInstanceId, type InstanceId, type NetworkId, type VolumeId } from "../base/id.ts";
import type { Engine, InstanceEvent, InstanceFacts } from "../instance/contract.ts";
import type { NetworkDriver, NetworkFacts } from "../network/contract.ts";
import type { Pool, VolumeFacts } from "../storage/contract.ts";

/**
 * What the loop last saw on the host, of all stacks. It is refreshed from the drivers' lists at the start, now and then,
 * and after every failure; between that it follows the engines' events and what the loop itself did. It is a cache and
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
  /** Names of the disks of machines, also of those that are gone. */
  readonly disks = new Map<InstanceId, ReadonlySet<string>>();
  routingIntact = false;

  readonly #engines: readonly Engine[];
  /** Which engine told of an instance. */
  readonly #owners = new Map<InstanceId, Engine>();
  readonly #pool: Pool;
  readonly #network: NetworkDriver;
  /** Instances by stack, whichever driver knows them. */
  readonly #stacks = new Map<string, Set<InstanceId>>();
  /** What changed while a refresh is under way: of that, what the drivers say may be older than what is known. */
  #touched: Set<string> | undefined;

  constructor(drivers: { readonly engines: readonly Engine[]; readonly pool: Pool; readonly network: NetworkDriver }) {
    this.#engines = drivers.engines;
    this.#pool = drivers.pool;
    this.#network = drivers.network;
  }

  /** Asks every driver. One refresh at a time. Whatever else happens meanwhile is not overwritten by older answers. */
  async refresh(call: Call): Promise<void> {
    const touched = new Set<string>();
    this.#touched = touched;
    try {
      const [lists, pool, disks, network] = await Promise.all([
        Promise.all(this.#engines.map(async (engine) => ({ engine, instances: await engine.list(call) }))),
        this.#pool.list(call),
        this.#pool.disks?.listDisks(call) ?? [],
        this.#network.list(call),
      ]);
      const owned = lists.flatMap(({ engine, instances }) => instances.map((facts) => ({ engine, facts })));
      replace(
        this.instances,
        owned.map(({ facts }) => [facts.id, facts]),
        touched,
      );
      replace(
        this.#owners,
        owned.map(({ engine, facts }) => [facts.id, engine]),
        touched,
      );
      replace(
        this.roots,
        pool.roots.map((root) => [root.id, root.attached]),
        touched,
      );
      replace(
        this.disks,
        [...Map.groupBy(disks, ({ id }) => id)].map(([id, all]) => [id, new Set(all.map(({ name }) => name))]),
        touched,
      );
      replace(
        this.volumes,
        pool.volumes.map((volume) => [volume.id, volume]),
        touched,
      );
      replace(
        this.networks,
        network.networks.map((facts) => [facts.id, facts]),
        touched,
      );
      replace(
        this.ports,
        network.ports.map((port) => [port.id, port.intact]),
        touched,
      );
      this.routingIntact = network.routingIntact;
    } finally {
      this.#touched = undefined;
    }
    this.#stacks.clear();
    for (const id of [...this.instances.keys(), ...this.roots.keys(), ...this.ports.keys()]) this.#index(id);
  }

  /** Takes over what an engine says happened. Returns the stack it concerns. */
  follow(event: InstanceEvent, engine: Engine): string | undefined {
    const facts = this.instances.get(event.id);
    if (event.kind === "started") {
      const { exit: _, ...known } = facts ?? { id: event.id, limits: {} };
      const { pid, startedMs } = event;
      this.sawInstance({ ...known, status: "running", pid, startedMs, intact: true }, engine);
    } else if (event.kind === "exited" && facts !== undefined && event.exit.finishedMs >= (facts.startedMs ?? 0)) {
      const { pid: _, ...rest } = facts;
      this.sawInstance({ ...rest, status: "exited", exit: event.exit }, engine);
    }
    return parseInstanceId(event.id)?.stack;
  }

  /** `engine`: who has it, where that is not known yet. */
  sawInstance(facts: InstanceFacts, engine?: Engine): void {
    this.#touched?.add(facts.id);
    this.instances.set(facts.id, facts);
    if (engine !== undefined) this.#owners.set(facts.id, engine);
    this.#index(facts.id);
  }

  sawRoot(id: InstanceId, attached: boolean): void {
    this.#touched?.add(id);
    this.roots.set(id, attached);
    this.#index(id);
  }

  sawPort(id: InstanceId): void {
    this.#touched?.add(id);
    this.ports.set(id, true);
    this.#index(id);
  }

  sawNetwork(id: NetworkId, subnet: string, internal: boolean): void {
    this.#touched?.add(id);
    this.networks.set(id, { subnet, internal, intact: true });
  }

  lostNetwork(id: NetworkId): void {
    this.#touched?.add(id);
    this.networks.delete(id);
  }

  sawVolume(volume: VolumeFacts): void {
    this.#touched?.add(volume.id);
    this.volumes.set(volume.id, volume);
  }

  lostVolume(id: VolumeId): void {
    this.#touched?.add(id);
    this.volumes.delete(id);
  }

  sawDisk(id: InstanceId, name: string): void {
    this.#touched?.add(id);
    this.disks.set(id, new Set(this.disks.get(id)).add(name));
  }

  lostDisk(id: InstanceId, name: string): void {
    this.#touched?.add(id);
    const names = new Set(this.disks.get(id));
    names.delete(name);
    if (names.size === 0) this.disks.delete(id);
    else this.disks.set(id, names);
  }

  lostInstance(id: InstanceId): void {
    this.#touched?.add(id);
    this.instances.delete(id);
    this.#owners.delete(id);
    this.roots.delete(id);
    this.ports.delete(id);
    const stack = parseInstanceId(id)?.stack ?? "";
    const members = this.#stacks.get(stack);
    members?.delete(id);
    if (members?.size === 0) this.#stacks.delete(stack);
  }

  /** The engine that has an instance; undefined when none told of it. */
  engineOf(id: InstanceId): Engine | undefined {
    return this.#owners.get(id);
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

/** Networks and volumes may be called alike: that one of them is then seen a little later does no harm. */
function replace<Key extends string, Value>(
  map: Map<Key, Value>,
  entries: readonly (readonly [Key, Value])[],
  touched: ReadonlySet<string>,
): void {
  for (const key of map.keys()) if (!touched.has(key)) map.delete(key);
  for (const [key, value] of entries) if (!touched.has(key)) map.set(key, value);
}
