import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/id.ts";
import type { InstanceFacts, Limits } from "../../contract.ts";
import { readRecord } from "../../monitor/record.ts";
import { limitLine } from "../guest/launch.ts";
import { type GuestSize, highestLimitBytes } from "../guest/size.ts";
import { ask } from "./control.ts";
import { measure } from "./measure.ts";
import type { MachinePaths } from "./place.ts";
import type { MadeAs } from "./start.ts";

/** Between which a running machine can be resized; undefined when none was made. */
export function elasticOf(machine: MachinePaths): InstanceFacts["elastic"] {
  const made = readRecord(machine.madeFile) as MadeAs | undefined;
  if (made === undefined) return undefined;
  return {
    cpus: { min: 0.01, max: made.size.processors },
    memoryBytes: { min: 1, max: highestLimitBytes(made.size) },
    pids: { min: 1, max: 2 ** 22 },
  };
}

/** Changes what the guest's kernel allows its program; returns the size of the machine, which stays. */
export async function resizeGuest(
  id: InstanceId,
  limits: Limits,
  machine: MachinePaths,
  call: Call,
): Promise<GuestSize> {
  const { size } = readRecord(machine.madeFile) as MadeAs;
  refuseBeyond(id, limits, size);
  const { memoryBytes } = await measure(machine, id, call);
  if (limits.memoryBytes !== undefined && limits.memoryBytes < memoryBytes) {
    throw new Fault(
      "precondition",
      `limit the memory of ${id} to ${limits.memoryBytes} bytes: it uses ${memoryBytes}`,
      { hint: "choose a higher limit, or restart it with this one" },
    );
  }
  const [answer] = await ask(machine.controlSocket, `resize ${id}`, limitLine(limits), call);
  if (answer !== "ok") throw new Fault("failed", `resize ${id}: the guest's kernel refuses`);
  return size;
}

function refuseBeyond(id: InstanceId, limits: Limits, size: GuestSize): void {
  const most = highestLimitBytes(size);
  const hint = "restart it with this limit: its machine is made anew then";
  if ((limits.memoryBytes ?? 0) > most) {
    throw new Fault("precondition", `give ${id} ${limits.memoryBytes} bytes of memory: its machine has ${most}`, {
      hint,
    });
  }
  if (Math.ceil(limits.cpus ?? 1) > size.processors) {
    throw new Fault("precondition", `give ${id} ${limits.cpus} processors: its machine has ${size.processors}`, {
      hint,
    });
  }
}
