import { availableParallelism, totalmem } from "node:os";
import { Fault } from "../../../base/fault.ts";
import type { Limits, MachineLaunch, Range } from "../../contract.ts";

/**
 * What a machine is made of and where in it, as plain data: of it QEMU's arguments are made, and a memory that was saved
 * is only understood by a machine of the same shape. So it is kept with each run and with each saved memory.
 */
export interface Shape {
  /** Absent: the best the accelerator has. */
  readonly cpuModel?: string;
  readonly topology?: { readonly sockets: number; readonly cores: number; readonly threads: number };
  /** Processors that are plugged in, and how many places there are. */
  readonly cpus: number;
  readonly maxCpus: number;
  /** Of each disk: QEMU would take one for each processor, and a saved memory knows how many there were. */
  readonly queues: number;
  /** Memory that is there from the first moment. */
  readonly memoryBytes: number;
  /** How much more can be plugged in; 0 without a balloon, which is the other half of resizing. */
  readonly spareMemoryBytes: number;
  /** Of the spare, what is plugged in. */
  readonly pluggedMemoryBytes: number;
  readonly hugepages: boolean;
  readonly balloon: boolean;
  readonly firmware: MachineLaunch["firmware"];
  readonly tpm: boolean;
  /** In boot order. */
  readonly disks: readonly ShapeDisk[];
  readonly nics: readonly ShapeNic[];
  /** The port of the cloud-init seed. */
  readonly seedSlot?: number;
  readonly pci: readonly { readonly address: string; readonly slot: number }[];
  readonly usb: readonly string[];
  /** All ports, used or free. */
  readonly slots: number;
}

export interface ShapeDisk {
  readonly name: string;
  readonly cdrom: boolean;
  readonly readOnly: boolean;
  /** A port for PCI devices; of a CD-ROM that was there from the start the number of its drive. */
  readonly slot: number;
  /** A CD-ROM drive that was plugged in later has a controller of its own, at a port. */
  readonly bus?: "scsi";
  /** A CD-ROM drive that was there from the start stays; its medium was taken out. */
  readonly empty?: boolean;
  /** Of devices plugged in later: none. */
  readonly bootIndex?: number;
}

export interface ShapeNic {
  readonly mac: string;
  readonly slot: number;
}

/** What a machine without `memory` gets. */
export const defaultMemoryBytes = 2 ** 30;

const mebibyte = 2 ** 20;
/** Ports left free for what is plugged in while it runs. */
const spareSlots = 4;
/** Three places of eight functions each. */
const maxSlots = 24;
/** Drives of the machine's own controller. */
const maxCdroms = 6;
/** What QEMU 7.2 gives q35 without an interrupt remapping unit. */
const mostCpus = 255;
/** A block of memory that guests plug in: all of them take multiples of this. */
const memoryBlockBytes = 128 * mebibyte;

/** The machine that a launch asks for. `invalid` for what no machine can be. */
export function shapeOf(launch: MachineLaunch): Shape {
  const { limits, topology, attachment } = launch;
  if (attachment.kind !== "tap") throw new Fault("bug", `${launch.id}: a machine takes taps, not a namespace`);
  const cdroms = launch.disks.filter(({ cdrom }) => cdrom);
  const fixed = launch.disks.length - cdroms.length + attachment.taps.length + launch.passthrough.pci.length;
  const used = fixed + (launch.cloudInit === undefined ? 0 : 1);
  if (used > maxSlots || cdroms.length > maxCdroms) {
    throw new Fault("invalid", `${launch.id}: more devices than a machine has places for`, {
      hint: `at most ${maxSlots} disks, nics and passed devices together, and ${maxCdroms} CD-ROMs`,
    });
  }
  let slot = 0;
  let drive = 0;
  const disks = launch.disks.map(({ name, cdrom, readOnly }, index) => {
    return { name, cdrom, readOnly, slot: cdrom ? drive++ : slot++, bootIndex: index + 1 };
  });
  const nics = attachment.taps.map(({ mac }) => ({ mac, slot: slot++ }));
  const pci = launch.passthrough.pci.map((address) => ({ address, slot: slot++ }));
  const seed = launch.cloudInit === undefined ? {} : { seedSlot: slot++ };
  const cpus = wholeCpus(limits);
  const places = topology === undefined ? undefined : topology.sockets * topology.cores * topology.threads;
  if (places !== undefined && places < cpus) {
    throw new Fault("invalid", `${launch.id}: a topology of ${places} processors has no room for ${cpus}`, {
      hint: "sockets × cores × threads must be at least cpus",
    });
  }
  const memoryBytes = Math.max(mebibyte, Math.floor((limits.memoryBytes ?? defaultMemoryBytes) / mebibyte) * mebibyte);
  return {
    ...(launch.cpuModel === undefined ? {} : { cpuModel: launch.cpuModel }),
    ...(topology === undefined ? {} : { topology }),
    cpus,
    maxCpus: places ?? Math.max(cpus, Math.min(mostCpus, availableParallelism())),
    queues: Math.min(8, cpus),
    memoryBytes,
    spareMemoryBytes: launch.balloon && !launch.hugepages ? spareMemory(memoryBytes) : 0,
    pluggedMemoryBytes: 0,
    hugepages: launch.hugepages,
    balloon: launch.balloon,
    firmware: launch.firmware,
    tpm: launch.tpm,
    disks,
    nics,
    ...seed,
    pci,
    usb: launch.passthrough.usb,
    slots: Math.min(maxSlots, slot + spareSlots),
  };
}

/** Processors are whole inside; a part of one is a quota of the host. */
export function wholeCpus(limits: Limits): number {
  return Math.max(1, Math.ceil(limits.cpus ?? 1));
}

/** Between which limits of the running machine can be changed. */
export function elasticOf(shape: Shape): { readonly cpus: Range; readonly memoryBytes?: Range } {
  const cpus = { min: 0.01, max: shape.maxCpus };
  if (!shape.balloon) return { cpus };
  const leastBytes = Math.min(shape.memoryBytes, Math.max(64 * mebibyte, Math.floor(shape.memoryBytes / 8)));
  return { cpus, memoryBytes: { min: leastBytes, max: shape.memoryBytes + shape.spareMemoryBytes } };
}

/** A port that no device is in; `precondition` when there is none. */
export function freeSlot(shape: Shape, what: string): number {
  const used = new Set(
    [...shape.disks.filter(({ cdrom, bus }) => !cdrom || bus === "scsi"), ...shape.nics, ...shape.pci].map(
      (device) => device.slot,
    ),
  );
  if (shape.seedSlot !== undefined) used.add(shape.seedSlot);
  for (let slot = 0; slot < shape.slots; slot += 1) if (!used.has(slot)) return slot;
  throw new Fault("precondition", `plug in ${what}: the running machine has no free place`, {
    hint: "it gets new ones when it is started again",
  });
}

/** Three times as much as there is, within what the host has. */
function spareMemory(memoryBytes: number): number {
  const roomBytes = Math.max(0, Math.min(3 * memoryBytes, totalmem() - memoryBytes));
  return Math.floor(roomBytes / memoryBlockBytes) * memoryBlockBytes;
}
