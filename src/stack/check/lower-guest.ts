import { machineDefaults } from "../default.ts";
import type { CloudInitSection, DiskSection, InstanceSection } from "../model.ts";
import type { DiskInput, MachineInput, MicrovmInput } from "./guest-shape.ts";
import { lowerHealth } from "./lower-health.ts";

/** The section of a container that says the same, with a kernel around it. */
export function lowerMicrovm(input: MicrovmInput, program: InstanceSection): InstanceSection {
  const { kernel } = input;
  const warmStart = input["warm-start"];
  return {
    ...program,
    kind: "microvm",
    ...(kernel === undefined ? {} : { kernelPath: kernel }),
    ...(warmStart === undefined ? {} : { warmStart }),
  };
}

export function lowerMachine(input: MachineInput): InstanceSection {
  const { hostname, topology } = input;
  const cpuModel = input["cpu-model"];
  const { order, healthyWithinMs } = machineDefaults.update;
  return {
    ...machineDefaults,
    image: beginning(input.disk),
    disks: lowerDisks(input),
    firmware: input.firmware ?? machineDefaults.firmware,
    tpm: input.tpm ?? machineDefaults.tpm,
    cloudInit: lowerCloudInit(input["cloud-init"]),
    sshKeys: input["ssh-keys"] ?? [],
    hugepages: input.hugepages ?? machineDefaults.hugepages,
    balloon: input.balloon ?? machineDefaults.balloon,
    passthrough: { pci: input.pci ?? [], usb: input.usb ?? [] },
    networks: input.networks ?? machineDefaults.networks,
    publish: input.publish ?? [],
    cpus: input.cpus ?? machineDefaults.cpus,
    memoryBytes: input.memory ?? machineDefaults.memoryBytes,
    restart: input.restart ?? machineDefaults.restart,
    needs: input.needs ?? [],
    replicas: input.replicas ?? machineDefaults.replicas,
    stopGraceMs: input["stop-grace"] ?? machineDefaults.stopGraceMs,
    labels: input.labels ?? {},
    protect: input.protect ?? false,
    log: { maxBytes: input.log?.["max-size"] ?? machineDefaults.log.maxBytes },
    update: {
      order: input.update?.order ?? order,
      healthyWithinMs: input.update?.["healthy-within"] ?? healthyWithinMs,
    },
    ...(hostname === undefined ? {} : { hostname }),
    ...(cpuModel === undefined ? {} : { cpuModel }),
    ...(topology === undefined
      ? {}
      : {
          topology: { sockets: topology.sockets ?? 1, cores: topology.cores ?? 1, threads: topology.threads ?? 1 },
        }),
    ...(input.health === undefined ? {} : { health: lowerHealth(input.health) }),
  };
}

/** What people know the machine by. */
function beginning(disk: DiskInput | undefined): string {
  return disk?.image ?? disk?.iso ?? "blank";
}

/** Those named by `boot` first, then as the file has them. */
function lowerDisks({ disk, disks = {}, boot = [] }: MachineInput): readonly DiskSection[] {
  const all: DiskSection[] = [];
  if (disk?.image !== undefined || disk?.blank === true) all.push(lowerDisk("root", disk));
  if (disk?.iso !== undefined) all.push({ name: "iso", from: { kind: "iso", image: disk.iso } });
  for (const [name, further] of Object.entries(disks)) all.push(lowerDisk(name, further));
  const place = ({ name }: DiskSection): number => (boot.includes(name) ? boot.indexOf(name) : boot.length);
  return all.toSorted((left, right) => place(left) - place(right));
}

function lowerDisk(name: string, { image, iso, size }: DiskInput): DiskSection {
  const sizeBytes = size === undefined ? {} : { sizeBytes: size };
  if (image !== undefined) return { name, from: { kind: "image", image }, ...sizeBytes };
  // Of the first disk, the ISO is a drive of its own.
  if (iso !== undefined && name !== "root") return { name, from: { kind: "iso", image: iso } };
  return { name, from: { kind: "blank" }, ...sizeBytes };
}

function lowerCloudInit(input: MachineInput["cloud-init"]): CloudInitSection {
  if (input === false) return { kind: "none" };
  const { "user-data": userData, "meta-data": metaData, "network-config": networkConfig } = input ?? {};
  return {
    kind: "files",
    ...(userData === undefined ? {} : { userData }),
    ...(metaData === undefined ? {} : { metaData }),
    ...(networkConfig === undefined ? {} : { networkConfig }),
  };
}
