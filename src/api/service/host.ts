import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { HostService } from "../../gen/croft/v1/host_pb.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";

export function hostService({ host, cloud }: Pick<Needs, "host" | "cloud">): Served {
  return serve(HostService, {
    async getHost(_, call) {
      const { startedMs, ...info } = await host.info(call);
      const running = cloud.instances.list().filter(({ status }) => status === "running");
      return { ...info, started: timestampFromMs(startedMs), instancesRunning: running.length };
    },
    async diagnoseHost(_, call) {
      return { findings: [...(await host.diagnose(call))] };
    },
  });
}
