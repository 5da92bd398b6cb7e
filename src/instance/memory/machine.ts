import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { InstanceId } from "../../base/id.ts";
import type { Engine, SnapshotFacts, SnapshotSpec } from "../contract.ts";
import type { Keepsake, MemoryInstance } from "./engine.ts";
import { ImitatedSession } from "./process.ts";

type Find = (id: InstanceId) => MemoryInstance | undefined;

/** What full machines can do beyond programs, imitated. */
export function imitateMachine(
  engine: Engine,
  find: Find,
  keepsakes: Map<InstanceId, Keepsake>,
): Required<Pick<Engine, "snapshots" | "hotplug" | "console" | "screenshot" | "guest" | "export" | "keepsake">> {
  return {
    snapshots: {
      createSnapshot: async (id, spec, call) => createSnapshot(known(find, id), spec, call),
      listSnapshots: async (id) => [...known(find, id).snapshots.values()],
      removeSnapshot: async (id, name) => void find(id)?.snapshots.delete(name),
      revert: (id, request, call) => revert(engine, known(find, id), request, call),
    },
    hotplug: {
      replug: async (launch) => {
        running(find, launch.id, "change the disks and nics of").launch = launch;
      },
    },
    console: {
      console: async (id) => {
        const session = new ImitatedSession({ endsProcess: false });
        const { process } = running(find, id, "open the console of");
        if (process !== undefined) session.join(process);
        return session;
      },
    },
    screenshot: {
      screenshot: async (id) => {
        running(find, id, "take a picture of");
        return onePixel;
      },
    },
    guest: {
      guest: async (id) => {
        const { launch } = running(find, id, "ask the guest of");
        const taps = launch.attachment.kind === "tap" ? launch.attachment.taps : [];
        return {
          hostname: launch.hostname,
          system: "imitated",
          kernel: "",
          addresses: taps.map(({ mac, address, prefixLength }, index) => {
            return { interface: `eth${index}`, mac, address: `${address}/${prefixLength}` };
          }),
        };
      },
    },
    export: {
      exportDisks: async (id, directory) => {
        const { launch } = known(find, id);
        const disks = launch.kind === "machine" ? launch.disks.filter(({ cdrom }) => !cdrom) : [];
        return await Promise.all(
          disks.map(async ({ name }) => {
            const path = join(directory, `${name}.qcow2`);
            await writeFile(path, `disk ${name} of ${id}`);
            return { name, path };
          }),
        );
      },
    },
    keepsake: {
      forget: async (id) => void keepsakes.delete(id),
      exportFirmware: async (id, path) => {
        const { firmware } = keepsakes.get(id) ?? { firmware: id };
        await writeFile(path, firmware);
        return true;
      },
      importFirmware: async (id, path) => {
        keepsakes.set(id, { snapshots: new Map<string, SnapshotFacts>(), firmware: `file ${path}` });
      },
      inherit: async (from, to) => {
        const { firmware } = keepsakes.get(from) ?? { firmware: from };
        keepsakes.set(to, { snapshots: new Map<string, SnapshotFacts>(), firmware });
      },
    },
  };
}

function createSnapshot(instance: MemoryInstance, spec: SnapshotSpec, call: Call): void {
  const before = instance.snapshots.get(spec.name);
  if (before?.memory === spec.memory) return;
  if (before !== undefined) {
    throw new Fault("conflict", `there is a snapshot ${spec.name} of another kind`, { hint: "choose another name" });
  }
  if (spec.memory && instance.status !== "running" && instance.status !== "frozen") {
    throw new Fault("precondition", `keep the memory of ${instance.launch.id}: it is not running`);
  }
  const facts: SnapshotFacts = { ...spec, createdMs: call.clock.nowMs(), usedBytes: 2 ** 20 };
  instance.snapshots.set(spec.name, facts);
}

async function revert(
  engine: Engine,
  instance: MemoryInstance,
  { name, mark }: { readonly name: string; readonly mark: string },
  call: Call,
): Promise<void> {
  if (instance.revertMark === mark) return;
  const snapshot = instance.snapshots.get(name);
  const { id } = instance.launch;
  if (snapshot === undefined) throw new Fault("not-found", `${id} has no snapshot ${name}`);
  await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
  delete instance.exit;
  instance.status = "created";
  instance.revertMark = mark;
  if (snapshot.memory) await engine.start(id, call);
}

function known(find: Find, id: InstanceId): MemoryInstance {
  const instance = find(id);
  if (instance === undefined) throw new Fault("not-found", `there is no machine ${id}`);
  return instance;
}

function running(find: Find, id: InstanceId, verb: string): MemoryInstance {
  const instance = find(id);
  if (instance?.status === "running" || instance?.status === "frozen") return instance;
  throw new Fault("precondition", `${verb} ${id}: it is not running`, { hint: "start it first" });
}

/** The smallest picture there is. */
const onePixel = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);
