import { Fault } from "../../base/fault.ts";
import type { NetworkId } from "../../base/id.ts";
import { resolverAddresses } from "../address.ts";
import type { NetworkSpec, PortSpec } from "../contract.ts";
import type { Records } from "./record.ts";
import type { Resolver } from "./resolver.ts";
import type { Ruleset } from "./ruleset.ts";

export interface PortRecord extends PortSpec {
  /**
   * Resolvers for sets of networks that it was in before, by address: a machine whose nics change while it runs goes on
   * asking the one that its guest was told of.
   */
  readonly told?: readonly string[];
}

/**
 * Which resolvers for instances in several networks there are, and who may ask them; `resolver.ts` has them run. One for
 * each set of networks, as long as an instance is in all of them.
 */
export class SharedResolvers {
  /** By address. */
  readonly #records: Records<Resolver>;
  readonly #ports: Records<PortRecord>;

  constructor(records: Records<Resolver>, ports: Records<PortRecord>) {
    this.#records = records;
    this.#ports = ports;
  }

  all(): Resolver[] {
    return [...this.#records.values()];
  }

  /** Those that know the names of this network. */
  knowing(id: NetworkId): Resolver[] {
    return this.all().filter(({ networks }) => networks.includes(id));
  }

  /** Those of them that listen on this network's bridge. */
  at(id: NetworkId): Resolver[] {
    return this.all().filter(({ networks }) => networks[0] === id);
  }

  /** Whichever of the networks came first when it was made: its address is what instances were told. */
  find(networks: readonly NetworkId[]): Resolver | undefined {
    return this.all().find((resolver) => setOf(resolver.networks) === setOf(networks));
  }

  /** A new one that listens in `main`. Throws `exhausted` when all addresses for resolvers are taken there. */
  add(main: NetworkSpec, networks: readonly NetworkId[], internal: boolean): Resolver {
    const address = resolverAddresses(main.subnet).find((free) => this.#records.get(free) === undefined);
    if (address === undefined) {
      throw new Fault("exhausted", `find an address for another resolver in network ${main.id}`, {
        hint: "give the network a larger subnet, or put its instances in fewer different sets of networks",
      });
    }
    const others = networks.filter((id) => id !== main.id).toSorted();
    const resolver = { address, networks: [main.id, ...others], internal };
    this.#records.put(address, resolver);
    return resolver;
  }

  setInternal(resolver: Resolver, internal: boolean): void {
    this.#records.put(resolver.address, { ...resolver, internal });
  }

  /** Returns false when it was removed, or became another one, meanwhile. */
  remove(resolver: Resolver): boolean {
    if (this.#records.get(resolver.address) !== resolver) return false;
    this.#records.remove(resolver.address);
    return true;
  }

  /** Whether an instance is in all of its networks, or was told of it. */
  isAsked(resolver: Resolver): boolean {
    return [...this.#ports.values()].some((port) => asks(port, resolver));
  }

  /** Each with the addresses of those who may ask it. */
  withClients(): Ruleset["resolvers"] {
    return this.all().map((resolver) => ({
      address: resolver.address,
      clients: [...this.#ports.values()].flatMap((port) => {
        return asks(port, resolver) ? (addressIn(port, resolver) ?? []) : [];
      }),
    }));
  }

  /** The record of a port, with the resolvers it may have been told of while it was in other networks. */
  remembering(port: PortSpec, before: PortRecord | undefined): PortRecord {
    if (before === undefined) return port;
    const told = this.all()
      .filter((resolver) => asks(before, resolver) && !asks(port, resolver) && addressIn(port, resolver) !== undefined)
      .map(({ address }) => address);
    return told.length === 0 ? port : { ...port, told };
  }
}

/** Whether the instance may ask it: the resolver for its networks, or one it was told of before. */
function asks({ nics, told }: PortRecord, { address, networks }: Resolver): boolean {
  return setOf(nics.map(({ network }) => network)) === setOf(networks) || told?.includes(address) === true;
}

/** The instance's address in the network that the resolver listens in. */
function addressIn({ nics }: PortSpec, { networks }: Resolver): string | undefined {
  return nics.find(({ network }) => network === networks[0])?.address;
}

/** The same text for the same networks, in whatever order. */
function setOf(networks: readonly NetworkId[]): string {
  return networks.toSorted().join();
}
