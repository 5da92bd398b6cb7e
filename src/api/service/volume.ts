import { VolumeService } from "../../gen/croft/v1/resource_pb.ts";
import type { VolumeView } from "../../reconcile/contract.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";
import { findNamed } from "./named.ts";

export function volumeService({ cloud }: Pick<Needs, "cloud">): Served {
  return serve(VolumeService, {
    async listVolumes({ stack }, call) {
      const volumes = await cloud.stacks.volumes(call);
      return { volumes: volumes.filter((volume) => stack === "" || volume.stack === stack).map(toMessage) };
    },
    async getVolume({ volume }, call) {
      return toMessage(findNamed("volume", await cloud.stacks.volumes(call), volume));
    },
    async removeVolume({ volume }, call) {
      await cloud.stacks.removeVolume(findNamed("volume", await cloud.stacks.volumes(call), volume).id, call);
      return {};
    },
  });
}

function toMessage({ usedBy, ...volume }: VolumeView) {
  return { ...volume, usedBy: [...usedBy] };
}
