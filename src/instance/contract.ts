import type { Call } from "../base/call.ts";
import type { Driver } from "../base/driver.ts";
import type { InstanceId } from "../base/id.ts";
import type { Attachment } from "../network/contract.ts";
import type { AttachedDisk, Root } from "../storage/contract.ts";

/**
 * Runs instances. `reconcile` calls it; nobody else does. An engine never calls storage or network: it is handed a root
 * and an attachment. What it starts does not depend on the daemon's life, and `list` finds all of it after a crash.
 */
export interface Engine extends Driver {
  readonly takes: {
    readonly launch: Launch["kind"];
    /** Of programs: how it wants the image's tree. A machine brings disks of its own. */
    readonly root: Root["kind"];
    readonly nic: Attachment["kind"];
    /**
     * Of engines that run guests: the user they run as, as a number, who may open nothing of the host but what is made his:
     * the taps, the writable part of a block root, the disks. Absent: root.
     */
    readonly ownerUid?: number;
  };
  /**
   * How many times longer than natively its instances may take to become and to stay healthy: more than 1 where their
   * code is translated rather than run. Known when the engine was probed. Absent: 1.
   */
  readonly patience?: number;

  /**
   * Prepares the instance on disk so that `start` can follow, also after a reboot. Repeating it with the same launch
   * changes nothing; with another launch of a stopped instance it replaces the preparation (fields changed in place).
   * Throws `hostile` when a path inside the image would lead out of it.
   */
  create(launch: Launch, call: Call): Promise<void>;
  /** Runs it: first start, or again after it exited. Running already is success. `precondition` when not created. */
  start(id: InstanceId, call: Call): Promise<void>;
  /** Sends a signal (`SIGHUP`) to the main process. `precondition` when it is not running. */
  signal(id: InstanceId, signal: string, call: Call): Promise<void>;
  /** Stop signal, grace, then SIGKILL to everything in it; returns when nothing of it runs. Stopped already is success. */
  stop(id: InstanceId, policy: StopPolicy, call: Call): Promise<void>;
  /** Kills and forgets it: processes, cgroups, preparation, logs. Idempotent. */
  remove(id: InstanceId, call: Call): Promise<void>;
  /** All it owns, also half-made. */
  list(call: Call): Promise<readonly InstanceFacts[]>;
  /** State changes of its instances, from now on, until the call is cancelled: started, exited, OOM kills. */
  watch(call: Call): AsyncIterable<InstanceEvent>;
  /** Output recorded so far and, with `follow`, as it comes until the instance exits. Works for exited instances. */
  logs(id: InstanceId, range: LogRange, call: Call): AsyncIterable<LogLine>;

  readonly exec?: ExecFacet;
  readonly attach?: AttachFacet;
  readonly freeze?: FreezeFacet;
  readonly resize?: ResizeFacet;
  readonly stats?: StatsFacet;
  readonly processes?: ProcessesFacet;
  readonly suspend?: SuspendFacet;
  readonly snapshots?: SnapshotsFacet;
  readonly hotplug?: HotplugFacet;
  readonly console?: ConsoleFacet;
  readonly screenshot?: ScreenshotFacet;
  readonly guest?: GuestFacet;
  readonly export?: ExportFacet;
  readonly keepsake?: KeepsakeFacet;
}

/** Everything an engine needs, resolved: plain data, safe to write to disk but for secrets (`env`, `files`, `cloudInit`). */
export type Launch = ProgramLaunch | MachineLaunch;

interface LaunchBase {
  readonly id: InstanceId;
  readonly attachment: Attachment;
  readonly hostname: string;
  readonly limits: Limits;
  readonly log: { readonly maxBytes: number };
  /** Shown by `inspect`; no meaning to the engine. */
  readonly labels: Readonly<Record<string, string>>;
}

/** A program of an OCI image: in a container, or in a microVM with a kernel of its own. */
export interface ProgramLaunch extends LaunchBase {
  readonly kind: "program";
  readonly root: Root;
  /** Entrypoint and command joined. Never empty. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** `postgres`, `1000`, `1000:1000`, `postgres:ssl`; resolved in the image's own files, beneath its root. */
  readonly user: string;
  readonly workdir: string;
  readonly terminal: boolean;
  /** Keep the main process's stdin open for `attach`. */
  readonly stdin: boolean;
  readonly readOnlyRoot: boolean;
  readonly mounts: readonly LaunchMount[];
  /** Capabilities beyond, and taken from, the usual reduced set: `add: ["NET_ADMIN"]`. Names without `CAP_`. */
  readonly capabilities: { readonly add: readonly string[]; readonly drop: readonly string[] };
  readonly stopSignal: string;
  /** Of engines with kernels of their own: a kernel image of the host instead of the distribution's, by absolute path. */
  readonly kernelPath?: string;
  /**
   * Of engines that can: whether it may resume from the memory of an earlier instance of the same image, kernel and size.
   * Absent: yes. Whoever says no has a program that must see its own boot.
   */
  readonly warmStart?: boolean;
}

/** A full machine: firmware, disks, and whatever system is on them. */
export interface MachineLaunch extends LaunchBase {
  readonly kind: "machine";
  /** In boot order, those without `cdrom` as virtio disks. */
  readonly disks: readonly MachineDisk[];
  readonly firmware: "bios" | "uefi" | "uefi-secure";
  readonly tpm: boolean;
  /** The NoCloud seed, complete; absent: none is offered to the guest. */
  readonly cloudInit?: { readonly userData: string; readonly metaData: string; readonly networkConfig: string };
  /** `host`, `max`, or a model that QEMU knows; absent: the best this host has. */
  readonly cpuModel?: string;
  readonly topology?: { readonly sockets: number; readonly cores: number; readonly threads: number };
  readonly hugepages: boolean;
  /** Offers the guest a balloon, by which its memory is resized while it runs. */
  readonly balloon: boolean;
  /** Host devices handed over: PCI by address (`0000:03:00.0`), USB by `vendor:product` (`1d6b:0002`). */
  readonly passthrough: { readonly pci: readonly string[]; readonly usb: readonly string[] };
}

export interface MachineDisk {
  /** `root`, `data`, `iso`: stable, what snapshots and hot-plug name it by. */
  readonly name: string;
  readonly disk: AttachedDisk;
  /** Bytes that the guest is to see, where somebody said. Less than that is grown by whoever has the disk open. */
  readonly sizeBytes?: number;
  readonly readOnly: boolean;
  readonly cdrom: boolean;
}

export type LaunchMount =
  | {
      readonly kind: "bind";
      readonly source: string;
      readonly destination: string;
      readonly readOnly: boolean;
    }
  | { readonly kind: "tmpfs"; readonly destination: string; readonly sizeBytes?: number; readonly mode?: number }
  /** A single file whose content is handed over: injected files and secrets. The engine keeps it in memory-backed files. */
  | {
      readonly kind: "file";
      readonly destination: string;
      readonly content: Uint8Array;
      readonly mode: number;
      readonly secret: boolean;
    };

export interface Limits {
  /** In cores: 1.5. */
  readonly cpus?: number;
  readonly memoryBytes?: number;
  readonly pids?: number;
}

export interface StopPolicy {
  readonly signal: string;
  readonly graceMs: number;
}

/** `suspended`: its memory is on disk and nothing of it runs; `start` goes on where it was, also after a reboot. */
export type InstanceStatus = "created" | "running" | "frozen" | "suspended" | "exited";

export interface InstanceFacts {
  readonly id: InstanceId;
  /** `created`: prepared, never started or not since a reboot. */
  readonly status: InstanceStatus;
  /** The main process on the host, while running. */
  readonly pid?: number;
  /** When the last run began. */
  readonly startedMs?: number;
  readonly exit?: Exit;
  /**
   * False when something of it is broken or half-made (its monitor died, files are missing, only logs outlived a
   * reboot): create it again, which ends what is left of it, or remove it.
   */
  readonly intact: boolean;
  readonly limits: Limits;
  /** Between which `resize` can change it while it runs. Absent: as one likes. Without a range of its own, a limit cannot change. */
  readonly elastic?: { readonly cpus?: Range; readonly memoryBytes?: Range; readonly pids?: Range };
  /** The mark of the last `revert`, from before anything of the machine went on: kept as long as the instance. */
  readonly revertMark?: string;
}

/** Both ends included. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

export interface Exit {
  /** As a shell shows it: 128 + n when killed by signal n. */
  readonly code: number;
  readonly signal?: string;
  readonly oomKilled: boolean;
  readonly finishedMs: number;
}

export type InstanceEvent =
  | { readonly kind: "started"; readonly id: InstanceId; readonly pid: number; readonly startedMs: number }
  | { readonly kind: "exited"; readonly id: InstanceId; readonly exit: Exit }
  | { readonly kind: "oom"; readonly id: InstanceId }
  /** Something that watches over it died: `list` says `intact: false`. */
  | { readonly kind: "broken"; readonly id: InstanceId };

export interface LogRange {
  readonly follow: boolean;
  /** Only lines at or after this time. */
  readonly sinceMs?: number;
  /** Only the last so many lines of what is recorded; absent: all. */
  readonly tail?: number;
}

export interface LogLine {
  readonly timeMs: number;
  readonly stream: "stdout" | "stderr";
  /** Without its line end. A line without one yet (a prompt) is marked partial. */
  readonly bytes: Uint8Array;
  readonly partial: boolean;
}

/** Bytes to and from a process. */
export interface Session {
  /** Output in order of arrival; ends when the process ends. */
  readonly output: AsyncIterable<{ readonly stream: "stdout" | "stderr"; readonly bytes: Uint8Array }>;
  /** Resolves when the process can take more. */
  write(bytes: Uint8Array): Promise<void>;
  endInput(): void;
  resize(columns: number, rows: number): Promise<void>;
  signal(signal: string): Promise<void>;
  /** Exit code; 128 + n when killed by signal n. For `attach` that of the main process. */
  readonly exited: Promise<number>;
  /** Ends the session; a process started by `exec` is killed, one attached to goes on. */
  close(): Promise<void>;
}

export interface ExecSpec {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly user?: string;
  readonly workdir?: string;
  readonly terminal?: { readonly columns: number; readonly rows: number };
  readonly stdin: boolean;
}

export interface ExecFacet {
  /** `precondition` when not running; `not-found` when the program is not in the image. */
  exec(id: InstanceId, spec: ExecSpec, call: Call): Promise<Session>;
}

export interface AttachFacet {
  /** To the main process's terminal or stdio. Attach before `start` to see the first byte. */
  attach(id: InstanceId, call: Call): Promise<Session>;
}

export interface FreezeFacet {
  /** Stops every process where it is; memory stays. */
  freeze(id: InstanceId, call: Call): Promise<void>;
  thaw(id: InstanceId, call: Call): Promise<void>;
}

export interface ResizeFacet {
  /** Changes limits of a running instance in place. */
  resize(id: InstanceId, limits: Limits, call: Call): Promise<void>;
}

export interface StatsFacet {
  /** One reading of counters. `precondition` when not running. */
  stats(id: InstanceId, call: Call): Promise<Stats>;
}

export interface Stats {
  readonly timeMs: number;
  readonly cpuNs: bigint;
  readonly memoryBytes: number;
  readonly memoryLimitBytes?: number;
  readonly pids: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly receivedBytes: number;
  readonly sentBytes: number;
  readonly oomKills: number;
}

export interface ProcessesFacet {
  /** As `ps` shows them: of the instance alone. Their numbers are those of the kernel that runs them. */
  processes(id: InstanceId, call: Call): Promise<readonly ProcessFacts[]>;
}

export interface ProcessFacts {
  readonly pid: number;
  readonly parentPid: number;
  readonly user: string;
  readonly cpuMs: number;
  readonly memoryBytes: number;
  readonly startedMs: number;
  readonly command: string;
}

export interface SuspendFacet {
  /**
   * Writes memory and devices to disk, and ends what runs: its status is `suspended` from then on, no `exited` is told.
   * `start` resumes it, with nothing lost; `stop` throws the saved memory away, and it has exited with code 0; `create`
   * with the same launch, after a reboot for example, leaves the saved memory alone. A saved memory that cannot be resumed
   * (another QEMU, a file that is damaged) is thrown away by `start`, which boots instead and says so in the log.
   * Suspended already is success. `precondition` when it does not run.
   */
  suspend(id: InstanceId, call: Call): Promise<void>;
}

/** Snapshots belong to the instance's disks: the engine keeps them there, and they are there when it is made again. */
export interface SnapshotsFacet {
  /**
   * Keeps the disks as they are now, all at the same instant, and with `memory` what is in memory and devices too. What
   * runs goes on, after a pause as short as can be; with a guest agent the file systems are frozen meanwhile. A snapshot
   * of that name and kind that is there already is success: it was taken once. `conflict` when the one that is there is of
   * the other kind; `precondition` for one with memory of what does not run.
   */
  createSnapshot(id: InstanceId, spec: SnapshotSpec, call: Call): Promise<void>;
  /** Oldest first; empty when there are none. */
  listSnapshots(id: InstanceId, call: Call): Promise<readonly SnapshotFacts[]>;
  /** Deletes it. Idempotent. Later snapshots stay what they are. */
  removeSnapshot(id: InstanceId, name: string, call: Call): Promise<void>;
  /**
   * Makes the disks what they were; what runs is killed first. With a snapshot that has memory the instance then runs, as
   * it did; else it is `created`. Limits, nics and disks added since stay as `create` last said. `mark` names the request:
   * it is written down together with the disks, before the guest goes on, and told by `list`; with the mark that was
   * written last, nothing is done again. `not-found` when there is no such snapshot.
   */
  revert(id: InstanceId, request: { readonly name: string; readonly mark: string }, call: Call): Promise<void>;
}

export interface SnapshotSpec {
  /** A name as sections have them. */
  readonly name: string;
  readonly memory: boolean;
}

export interface SnapshotFacts extends SnapshotSpec {
  readonly createdMs: number;
  /** What it takes on disk, as far as that can be told. */
  readonly usedBytes?: number;
}

export interface HotplugFacet {
  /**
   * Makes the disks and nics of a running machine those of the launch: what is new is plugged in, what is no longer named
   * is taken out once the guest lets go of it, a disk that is to be larger is grown. The preparation for the next start
   * is changed with it. All else in the launch is as `create` last said. Level-triggered: what is so already is left alone.
   * `precondition` when the guest does not let go in time, or has no free slot; it can be tried again.
   */
  replug(launch: MachineLaunch, call: Call): Promise<void>;
}

export interface ConsoleFacet {
  /**
   * The serial console, as a terminal: all output is `stdout`. Several may be attached at once and see the same. `exited`
   * resolves with 0 when the machine ends or the session is closed. `precondition` when it does not run.
   */
  console(id: InstanceId, call: Call): Promise<Session>;
}

export interface ScreenshotFacet {
  /** What is on its screen now, as a PNG file. `precondition` when it does not run. */
  screenshot(id: InstanceId, call: Call): Promise<Uint8Array>;
}

export interface GuestFacet {
  /**
   * What the guest says of itself, by an agent that runs in it: the guest's word and no more. `precondition` when it does not
   * run, `unavailable` when no agent answers.
   */
  guest(id: InstanceId, call: Call): Promise<GuestFacts>;
}

export interface GuestFacts {
  readonly hostname: string;
  /** `Debian GNU/Linux 12 (bookworm)`; empty when it does not say. */
  readonly system: string;
  readonly kernel: string;
  /** Without those of the loopback interface; with the length of the prefix: `10.0.0.2/24`. */
  readonly addresses: readonly { readonly interface: string; readonly mac: string; readonly address: string }[];
}

export interface ExportFacet {
  /**
   * Writes a copy of each disk that is not a CD-ROM, all as of the same instant, into a directory that exists and is empty:
   * qcow2 files that need no other, called by the disk's name, `root.qcow2`. What runs goes on meanwhile. Returns them in
   * boot order. What was written when it fails is the caller's to delete.
   */
  exportDisks(
    id: InstanceId,
    directory: string,
    call: Call,
  ): Promise<readonly { readonly name: string; readonly path: string }[]>;
}

/**
 * What of an instance lives as long as its disks, beyond `remove`: what its firmware and its TPM remember, without which
 * a disk may not boot or not be read, and which snapshots there are.
 */
export interface KeepsakeFacet {
  /** Deletes it. Idempotent; the instance was removed. */
  forget(id: InstanceId, call: Call): Promise<void>;
  /**
   * Gives an instance that was not created yet what the firmware of another one remembers: what it boots, and how. Secrets
   * of a TPM are one machine's and stay. Nothing to give is success. `precondition` while the other one runs.
   */
  inherit(from: InstanceId, to: InstanceId, call: Call): Promise<void>;
  /** The same by way of a file, which is written anew: false when there is nothing to write. What runs goes on. */
  exportFirmware(id: InstanceId, path: string, call: Call): Promise<boolean>;
  /** The file may come from anybody, but it is a qcow2 that reads from no other. `corrupt` when no firmware wrote it. */
  importFirmware(id: InstanceId, path: string, call: Call): Promise<void>;
}
