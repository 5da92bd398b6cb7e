import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { isFault } from "../../base/fault.ts";
import type { InstanceId } from "../../base/id.ts";
import type { InstanceStatsSchema, StatsReadingSchema, StreamStatsRequest } from "../../gen/croft/v1/instance_pb.ts";
import type { Stats } from "../../instance/contract.ts";
import type { InstanceView, Instances } from "../../reconcile/contract.ts";
import type { ApiCall } from "../handler.ts";

const defaultIntervalMs = 1000;
/** Reading the counters of fifty containers takes some milliseconds: more often would cost more than it tells. */
const minIntervalMs = 200;

/**
 * A reading of every running instance each interval. Percentages need two readings, so the first one comes after the
 * first interval; a single one after the shortest.
 */
export async function* streamStats(
  instances: Instances,
  { instances: names, intervalMs, once }: StreamStatsRequest,
  call: ApiCall,
): AsyncGenerator<MessageInitShape<typeof StatsReadingSchema>> {
  const pauseMs = once ? minIntervalMs : Math.max(minIntervalMs, intervalMs === 0 ? defaultIntervalMs : intervalMs);
  let before = await readAll(instances, names, call);
  for (;;) {
    await call.clock.sleep(pauseMs, call.signal);
    const now = await readAll(instances, names, call);
    const readings = [...now].map(([id, { view, stats }]) => toMessage(view, stats, before.get(id)?.stats));
    yield { time: timestampFromMs(call.clock.nowMs()), instances: readings };
    if (once) return;
    before = now;
  }
}

type Readings = Map<InstanceId, { readonly view: InstanceView; readonly stats: Stats }>;

async function readAll(instances: Instances, names: readonly string[], call: ApiCall): Promise<Readings> {
  const chosen = names.length === 0 ? instances.list() : names.flatMap((name) => instances.select(name));
  const running = chosen.filter(({ status }) => status === "running" || status === "paused");
  const readings: Readings = new Map();
  await Promise.all(
    running.map(async (view) => {
      try {
        readings.set(view.id, { view, stats: await instances.stats(view.id, call) });
      } catch (error) {
        // It ended between being listed and being read.
        if (!isFault(error, "precondition") && !isFault(error, "not-found")) throw error;
      }
    }),
  );
  return readings;
}

function toMessage(
  { id, stack, name }: InstanceView,
  stats: Stats,
  before: Stats | undefined,
): MessageInitShape<typeof InstanceStatsSchema> {
  const { timeMs, cpuNs, memoryLimitBytes, ...counters } = stats;
  const passedMs = before === undefined ? 0 : timeMs - before.timeMs;
  const usedMs = before === undefined ? 0 : Number(cpuNs - before.cpuNs) / 1e6;
  return {
    id,
    stack,
    name,
    cpuPercent: passedMs > 0 ? Math.max(0, (usedMs / passedMs) * 100) : 0,
    ...counters,
    ...(memoryLimitBytes !== undefined && { memoryLimitBytes }),
  };
}
