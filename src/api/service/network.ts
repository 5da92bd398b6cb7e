import { NetworkService } from "../../gen/croft/v1/resource_pb.ts";
import type { NetworkView } from "../../reconcile/contract.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";
import { findNamed } from "./named.ts";

export function networkService({ cloud }: Pick<Needs, "cloud">): Served {
  return serve(NetworkService, {
    async listNetworks({ stack }) {
      const networks = cloud.stacks.networks().filter((network) => stack === "" || network.stack === stack);
      return { networks: networks.map(toMessage) };
    },
    async getNetwork({ network }) {
      return toMessage(findNamed("network", cloud.stacks.networks(), network));
    },
  });
}

function toMessage({ members, ...network }: NetworkView) {
  return { ...network, members: [...members] };
}
