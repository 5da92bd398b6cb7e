import type { Call } from "../../base/call.ts";
import type { ExecSpec, ProgramLaunch } from "../../instance/contract.ts";
import type { GuestNic, GuestSettings, ProcessSettings } from "../../instance/guest.ts";

/**
 * What is needed of the engine for microVMs, where no daemon keeps them: each is a container of crun's, with the caller's
 * id, in which a watcher runs QEMU. The container's first process is so what callers watch, and crun does for it what it
 * does for every container: pid file, terminal, hooks, control group, states.
 */
export interface MachineMaker {
  /** The kernel and what boots with it, ready; `unsupported` with the mend when something is not installed. */
  prepare(call: Call): Promise<MachineParts>;
  /** What the caller's configuration becomes: that of the container around QEMU. Makes its root on the way. */
  containerConfig(launch: ProgramLaunch, parts: MachineParts, place: MachinePlace): object;
  /** Starts what serves the launch's directories, and returns QEMU's command line. */
  equip(launch: ProgramLaunch, parts: MachineParts, place: MachinePlace, taps: readonly string[]): readonly string[];
  /** Hands the launch to the guest that boots; returns when its program runs, or has run. */
  handOver(
    launch: ProgramLaunch,
    parts: MachineParts,
    place: MachinePlace,
    settings: GuestSettings,
    isAlive: () => boolean,
    call: Call,
  ): Promise<void>;
}

export interface MachineParts {
  readonly accelerator: "kvm" | "tcg";
  readonly detail: string;
  readonly kernelPath: string;
  readonly initramfsPath: string;
}

/** Where the files of one microVM are. */
export interface MachinePlace {
  /** Of the machine alone: everything below is in it. */
  readonly directory: string;
  /** Seen from inside as `insideDirectory`: sockets, QEMU's command line, what the guest wrote last. */
  readonly shared: string;
  /** The caller's control group, as crun takes it. */
  readonly cgroup: string;
  /** A program that the watcher is: the compiled `croft-oci`. */
  readonly program: string;
  /** The user that QEMU runs as. */
  readonly uid: number;
}

/** Where the container finds the shared directory and the watcher's program. */
export const insideDirectory = "/machine";
export const insideProgram = "/croft-oci";

/** Names of files in the shared directory. */
export const shared = {
  /** QEMU's command line, from `start`. */
  plan: "plan.json",
  /** There when the guest's program runs. */
  started: "started",
  control: "control",
  shell: "shell",
  /** Where relays of programs beside the main one meet the watcher. */
  company: "company",
  exit: "exit",
  key: "key.json",
} as const;

/** A network interface of the caller's namespace, and the tap that its traffic goes to. */
export interface Nic extends GuestNic {
  readonly name: string;
  readonly tap: string;
  readonly mtu: number;
}

/** The script that runs a program in the guest of this launch: its first line of output says whether it began. */
export type ExecScript = (launch: ProgramLaunch, spec: ExecSpec, process: ProcessSettings) => string;
