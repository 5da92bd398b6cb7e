import { acceleratorArgs, type Accelerator, confinedArgs, processorRoom } from "../accelerator.ts";
import type { Shape, ShapeDisk, ShapeNic } from "./shape.ts";

/**
 * QEMU's arguments for a machine. Pure. Whatever comes from outside is handed over as JSON, where a comma is a comma: none
 * of it can become another option.
 */
export interface Resources {
  /** Of each disk by name: the files it consists of, nearest first, as numbers of fdsets. */
  readonly disks: ReadonlyMap<string, DiskChain>;
  /** The descriptor of the tap of each nic, in the order of the shape. */
  readonly tapFds: readonly number[];
  readonly seedFdset?: number;
  readonly firmware?: Firmware;
  /** Descriptors that fdsets are made of. */
  readonly fdsets: readonly { readonly fd: number; readonly fdset: number }[];
}

export interface DiskChain {
  readonly files: readonly { readonly fdset: number; readonly format: "qcow2" | "raw" }[];
}

export interface Firmware {
  readonly codePath: string;
  readonly varsFdset: number;
}

export interface Choice {
  readonly accelerator: Accelerator;
  readonly hostname: string;
  /** Waits at the first instruction until it is told to go on. */
  readonly paused: boolean;
}

/** The directory in which QEMU's sockets are, as it sees it. */
export const ioPlace = "/io";

export function machineArgs(shape: Shape, resources: Resources, choice: Choice): string[] {
  const secure = shape.firmware === "uefi-secure";
  const argv: string[] = [...confinedArgs, ...acceleratorArgs(choice.accelerator)];
  const add = (option: string, value: object | string): void => {
    argv.push(option, typeof value === "string" ? value : JSON.stringify(value));
  };
  const flash = resources.firmware === undefined ? "" : ",pflash0=firmware-code,pflash1=firmware-vars";
  const ram = shape.hugepages ? ",memory-backend=ram" : "";
  add("-machine", `q35,smm=${secure ? "on" : "off"},vmport=off,dump-guest-core=off${flash}${ram}`);
  add("-name", `guest=${choice.hostname.replaceAll(/[^A-Za-z0-9.-]/g, "-")},debug-threads=on`);
  add("-cpu", cpuOf(shape, choice.accelerator));
  add("-smp", smpOf(shape, choice.accelerator));
  add("-m", memoryOf(shape));
  if (shape.hugepages) {
    add("-object", {
      "qom-type": "memory-backend-memfd",
      id: "ram",
      size: shape.memoryBytes,
      hugetlb: true,
      prealloc: true,
    });
  }
  argv.push("-rtc", "base=utc,driftfix=slew", "-display", "none", "-boot", "strict=on");
  if (choice.paused) argv.push("-S");
  for (const { fd, fdset } of resources.fdsets) argv.push("-add-fd", `fd=${fd},set=${fdset}`);
  if (resources.firmware !== undefined) addFirmware(add, resources.firmware, secure);
  add("-qmp", `unix:${ioPlace}/qmp.sock,server=on,wait=off`);
  add("-chardev", "stdio,id=serial,signal=off");
  add("-device", { driver: "isa-serial", chardev: "serial", id: "serial0" });
  add("-vnc", `unix:${ioPlace}/vnc.sock`);
  add("-device", { driver: "VGA", bus: "pcie.0", addr: "1.0", id: "screen" });
  for (let slot = 0; slot < shape.slots; slot += 1) {
    const place = `${(2 + Math.floor(slot / 8)).toString(16)}.${slot % 8}`;
    const first = slot % 8 === 0 ? { multifunction: true } : {};
    add("-device", {
      driver: "pcie-root-port",
      bus: "pcie.0",
      addr: place,
      ...first,
      id: portOf(slot),
      chassis: slot + 1,
    });
  }
  addStandard(add, shape);
  for (const disk of shape.disks) addDisk(add, disk, resources.disks.get(disk.name), shape);
  if (shape.seedSlot !== undefined && resources.seedFdset !== undefined)
    addSeed(add, shape.seedSlot, resources.seedFdset);
  shape.nics.forEach((nic, index) => {
    add("-netdev", { type: "tap", id: nicId(nic), fd: String(resources.tapFds[index]) });
    add("-device", nicDevice(nic));
  });
  for (const { address, slot } of shape.pci) {
    add("-device", { driver: "vfio-pci", host: address, bus: portOf(slot), id: `pci${slot}` });
  }
  if (shape.usb.length > 0) add("-device", { driver: "qemu-xhci", bus: "pcie.0", addr: "14.0", id: "usb" });
  for (const [index, device] of shape.usb.entries()) {
    const [vendor = "0", product = "0"] = device.split(":");
    const ids = { vendorid: Number.parseInt(vendor, 16), productid: Number.parseInt(product, 16) };
    add("-device", { driver: "usb-host", bus: "usb.0", ...ids, id: `usb${index}` });
  }
  return argv;
}

type Add = (option: string, value: object | string) => void;

function addStandard(add: Add, shape: Shape): void {
  add("-device", { driver: "virtio-serial-pci", bus: "pcie.0", addr: "10.0", id: "ports" });
  add("-chardev", `socket,id=agent,path=${ioPlace}/agent.sock,server=on,wait=off`);
  add("-device", { driver: "virtserialport", bus: "ports.0", nr: 1, chardev: "agent", name: "org.qemu.guest_agent.0" });
  add("-object", { "qom-type": "rng-random", id: "entropy", filename: "/dev/urandom" });
  add("-device", { driver: "virtio-rng-pci", bus: "pcie.0", addr: "11.0", rng: "entropy", id: "rng" });
  if (shape.balloon) {
    add("-device", {
      driver: "virtio-balloon-pci",
      bus: "pcie.0",
      addr: "12.0",
      id: "balloon",
      "deflate-on-oom": true,
      "free-page-reporting": true,
    });
  }
  if (shape.spareMemoryBytes > 0) {
    add("-object", { "qom-type": "memory-backend-ram", id: "spare", size: shape.spareMemoryBytes, reserve: false });
    add("-device", {
      driver: "virtio-mem-pci",
      bus: "pcie.0",
      addr: "13.0",
      id: "spare-memory",
      memdev: "spare",
      "block-size": 2 ** 21,
      "requested-size": shape.pluggedMemoryBytes,
    });
  }
  if (shape.tpm) {
    add("-chardev", `socket,id=tpm,path=${tpmPlace}/tpm.sock`);
    add("-tpmdev", "emulator,id=tpm0,chardev=tpm");
    add("-device", { driver: "tpm-crb", tpmdev: "tpm0" });
  }
}

/** The directory of the TPM's socket, as QEMU sees it. */
export const tpmPlace = "/tpm";

function addFirmware(add: Add, { codePath, varsFdset }: Firmware, secure: boolean): void {
  add("-blockdev", { driver: "file", "node-name": "firmware-code-file", filename: codePath, "read-only": true });
  add("-blockdev", { driver: "raw", "node-name": "firmware-code", file: "firmware-code-file", "read-only": true });
  add("-blockdev", fileNode("firmware-vars-file", varsFdset, false));
  add("-blockdev", { driver: "qcow2", "node-name": "firmware-vars", file: "firmware-vars-file" });
  if (!secure) return;
  // Only firmware in system management mode may write variables, or a guest could enrol keys of its own.
  add("-global", "driver=cfi.pflash01,property=secure,value=on");
}

function addDisk(add: Add, disk: ShapeDisk, chain: DiskChain | undefined, { queues }: Shape): void {
  if (chain !== undefined) for (const node of diskNodes(disk, chain)) add("-blockdev", node);
  for (const device of diskDevices(disk, queues)) add("-device", device);
}

/** Block nodes of a disk, the farthest file first. A backing file is named here, never found in an image by QEMU. */
export function diskNodes(disk: Pick<ShapeDisk, "name" | "readOnly" | "cdrom">, chain: DiskChain): object[] {
  const nodes: object[] = [];
  for (let index = chain.files.length - 1; index >= 0; index -= 1) {
    const file = chain.files[index];
    if (file === undefined) continue;
    const readOnly = index > 0 || disk.readOnly || disk.cdrom;
    nodes.push(fileNode(`${diskNode(disk.name, index)}-file`, file.fdset, readOnly));
    const isLast = index === chain.files.length - 1;
    nodes.push({
      driver: file.format,
      "node-name": diskNode(disk.name, index),
      file: `${diskNode(disk.name, index)}-file`,
      "read-only": readOnly,
      ...(readOnly ? {} : { discard: "unmap", "detect-zeroes": "unmap" }),
      ...(file.format === "qcow2" ? { backing: isLast ? null : diskNode(disk.name, index + 1) } : {}),
    });
  }
  return nodes;
}

/** Names of block nodes have at most 31 characters, and disks may have 40. */
export function diskNode(name: string, index = 0): string {
  return `${nameTag(name)}.${index}`;
}

export function diskId(name: string): string {
  return `disk-${nameTag(name)}`;
}

function nameTag(name: string): string {
  return name.length <= 18 ? `d-${name}` : `d-${name.slice(0, 9)}-${hash(name)}`;
}

/** FNV-1a: names of one machine only have to differ from each other. */
function hash(text: string): string {
  let value = 0x811c9dc5;
  for (const char of text) value = Math.imul(value ^ (char.codePointAt(0) ?? 0), 0x01000193) >>> 0;
  return value.toString(16).padStart(8, "0");
}

/** The devices of a disk, in the order in which they are plugged in; the first one takes the others out with it. */
export function diskDevices(disk: ShapeDisk, queues: number): readonly object[] {
  if (disk.bus !== "scsi") return [diskDevice(disk, queues)];
  const drive = { driver: "scsi-cd", bus: `${diskId(disk.name)}.0`, drive: diskNode(disk.name) };
  return [
    { driver: "virtio-scsi-pci", bus: portOf(disk.slot), id: diskId(disk.name), num_queues: 1 },
    { ...drive, id: `${diskId(disk.name)}-drive` },
  ];
}

function diskDevice(disk: ShapeDisk, queues: number): object {
  const boot = disk.bootIndex === undefined ? {} : { bootindex: disk.bootIndex };
  if (disk.cdrom) {
    const medium = disk.empty === true ? {} : { drive: diskNode(disk.name) };
    return { driver: "ide-cd", bus: `ide.${disk.slot}`, id: diskId(disk.name), ...medium, ...boot };
  }
  return {
    driver: "virtio-blk-pci",
    bus: portOf(disk.slot),
    drive: diskNode(disk.name),
    "num-queues": queues,
    id: diskId(disk.name),
    // What a guest shows in /dev/disk/by-id; the field has 20 characters.
    serial: disk.name.slice(0, 20),
    // QEMU's own answer to a full disk of the host is to stop the machine without a word; its guest can say it.
    werror: "report",
    rerror: "report",
    ...boot,
  };
}

function addSeed(add: Add, slot: number, fdset: number): void {
  add("-blockdev", fileNode("seed-file", fdset, true));
  add("-blockdev", { driver: "raw", "node-name": "seed", file: "seed-file", "read-only": true });
  add("-device", {
    driver: "virtio-blk-pci",
    bus: portOf(slot),
    drive: "seed",
    "num-queues": 1,
    id: "seed-disk",
    serial: "cidata",
  });
}

function fileNode(name: string, fdset: number, readOnly: boolean): object {
  return {
    driver: "file",
    "node-name": name,
    filename: `/dev/fdset/${fdset}`,
    "read-only": readOnly,
    ...(readOnly ? {} : { discard: "unmap" }),
  };
}

export function portOf(slot: number): string {
  return `port${slot}`;
}

export function nicId(nic: ShapeNic): string {
  return `nic-${nic.mac.replaceAll(":", "")}`;
}

export function nicDevice(nic: ShapeNic): object {
  return {
    driver: "virtio-net-pci",
    netdev: nicId(nic),
    mac: nic.mac,
    bus: portOf(nic.slot),
    id: `${nicId(nic)}-card`,
    romfile: "",
  };
}

export function cpuOf(shape: Shape, { name }: Accelerator): string {
  const model = shape.cpuModel ?? (name === "kvm" ? "host" : "max");
  return model === "host" && name === "tcg" ? "max" : model;
}

function smpOf({ cpus, maxCpus, topology }: Shape, accelerator: Accelerator): string {
  const room = processorRoom(accelerator, maxCpus);
  if (topology === undefined) return `cpus=${cpus},maxcpus=${room}`;
  const { cores, threads } = topology;
  // More room than was wanted is another socket: only a machine of one processor has it.
  const sockets = room === maxCpus ? topology.sockets : room;
  return `cpus=${cpus},sockets=${sockets},cores=${cores},threads=${threads},maxcpus=${room}`;
}

function memoryOf({ memoryBytes, spareMemoryBytes }: Shape): string {
  const mebibytes = memoryBytes / 2 ** 20;
  if (spareMemoryBytes === 0) return `size=${mebibytes}M`;
  return `size=${mebibytes}M,maxmem=${(memoryBytes + spareMemoryBytes) / 2 ** 20}M`;
}
