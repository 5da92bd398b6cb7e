import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { InstanceId, NetworkId } from "../base/id.ts";
import { parseInstanceId } from "../base/id.ts";
import { chooseAddress, chooseSubnet } from "../network/address.ts";
import type { Entry, Store } from "../store/contract.ts";
import { Cell, keyOf, type NetworkRecord } from "./record.ts";

/**
 * Which network has which subnet, and which instance which address in it. Durable, so that both stay the same across
 * restarts, updates and reboots. A network's addresses are one record, so many leases at once (fifty containers started
 * together) are reserved first and cost one write to the store.
 */
export class AddressBook {
  readonly #store: Store;
  readonly #pool: string;
  /** Subnets that the host itself uses. */
  readonly #foreign: () => readonly string[];
  readonly #pages = new Map<NetworkId, Page>();

  constructor(store: Store, subnetPool: string, foreignSubnets: () => readonly string[]) {
    this.#store = store;
    this.#pool = subnetPool;
    this.#foreign = foreignSubnets;
  }

  async load(call: Call): Promise<void> {
    for (const entry of await this.#store.list<NetworkRecord>("network/", call)) {
      this.#pages.set(entry.value.id, new Page(this.#store, entry.value.id, entry));
    }
  }

  /** The network's subnet: the wanted one, or the one it has, or a free one for `members`; recorded when this returns. */
  async subnet(id: NetworkId, wanted: string | undefined, members: number, call: Call): Promise<string> {
    const page = this.#pages.get(id) ?? new Page(this.#store, id, undefined);
    this.#pages.set(id, page);
    if (page.subnet === "" || (wanted !== undefined && wanted !== page.subnet)) {
      // Addresses of another subnet mean nothing in this one.
      page.reset(wanted ?? chooseSubnet(this.#pool, id, [...this.subnets(), ...this.#foreign()], prefixFor(members)));
    }
    await page.flush(call);
    return page.subnet;
  }

  subnetOf(id: NetworkId): string | undefined {
    return this.#pages.get(id)?.subnet;
  }

  /** Every subnet in use. */
  subnets(): readonly string[] {
    return [...this.#pages.values()].map((page) => page.subnet).filter((subnet) => subnet !== "");
  }

  addressOf(instance: InstanceId, network: NetworkId): string | undefined {
    return this.#pages.get(network)?.addresses.get(instance);
  }

  /** Who has which address in a network. */
  members(network: NetworkId): ReadonlyMap<InstanceId, string> {
    return this.#pages.get(network)?.addresses ?? new Map();
  }

  /** The instance's address in a network: the one it has, else its slot's last one if that is free, else another. */
  async lease(instance: InstanceId, network: NetworkId, call: Call): Promise<string> {
    let page = this.#pages.get(network);
    if (page === undefined || page.subnet === "") {
      await this.subnet(network, undefined, 1, call);
      page = this.#pages.get(network);
    }
    if (page === undefined) throw new Fault("bug", `network ${network} has no subnet`);
    const address = page.addresses.get(instance) ?? page.choose(instance);
    // Also an address that is known may not be durable yet: the write that was to make it so may have failed.
    await page.flush(call);
    return address;
  }

  /**
   * Chooses without writing: the next lease in the network writes all that was reserved. Not where the slot's address is
   * still held by the instance that is replaced: it may be free by the time of the lease.
   */
  reserve(instance: InstanceId, network: NetworkId): void {
    const page = this.#pages.get(network);
    if (page === undefined || page.subnet === "" || page.addresses.has(instance)) return;
    const last = page.slots.get(slotOf(instance));
    if (last === undefined || !page.taken.has(last)) page.choose(instance);
  }

  /**
   * Frees every address of an instance. Its slot keeps remembering its own, unless nothing like it will come again. Not
   * written at once: what a daemon that dies forgets to free, the next one frees.
   */
  release(instance: InstanceId, forgetSlot: boolean): void {
    for (const page of this.#pages.values()) page.free(instance, forgetSlot ? slotOf(instance) : undefined);
  }

  /**
   * Frees what instances that are gone held: after a crash between removing one and releasing its address. Not written at
   * once either: a daemon has to start on a full disk too.
   */
  releaseAllBut(alive: (instance: InstanceId) => boolean): void {
    for (const page of this.#pages.values()) {
      for (const instance of page.addresses.keys()) if (!alive(instance)) page.free(instance, undefined);
    }
  }

  /** Writes what was released, and forgets networks of a stack that are neither wanted nor on the host. */
  async tidy(owner: string, isThere: (network: NetworkId) => boolean, call: Call): Promise<void> {
    for (const [id, page] of this.#pages) {
      if (id.startsWith(`${owner}.`) && !isThere(id)) await this.forget(id, call);
      else await page.flush(call);
    }
  }

  async forget(id: NetworkId, call: Call): Promise<void> {
    await this.#pages.get(id)?.remove(call);
    this.#pages.delete(id);
  }
}

/** One network's record, written by one writer: all changes made while a write is under way go with the next one. */
class Page {
  readonly #id: NetworkId;
  readonly #cell: Cell<NetworkRecord>;
  subnet: string;
  readonly addresses: Map<InstanceId, string>;
  readonly slots: Map<string, string>;
  readonly taken: Set<string>;
  /** Grows with each change; what was written last had the other one. */
  #version = 0;
  #written = 0;
  #removed = false;
  #writing: Promise<void> | undefined;

  constructor(store: Store, id: NetworkId, entry: Entry<NetworkRecord> | undefined) {
    this.#id = id;
    this.#cell = new Cell(store, keyOf.network(id), entry);
    this.subnet = entry?.value.subnet ?? "";
    this.addresses = new Map(Object.entries(entry?.value.addresses ?? {}) as [InstanceId, string][]);
    this.slots = new Map(Object.entries(entry?.value.slots ?? {}));
    this.taken = new Set(this.addresses.values());
  }

  reset(subnet: string): void {
    this.#version += 1;
    this.subnet = subnet;
    this.addresses.clear();
    this.slots.clear();
    this.taken.clear();
  }

  choose(instance: InstanceId): string {
    const slot = slotOf(instance);
    const address = chooseAddress(this.subnet, { seed: slot, preferred: this.slots.get(slot), taken: this.taken });
    this.#version += 1;
    this.addresses.set(instance, address);
    this.taken.add(address);
    this.slots.set(slot, address);
    return address;
  }

  free(instance: InstanceId, slot: string | undefined): void {
    const address = this.addresses.get(instance);
    if (address === undefined) return;
    this.#version += 1;
    this.addresses.delete(instance);
    this.taken.delete(address);
    if (slot !== undefined) this.slots.delete(slot);
  }

  /** Nothing is written from here on: what others still change of it must not bring it back. */
  async remove(call: Call): Promise<void> {
    this.#removed = true;
    try {
      await this.#writing?.catch(() => {});
      await this.#cell.remove(call);
    } catch (thrown) {
      this.#removed = false;
      throw thrown;
    }
  }

  /** Resolves when everything changed so far is durable. */
  async flush(call: Call): Promise<void> {
    const wanted = this.#version;
    while (this.#written < wanted && !this.#removed) {
      // What others' write could not do, this one tries itself.
      if (this.#writing === undefined) await this.#write(call);
      else await this.#writing.catch(() => {});
    }
  }

  async #write(call: Call): Promise<void> {
    const version = this.#version;
    this.#writing = this.#cell.update(() => this.#record(), call);
    try {
      await this.#writing;
      this.#written = version;
    } finally {
      this.#writing = undefined;
    }
  }

  #record(): NetworkRecord {
    return {
      id: this.#id,
      subnet: this.subnet,
      addresses: Object.fromEntries(this.addresses),
      slots: Object.fromEntries(this.slots),
    };
  }
}

/** A /24, or as large as it takes to hold every member twice, as they are during a `start-first` update. */
function prefixFor(members: number): number {
  return Math.min(24, 32 - Math.ceil(Math.log2(members * 2 + 16)));
}

/** `shop.web.1`: what stays when an instance is replaced by another version of itself. */
function slotOf(instance: InstanceId): string {
  const parts = parseInstanceId(instance);
  return parts === undefined ? instance : `${parts.stack}.${parts.name}.${parts.ordinal}`;
}
