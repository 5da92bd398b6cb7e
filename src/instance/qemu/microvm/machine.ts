import { type Accelerator, acceleratorArgs, confinedArgs } from "../accelerator.ts";
import type { GuestSize } from "../guest/size.ts";
import { socketDirInside } from "./place.ts";

/** A microVM as QEMU is told of it. Equal plans but for descriptors and sockets are machines alike, device by device. */
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
  /** Descriptor of the file that the guest's last words go to. */
  readonly exit: number;
  /** Tags and sockets of the directories that the host serves. */
  readonly volumes: readonly { readonly tag: string; readonly socketPath: string }[];
  readonly terminal: boolean;
  readonly memory: GuestMemory;
}

export type GuestMemory =
  | { readonly kind: "own" }
  /** Kept in the file of that descriptor, so that it can be saved; or begun as what that file holds. */
  | { readonly kind: "template"; readonly ram: number }
  | { readonly kind: "resumed"; readonly ram: number; readonly state: number };

/** Port numbers, which the guest's scripts know. */
const ports = { control: 1, stdout: 2, stderr: 3, stdin: 4, exit: 5, shell: 6, console: 7 } as const;

export function machineArgs(plan: MachinePlan): string[] {
  const { size, terminal } = plan;
  const sets: string[] = [];
  /** The name by which QEMU opens a descriptor that it was given. */
  const opened = (descriptor: number): string => {
    sets.push("-add-fd", `fd=${descriptor},set=${descriptor}`);
    return `/dev/fdset/${descriptor}`;
  };
  const devices = [
    ...plan.layers.flatMap((descriptor, index) => [
      "-blockdev",
      `driver=file,node-name=layer${index},filename=${opened(descriptor)},read-only=on,locking=off`,
      "-device",
      `virtio-blk-device,drive=layer${index}`,
    ]),
    ...(plan.writable === undefined
      ? []
      : [
          "-blockdev",
          `driver=file,node-name=writable,filename=${opened(plan.writable)},discard=unmap`,
          "-device",
          "virtio-blk-device,drive=writable",
        ]),
    "-device",
    "virtio-serial-device,max_ports=8",
    ...socketPort("control"),
    ...streamPort("stdout", terminal ? "null" : "file,path=/proc/self/fd/1,append=on"),
    ...streamPort("stderr", terminal ? "null" : "file,path=/proc/self/fd/2,append=on"),
    ...streamPort("stdin", terminal ? "null" : "stdio,signal=off"),
    ...streamPort("exit", `file,path=${opened(plan.exit)}`),
    ...socketPort("shell"),
    "-chardev",
    terminal ? "stdio,id=console,signal=off" : "null,id=console",
    "-device",
    `virtconsole,nr=${ports.console},chardev=console`,
    "-object",
    "rng-builtin,id=random",
    "-device",
    "virtio-rng-device,rng=random",
    ...plan.taps.flatMap((descriptor, index) => [
      "-netdev",
      `tap,id=net${index},fd=${descriptor}`,
      "-device",
      `virtio-net-device,netdev=net${index}`,
    ]),
    ...plan.volumes.flatMap(({ tag, socketPath }) => [
      "-chardev",
      `socket,id=${tag},path=${socketPath}`,
      "-device",
      `vhost-user-fs-device,chardev=${tag},tag=${tag}`,
    ]),
  ];
  return [
    ...confinedArgs,
    ...acceleratorArgs(plan.accelerator),
    "-M",
    `microvm,pit=off,pic=off,rtc=on,x-option-roms=off,isa-serial=on${memoryOption(plan)}`,
    "-cpu",
    "max",
    "-m",
    `${size.memoryMiB}M`,
    "-smp",
    String(size.processors),
    "-display",
    "none",
    "-no-reboot",
    "-kernel",
    plan.kernelPath,
    "-initrd",
    plan.initramfsPath,
    "-append",
    kernelWords(plan).join(" "),
    "-chardev",
    "file,id=serial,path=/proc/self/fd/2,append=on",
    "-serial",
    "chardev:serial",
    "-qmp",
    `unix:${socketDirInside}/qmp,server=on,wait=off`,
    ...sets,
    ...memoryArgs(plan, opened),
    ...devices,
  ];
}

function socketPort(name: "control" | "shell"): string[] {
  return streamPort(name, `socket,path=${socketDirInside}/${name},server=on,wait=off`);
}

function streamPort(name: keyof typeof ports, device: string): string[] {
  return ["-chardev", `${device},id=${name}`, "-device", `virtserialport,nr=${ports[name]},chardev=${name}`];
}

function memoryOption({ memory, volumes }: MachinePlan): string {
  return memory.kind === "own" && volumes.length === 0 ? "" : ",memory-backend=ram";
}

function memoryArgs({ memory, volumes, size }: MachinePlan, _opened: (descriptor: number) => string): string[] {
  const sizeBytes = `${size.memoryMiB}M`;
  if (memory.kind === "own") {
    // Whoever serves a directory reads and writes the guest's memory.
    return volumes.length === 0 ? [] : ["-object", `memory-backend-memfd,id=ram,size=${sizeBytes},share=on`];
  }
  const share = memory.kind === "template" ? "on" : "off";
  const file = `memory-backend-file,id=ram,size=${sizeBytes},share=${share},mem-path=/proc/self/fd/${memory.ram}`;
  const ignore = ["-global", "migration.x-ignore-shared=on"];
  if (memory.kind === "template") return ["-object", file, ...ignore];
  return ["-object", file, ...ignore, "-incoming", `fd:${memory.state}`];
}

/**
 * The kernel's command line. Each word saves time in a guest without KVM or keeps it from standing still: MicroVM guests
 * have no timer to measure the processor's clock by (`tsc_early_khz`), no PCI, one serial port, and trust only the
 * randomness that the host gives them.
 */
function kernelWords({ accelerator, tscKhz, layers }: MachinePlan): string[] {
  const clock = accelerator.name === "tcg" && tscKhz !== undefined ? [`tsc_early_khz=${tscKhz}`, "tsc=reliable"] : [];
  // Translated code does not speculate.
  const speculation = accelerator.name === "tcg" ? ["mitigations=off"] : [];
  return [
    "console=ttyS0",
    "quiet",
    "loglevel=1",
    "reboot=t",
    "panic=-1",
    "no_timer_check",
    ...clock,
    "random.trust_cpu=off",
    "random.trust_bootloader=off",
    ...speculation,
    "cryptomgr.notests",
    "pci=off",
    "8250.nr_uarts=1",
    "audit=0",
    "nowatchdog",
    "rcupdate.rcu_cpu_stall_suppress=1",
    `croft_layers=${layers.length}`,
  ];
}
