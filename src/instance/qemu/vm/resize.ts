import { type Call, withDeadline } from "../../../base/call.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/id.ts";
import { formatSize } from "../../../base/unit.ts";
import type { Limits } from "../../contract.ts";
import type { Qmp } from "../qmp.ts";
import { withAgent } from "./agent.ts";
import type { MachinePaths } from "./places.ts";
import { defaultMemoryBytes, elasticOf, type Shape, wholeCpus } from "./shape.ts";

/** How long the guest may take to give memory back, or to take what it is given. */
const guestTimeoutMs = 20_000;
/** virtio-mem plugs memory in pieces of this size. */
const pieceBytes = 2 * 2 ** 20;

/**
 * Gives a running machine other limits and returns its new shape. More processors are plugged in; fewer than there are is
 * a matter of the host's quota. Less memory than it began with is taken by the balloon, more is plugged in. `precondition`
 * when a limit is out of range, or the guest does not take part: then its memory stays what it was.
 */
export async function resizeMachine(
  id: InstanceId,
  shape: Shape,
  limits: Limits,
  qmp: Qmp,
  paths: MachinePaths,
  call: Call,
): Promise<Shape> {
  const memoryBytes = limits.memoryBytes ?? defaultMemoryBytes;
  requireRange(id, shape, { ...limits, memoryBytes });
  const pluggedMemoryBytes = Math.ceil(Math.max(0, memoryBytes - shape.memoryBytes) / pieceBytes) * pieceBytes;
  if (pluggedMemoryBytes !== shape.pluggedMemoryBytes) await plugMemory(id, shape, pluggedMemoryBytes, qmp, call);
  if (shape.balloon) await setBalloon(id, shape, Math.min(memoryBytes, shape.memoryBytes), qmp, call);
  const cpus = Math.max(shape.cpus, wholeCpus(limits));
  if (cpus > shape.cpus) await plugCpus(cpus, qmp, call);
  if (cpus > shape.cpus || pluggedMemoryBytes > shape.pluggedMemoryBytes) await bringOnline(paths, call);
  return { ...shape, cpus, pluggedMemoryBytes };
}

function requireRange(id: InstanceId, shape: Shape, limits: Limits & { readonly memoryBytes: number }): void {
  const elastic = elasticOf(shape);
  const { cpus, memoryBytes } = limits;
  if (cpus !== undefined && cpus > elastic.cpus.max) {
    throw new Fault("precondition", `give ${id} ${cpus} processors: while it runs it can have ${elastic.cpus.max}`, {
      hint: "restart it with more",
    });
  }
  const range = elastic.memoryBytes;
  if (range === undefined) {
    if (memoryBytes === shape.memoryBytes) return;
    throw new Fault("precondition", `change the memory of ${id}: it has no balloon`, {
      hint: "restart it with the new size",
    });
  }
  if (memoryBytes >= range.min && memoryBytes <= range.max) return;
  const between = `between ${formatSize(range.min)} and ${formatSize(range.max)}`;
  throw new Fault(
    "precondition",
    `give ${id} ${formatSize(memoryBytes)} of memory: while it runs it can have ${between}`,
    {
      hint: "restart it with the new size",
    },
  );
}

async function plugMemory(id: InstanceId, shape: Shape, wantedBytes: number, qmp: Qmp, call: Call): Promise<void> {
  const request = (value: number): Promise<unknown> =>
    qmp.execute("qom-set", { path: "/machine/peripheral/spare-memory", property: "requested-size", value }, call);
  await request(wantedBytes);
  const isDone = async (): Promise<boolean> => {
    const devices = (await qmp.execute("query-memory-devices", {}, call)) as readonly { data: { size?: number } }[];
    return devices.every(({ data }) => data.size === undefined || data.size === wantedBytes);
  };
  if (await settles(isDone, call)) return;
  await request(shape.pluggedMemoryBytes);
  const verb = wantedBytes > shape.pluggedMemoryBytes ? "take the memory it is given" : "give the memory back";
  throw new Fault("precondition", `change the memory of ${id}: the guest does not ${verb}`, {
    hint: "it needs the driver virtio-mem, and free memory to give back; or restart it with the new size",
  });
}

async function setBalloon(id: InstanceId, shape: Shape, wantedBytes: number, qmp: Qmp, call: Call): Promise<void> {
  const actual = async (): Promise<number> =>
    ((await qmp.execute("query-balloon", {}, call)) as { actual: number }).actual;
  const before = await actual();
  if (before === wantedBytes) return;
  await qmp.execute("balloon", { value: wantedBytes }, call);
  // Growing needs no consent: the guest takes it back as it can.
  const isDone = async (): Promise<boolean> => wantedBytes > before || (await actual()) <= wantedBytes;
  if (await settles(isDone, call)) return;
  await qmp.execute("balloon", { value: Math.min(before, shape.memoryBytes) }, call);
  throw new Fault("precondition", `take memory from ${id}: the guest does not give it back`, {
    hint: "it needs the driver virtio-balloon, and free memory; or restart it with the new size",
  });
}

/** Whether it becomes so before the guest's time is over. */
async function settles(isDone: () => Promise<boolean>, call: Call): Promise<boolean> {
  using bounded = withDeadline(call, guestTimeoutMs, "wait for the guest");
  try {
    while (!(await isDone())) await call.clock.sleep(50, bounded.signal);
    return true;
  } catch (error) {
    if (isFault(error, "timeout")) return false;
    throw error;
  }
}

interface CpuPlace {
  readonly type: string;
  readonly props: Readonly<Record<string, number>>;
  readonly "qom-path"?: string;
}

async function plugCpus(wanted: number, qmp: Qmp, call: Call): Promise<void> {
  const places = (await qmp.execute("query-hotpluggable-cpus", {}, call)) as readonly CpuPlace[];
  const free = places.filter((place) => place["qom-path"] === undefined).toReversed();
  const count = wanted - (places.length - free.length);
  // Told from the last to the first: the order in which they would have been plugged in from the start is the other one.
  const chosen = inOrder(free).slice(0, Math.max(0, count));
  for (const { type, props } of chosen) {
    const name = Object.entries(props)
      .map(([key, value]) => `${key}${value}`)
      .join("-");
    await qmp.execute("device_add", { driver: type, id: `cpu-${name}`, ...props }, call);
  }
}

function inOrder(places: readonly CpuPlace[]): CpuPlace[] {
  const rank = ({ props }: CpuPlace): number =>
    ((props["socket-id"] ?? 0) * 1024 + (props["core-id"] ?? 0)) * 1024 + (props["thread-id"] ?? 0);
  return [...places].sort((left, right) => rank(left) - rank(right));
}

/** Guests that do not use by themselves what is plugged in are told to by their agent, where they have one. */
async function bringOnline(paths: MachinePaths, call: Call): Promise<void> {
  await withAgent(paths.agentSocket, call, async (agent) => {
    using bounded = withDeadline(call, guestTimeoutMs, "bring processors online");
    try {
      const cpus = (await agent.execute("guest-get-vcpus", {}, bounded)) as readonly {
        "logical-id": number;
        online: boolean;
      }[];
      const offline = cpus
        .filter(({ online }) => !online)
        .map((cpu) => ({ "logical-id": cpu["logical-id"], online: true }));
      if (offline.length > 0) await agent.execute("guest-set-vcpus", { vcpus: offline }, bounded);
      const blocks = (await agent.execute("guest-get-memory-blocks", {}, bounded)) as readonly {
        "phys-index": number;
        online: boolean;
      }[];
      const missing = blocks
        .filter(({ online }) => !online)
        .map((block) => ({ "phys-index": block["phys-index"], online: true }));
      if (missing.length > 0) await agent.execute("guest-set-memory-blocks", { "mem-blks": missing }, bounded);
    } catch (error) {
      // An agent that cannot is as good as none.
      if (!isFault(error, "unsupported") && !isFault(error, "failed") && !isFault(error, "timeout")) throw error;
    }
  });
}
