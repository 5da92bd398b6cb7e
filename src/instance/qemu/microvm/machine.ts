import { Fault } from "../../../base/fault.ts";
import { type Accelerator, acceleratorArgs, confinedArgs, processorRoom } from "../accelerator.ts";
import type { GuestSize } from "../guest/size.ts";
import { socketDirInside } from "./place.ts";

/**
 * A microVM as QEMU is told of it. Two plans that differ in nothing but descriptors, paths and what is behind their ports
 * are the same machine to a guest: one can go on where the other was saved.
 */
export interface MachinePlan {
  readonly accelerator: Accelerator;
  readonly size: GuestSize;
  readonly kernelPath: string;
  readonly initramfsPath: string;
  /** Of this host's time stamp counter, which the guest has no other clock to measure by. */
  readonly tscKhz?: number;
  /** Descriptors of the layers' files, lowest first; of the writable file; of the taps. */
  readonly layers: readonly number[];
  readonly writable?: number;
  readonly taps: readonly number[];
  /** Tags and sockets of the directories that the host serves. */
  readonly volumes: readonly { readonly tag: string; readonly socketPath: string }[];
  readonly ports: PortBackends;
  /** Where QEMU takes commands. */
  readonly qmp: string;
  readonly memory: GuestMemory;
}

/** What is behind each port, as QEMU names character devices. */
export type PortBackends = Readonly<Record<PortName | "serial", string>>;

export type GuestMemory =
  | { readonly kind: "own" }
  /** Waits for what was saved of it. */
  | { readonly kind: "restored" }
  /** Kept in the file of that descriptor, so that it can be saved. */
  | { readonly kind: "template"; readonly ram: number }
  /** Begun as what that file holds, which is not written to; the devices go on from a state that was saved. */
  | { readonly kind: "resumed"; readonly ram: number; readonly state: number };

/** Port numbers, which the guest's scripts know. */
const ports = { control: 1, stdout: 2, stderr: 3, stdin: 4, exit: 5, shell: 6, console: 7 } as const;
type PortName = keyof typeof ports;

/** The name by which QEMU opens a descriptor that it was given. */
export function openedFile(descriptor: number): string {
  return `/dev/fdset/${descriptor}`;
}

/** The backends of an instance, whose own output is conmon's to keep. `exit` is a descriptor. */
export function instancePorts(terminal: boolean, exit: number): PortBackends {
  return {
    control: listening("control"),
    shell: listening("shell"),
    stdout: terminal ? "null" : "file,path=/proc/self/fd/1,append=on",
    stderr: terminal ? "null" : "file,path=/proc/self/fd/2,append=on",
    stdin: terminal ? "null" : "stdio,signal=off",
    console: terminal ? "stdio,signal=off" : "null",
    exit: `file,path=${openedFile(exit)}`,
    serial: "file,path=/proc/self/fd/2,append=on",
  };
}

/** A socket where the host finds it, that QEMU does not wait for anybody at. */
export function listening(name: string): string {
  return `socket,path=${socketDirInside}/${name},server=on,wait=off`;
}

/** `handed` are the descriptors that QEMU opens by name. */
export function machineArgs(plan: MachinePlan, handed: readonly number[]): string[] {
  const machine = "microvm,pit=off,pic=off,rtc=on,x-option-roms=off,isa-serial=on";
  return [
    confinedArgs,
    acceleratorArgs(plan.accelerator),
    ["-M", hasBackend(plan) ? `${machine},memory-backend=ram` : machine],
    // What serves directories speaks the current form of virtio only.
    ["-global", "virtio-mmio.force-legacy=false"],
    ["-cpu", processorWord(plan), "-m", `${plan.size.memoryMiB}M`, "-smp", processorsWord(plan)],
    ["-display", "none", "-no-reboot"],
    ["-kernel", plan.kernelPath, "-initrd", plan.initramfsPath, "-append", kernelWords(plan).join(" ")],
    ["-chardev", `${plan.ports.serial},id=serial`, "-serial", "chardev:serial"],
    ["-chardev", `${plan.qmp},id=qmp`, "-mon", "chardev=qmp,mode=control"],
    ...handed.map((descriptor) => ["-add-fd", `fd=${descriptor},set=${descriptor}`]),
    memoryArgs(plan),
    deviceArgs(plan),
  ].flat();
}

/**
 * All that there is. But a processor that is translated copies and clears byte by byte when it is told that this is quick
 * (`erms`, `fsrm`), and otherwise eight at a time: a guest boots in four fifths of the time.
 */
function processorWord({ accelerator }: MachinePlan): string {
  return accelerator.name === "tcg" ? "max,erms=off,fsrm=off" : "max";
}

function processorsWord({ accelerator, size: { processors } }: MachinePlan): string {
  return `${processors},maxcpus=${processorRoom(accelerator, processors)}`;
}

/** How many devices the machine has room for. */
const places = 24;

/** Disks of their own are quicker to find than those of a controller, so layers are that while there is room. */
function shareController({ layers, writable, taps, volumes }: MachinePlan): boolean {
  const others = 2 + (writable === undefined ? 0 : 1) + taps.length + volumes.length;
  if (others >= places) {
    throw new Fault("unsupported", `a microVM has room for ${places - 4} networks and volumes together`, {
      hint: "take some of them away",
    });
  }
  return others + layers.length > places;
}

/** The layers' disks: each on its own, or all on one controller, whose units are counted from the first layer. */
function layerArgs(plan: MachinePlan): string[] {
  const shared = shareController(plan);
  const disks = plan.layers.flatMap((descriptor, index) => {
    const file = `driver=file,node-name=layer${index},filename=${openedFile(descriptor)},read-only=on,locking=off`;
    const device = shared ? `scsi-hd,bus=layers.0,scsi-id=0,lun=${index}` : "virtio-blk-device";
    return ["-blockdev", file, "-device", `${device},drive=layer${index}`];
  });
  return shared ? ["-device", "virtio-scsi-device,id=layers", ...disks] : disks;
}

/** In an order that the guest's scripts know: disks are counted from the first layer. */
function deviceArgs(plan: MachinePlan): string[] {
  const writable =
    plan.writable === undefined
      ? []
      : [
          "-blockdev",
          `driver=file,node-name=writable,filename=${openedFile(plan.writable)},discard=unmap`,
          "-device",
          "virtio-blk-device,drive=writable",
        ];
  const portDevices = Object.entries(ports).map(([name, number]) => {
    const device = name === "console" ? "virtconsole" : "virtserialport";
    const backend = plan.ports[name as PortName];
    return ["-chardev", `${backend},id=${name}`, "-device", `${device},nr=${number},chardev=${name}`];
  });
  const nics = plan.taps.map((descriptor, index) => {
    // Its address is not yet its own when it goes on from a memory: it has nothing to announce.
    const device = `virtio-net-device,netdev=net${index},guest_announce=off`;
    return ["-netdev", `tap,id=net${index},fd=${descriptor}`, "-device", device];
  });
  const volumes = plan.volumes.map(({ tag, socketPath }) => {
    return [
      ["-chardev", `socket,id=${tag},path=${socketPath}`],
      ["-device", `vhost-user-fs-device,chardev=${tag},tag=${tag}`],
    ].flat();
  });
  return [
    layerArgs(plan),
    writable,
    ["-device", "virtio-serial-device,max_ports=8"],
    ...portDevices,
    randomness(plan),
    ["-device", "virtio-rng-device,rng=random"],
    ...nics,
    ...volumes,
  ].flat();
}

/**
 * What will be the memory of many gets none: its kernel knows then that it has not enough, and asks again as soon as there
 * is some. So no two of them make the same numbers.
 */
function randomness({ memory }: MachinePlan): string[] {
  if (memory.kind !== "template") return ["-object", "rng-builtin,id=random"];
  return ["-chardev", "null,id=nothing", "-object", "rng-egd,id=random,chardev=nothing"];
}

function hasBackend({ memory, volumes }: MachinePlan): boolean {
  return memory.kind === "template" || memory.kind === "resumed" || volumes.length > 0;
}

function memoryArgs({ memory, volumes, size }: MachinePlan): string[] {
  const sizeBytes = `${size.memoryMiB}M`;
  if (memory.kind === "own") {
    // Whoever serves a directory reads and writes the guest's memory.
    return volumes.length === 0 ? [] : ["-object", `memory-backend-memfd,id=ram,size=${sizeBytes},share=on`];
  }
  if (memory.kind === "restored") return ["-incoming", "defer"];
  const share = memory.kind === "template" ? "on" : "off";
  const file = `memory-backend-file,id=ram,size=${sizeBytes},share=${share},mem-path=/proc/self/fd/${memory.ram}`;
  const args = ["-object", file];
  // Only later can it be told that what is in the file does not come by the stream: `ignoreShared`.
  return memory.kind === "template" ? args : [...args, "-incoming", "defer"];
}

/** What QEMU is told before it saves or goes on: what is in the memory's file is not in the stream. */
export const ignoreShared = { capabilities: [{ capability: "x-ignore-shared", state: true }] };

/** And before it goes on: that it tells no network of hardware addresses, which the guest is only about to get. */
export const unannounced = { "announce-rounds": 0 };

/** Of the guest as a whole. So many would take an eighth of its memory with their stacks, as kernels have it by themselves. */
const threadsPerMiB = 8;
/** There are no more numbers for them. */
const maxThreads = 32_000;

/**
 * The kernel's command line. Each word saves time in a guest without KVM or keeps it from standing still: these machines
 * have no timer to measure the processor's clock by (`tsc_early_khz`), no PCI, one serial port, and trust only the
 * randomness that the host gives them.
 */
function kernelWords(plan: MachinePlan): string[] {
  const { accelerator, tscKhz, layers, size } = plan;
  const clock = accelerator.name === "tcg" && tscKhz !== undefined ? [`tsc_early_khz=${tscKhz}`, "tsc=reliable"] : [];
  // Translated code does not speculate; and what counts who waits for what would be at work with each change of processes.
  const translated = accelerator.name === "tcg" ? ["mitigations=off", "psi=0"] : [];
  return [
    "console=ttyS0 quiet loglevel=1 reboot=t panic=-1 no_timer_check",
    ...clock,
    "random.trust_cpu=off random.trust_bootloader=off",
    ...translated,
    // Those that programs may use themselves. Nobody gives the others any rules.
    "lsm=landlock,yama",
    "cryptomgr.notests pci=off 8250.nr_uarts=1 audit=0 nowatchdog rcupdate.rcu_cpu_stall_suppress=1",
    `croft_threads=${Math.min(size.memoryMiB * threadsPerMiB, maxThreads)}`,
    `croft_layers=${layers.length}`,
    ...(shareController(plan) ? ["croft_controller=1"] : []),
  ];
}
