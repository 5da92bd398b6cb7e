import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { MachineService, type ImportMachineRequest, type SnapshotSchema } from "../../gen/croft/v1/machine_pb.ts";
import type { SnapshotFacts } from "../../instance/contract.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";
import { introduced } from "./introduced.ts";
import { required } from "./required.ts";
import { converse, readStart } from "./session.ts";
import { instanceMessage } from "./view.ts";

export function machineService({ cloud: { instances, machines } }: Pick<Needs, "cloud">): Served {
  const idOf = (machine: string) => instances.find(machine).id;
  return serve(MachineService, {
    async createSnapshot({ machine, name, memory }, call) {
      required(name, "name");
      return snapshotMessage(await machines.snapshot(idOf(machine), { name, memory }, call));
    },
    async listSnapshots({ machine }, call) {
      return { snapshots: (await machines.snapshots(idOf(machine), call)).map(snapshotMessage) };
    },
    async revertSnapshot({ machine, snapshot }, call) {
      return instanceMessage(await machines.revert(idOf(machine), snapshot, call));
    },
    async removeSnapshot({ machine, snapshot }, call) {
      await machines.removeSnapshot(idOf(machine), snapshot, call);
      return {};
    },
    async *openConsole(requests, call) {
      const spoken = requests[Symbol.asyncIterator]();
      const { machine } = await readStart(spoken);
      yield* converse(await machines.console(idOf(machine), call), spoken, { input: true }, call);
    },
    async takeScreenshot({ machine }, call) {
      return { png: await machines.screenshot(idOf(machine), call) };
    },
    async getGuest({ machine }, call) {
      const { addresses, ...facts } = await machines.guest(idOf(machine), call);
      return { ...facts, addresses: [...addresses] };
    },
    async *exportMachine({ machine }, call) {
      for await (const chunk of machines.export(idOf(machine), call)) yield { chunk };
    },
    async importMachine(requests, call) {
      const { first, chunks } = await introduced<ImportMachineRequest>(requests);
      const name = first === undefined || first.name === "" ? undefined : first.name;
      return instanceMessage(await machines.import(chunks, { name, author: call.author }, call));
    },
    async cloneMachine({ machine, name }, call) {
      required(name, "name");
      return instanceMessage(await machines.clone(idOf(machine), { name, author: call.author }, call));
    },
  });
}

function snapshotMessage({
  name,
  memory,
  createdMs,
  usedBytes,
}: SnapshotFacts): MessageInitShape<typeof SnapshotSchema> {
  return { name, memory, created: timestampFromMs(createdMs), ...(usedBytes !== undefined && { usedBytes }) };
}
