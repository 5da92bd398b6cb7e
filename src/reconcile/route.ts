import type { InstanceId } from "../base/id.ts";
import { parseInstanceId } from "../base/id.ts";
import type { InstanceSection } from "../stack/model.ts";
import type { AddressBook } from "./address-book.ts";
import { namesOf } from "./launch.ts";
import { networkIdOf } from "./parts.ts";
import { holderOf, type Route } from "./routing.ts";

/** The names and published ports of an instance that is ready, from its leases. */
export function routeOf(
  stack: string,
  id: InstanceId,
  section: InstanceSection,
  book: AddressBook,
  isInternal: (network: string) => boolean,
): Route {
  const { name = "", ordinal = 1 } = parseInstanceId(id) ?? {};
  const members = section.networks.flatMap((network) => {
    const networkId = networkIdOf(stack, network);
    const address = book.addressOf(id, networkId);
    return address === undefined ? [] : [{ network: networkId, address }];
  });
  // Nothing from outside comes into an internal network, so published ports lead to the first one that is not.
  const open = section.networks.find((network) => !isInternal(network));
  const target = open === undefined ? undefined : book.addressOf(id, networkIdOf(stack, open));
  const names = namesOf(stack, { name, ordinal, section });
  return {
    id,
    holder: holderOf(id),
    names: members.flatMap((member) => names.map((known) => ({ ...member, name: known }))),
    ports:
      target === undefined
        ? []
        : section.publish.map(({ hostAddress, hostPort, port, protocol }) => ({
            hostAddress,
            hostPort,
            protocol,
            address: target,
            port,
          })),
  };
}
