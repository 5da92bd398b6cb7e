import { PoolService } from "../../gen/croft/v1/resource_pb.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";

export function poolService({ host }: Pick<Needs, "host">): Served {
  return serve(PoolService, {
    async listPools(_, call) {
      return { pools: [...(await host.pools(call))] };
    },
  });
}
