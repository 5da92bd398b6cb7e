import type { Call } from "../base/call.ts";
import type { InstanceId, NetworkId } from "../base/id.ts";
import { parseInstanceId } from "../base/id.ts";
import { chooseAddress, chooseSubnet } from "../network/address.ts";
import type { Entry, Store } from "../store/contract.ts";
import { Cell, keyOf, type NetworkRecord } from "./record.ts";

/**
 * Which network has which subnet, and which instance which address in it. Durable, so that both stay the same across
 * restarts, updates and reboots. Many leases at once (fifty containers started together) cost one write to the store.
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

  /** The network's subnet: the wanted one, or the one it has, or a free one; recorded when this returns. */
  async subnet(id: NetworkId, wanted: string | undefined, call: Call): Promise<string> {
    const page = this.#pages.get(id) ?? new Page(this.#store, id, undefined);
    this.#pages.set(id, page);
    if (page.subnet !== "" && (wanted === undefined || wanted === page.subnet)) return page.subnet;
    // Addresses of another subnet mean nothing in this one.
    page.reset(wanted ?? chooseSubnet(this.#pool, id, [...this.subnets(), ...this.#foreign()]));
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

  /** The instance's address in a network: the one it has, else its slot's last one if that is free, else another. */
  async lease(instance: InstanceId, network: NetworkId, call: Call): Promise<string> {
    const known = this.addressOf(instance, network);
    if (known !== undefined) return known;
    const subnet = await this.subnet(network, undefined, call);
    const page = this.#pages.get(network) as Page;
    const slot = slotOf(instance);
    const address = chooseAddress(subnet, { seed: slot, preferred: page.slots.get(slot), taken: page.taken });
    page.addresses.set(instance, address);
    page.taken.add(address);
    page.slots.set(slot, address);
    await page.flush(call);
    return address;
  }

  /** Frees every address of an instance. Its slot keeps remembering its own, unless nothing like it will come again. */
  async release(instance: InstanceId, forgetSlot: boolean, call: Call): Promise<void> {
    const changed: Promise<void>[] = [];
    for (const page of this.#pages.values()) {
      const address = page.addresses.get(instance);
      if (address === undefined) continue;
      page.addresses.delete(instance);
      page.taken.delete(address);
      if (forgetSlot) page.slots.delete(slotOf(instance));
      changed.push(page.flush(call));
    }
    await Promise.all(changed);
  }

  /** Frees what instances that are gone held: after a crash between removing one and releasing its address. */
  async releaseAllBut(alive: (instance: InstanceId) => boolean, call: Call): Promise<void> {
    for (const page of this.#pages.values()) {
      for (const instance of page.addresses.keys()) {
        if (!alive(instance)) await this.release(instance, false, call);
      }
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
  #writing: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(store: Store, id: NetworkId, entry: Entry<NetworkRecord> | undefined) {
    this.#id = id;
    this.#cell = new Cell(store, keyOf.network(id), entry);
    this.subnet = entry?.value.subnet ?? "";
    this.addresses = new Map(Object.entries(entry?.value.addresses ?? {}) as [InstanceId, string][]);
    this.slots = new Map(Object.entries(entry?.value.slots ?? {}));
    this.taken = new Set(this.addresses.values());
  }

  reset(subnet: string): void {
    this.subnet = subnet;
    this.addresses.clear();
    this.slots.clear();
    this.taken.clear();
  }

  async remove(call: Call): Promise<void> {
    await this.#writing?.catch(() => {});
    await this.#cell.remove(call);
  }

  /** Resolves when everything changed so far is durable. */
  flush(call: Call): Promise<void> {
    if (this.#writing === undefined) {
      this.#writing = this.#cell.put(this.#record(), call).finally(() => {
        this.#writing = undefined;
      });
      return this.#writing;
    }
    this.#next ??= this.#writing
      .catch(() => {})
      .then(() => {
        this.#next = undefined;
        return this.flush(call);
      });
    return this.#next;
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

/** `shop.web.1`: what stays when an instance is replaced by another version of itself. */
function slotOf(instance: InstanceId): string {
  const parts = parseInstanceId(instance);
  return parts === undefined ? instance : `${parts.stack}.${parts.name}.${parts.ordinal}`;
}
