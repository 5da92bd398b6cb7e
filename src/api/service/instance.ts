import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { parseDurationMs } from "../../base/unit.ts";
import { InstanceService } from "../../gen/croft/v1/instance_pb.ts";
import type { LogRange } from "../../instance/contract.ts";
import type { InstanceView } from "../../reconcile/contract.ts";
import { serve, type ApiCall, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";
import { mergeAsTheyCome, mergeByTime } from "./merge.ts";
import { runInstance } from "./run.ts";
import { attachInstance, execInstance } from "./session.ts";
import { streamStats } from "./stats.ts";
import { instanceMessage } from "./view.ts";

export function instanceService({ cloud: { instances } }: Pick<Needs, "cloud">): Served {
  const revision = (): number => instances.revision();
  return serve(
    InstanceService,
    {
      async listInstances({ stack, all }) {
        const shown = instances
          .list()
          .filter((view) => (stack === "" || view.stack === stack) && (all || view.status !== "exited"));
        return { instances: shown.map(instanceMessage) };
      },
      async getInstance({ instance }) {
        return instanceMessage(instances.find(instance));
      },
      runInstance: (requests, call) => runInstance(instances, requests, call),
      execInstance: (requests, call) => execInstance(instances, requests, call),
      attachInstance: (requests, call) => attachInstance(instances, requests, call),
      async startInstance({ instance }, call) {
        return instanceMessage(await instances.start(instances.find(instance).id, call));
      },
      async stopInstance({ instance, grace }, call) {
        return instanceMessage(await instances.stop(instances.find(instance).id, graceMs(grace), call));
      },
      async restartInstance({ instance, grace }, call) {
        return instanceMessage(await instances.restart(instances.find(instance).id, graceMs(grace), call));
      },
      async killInstance({ instance, signal }, call) {
        const name = signal === "" ? "SIGKILL" : signal;
        return instanceMessage(await instances.kill(instances.find(instance).id, name, call));
      },
      async pauseInstance({ instance }, call) {
        return instanceMessage(await instances.pause(instances.find(instance).id, call));
      },
      async unpauseInstance({ instance }, call) {
        return instanceMessage(await instances.unpause(instances.find(instance).id, call));
      },
      async suspendInstance({ instance }, call) {
        return instanceMessage(await instances.suspend(instances.find(instance).id, call));
      },
      async removeInstance({ instance, force }, call) {
        await instances.remove(instances.find(instance).id, force, call);
        return {};
      },
      streamLogs({ instance, follow, since, tail }, call) {
        const range: LogRange = {
          follow,
          ...(since !== undefined && { sinceMs: timestampMs(since) }),
          ...(tail !== undefined && { tail }),
        };
        const logs = instances.select(instance).map((view) => entriesOf(view, range, call));
        return follow ? mergeAsTheyCome(logs) : mergeByTime(logs, (entry) => entry.timeMs);
      },
      async listProcesses({ instance }, call) {
        const processes = await instances.processes(instances.find(instance).id, call);
        return {
          processes: processes.map(({ startedMs, ...facts }) => ({ ...facts, started: timestampFromMs(startedMs) })),
        };
      },
      streamStats: (request, call) => streamStats(instances, request, call),
    },
    { listInstances: revision, getInstance: revision },
  );

  async function* entriesOf(view: InstanceView, range: LogRange, call: ApiCall) {
    for await (const { timeMs, stream, bytes, partial } of instances.logs(view.id, range, call)) {
      yield {
        timeMs,
        time: timestampFromMs(timeMs),
        instance: `${view.stack}/${view.name}`,
        stream,
        line: bytes,
        partial,
      };
    }
  }
}

/** Empty: as the instance itself says. */
function graceMs(grace: string): number | undefined {
  return grace === "" ? undefined : parseDurationMs(grace);
}
