import type { Digest, InstanceId, NetworkId, VolumeId } from "../../base/id.ts";
import type { InstanceSection, NetworkSection, VolumeSection } from "../model.ts";

/** What should be there: a generation with replicas expanded and ids computed. `expand.ts` makes it; pure. */
export interface Desired {
  readonly stack: string;
  readonly networks: readonly { readonly id: NetworkId; readonly name: string; readonly section: NetworkSection }[];
  readonly volumes: readonly { readonly id: VolumeId; readonly name: string; readonly section: VolumeSection }[];
  readonly instances: readonly DesiredInstance[];
}

export interface DesiredInstance {
  readonly id: InstanceId;
  /** The section's name, `web`, and which replica, from 1. */
  readonly name: string;
  readonly ordinal: number;
  readonly section: InstanceSection;
  /** Absent in a plan made before the image is here. */
  readonly image?: Digest;
  /** Only those it uses. */
  readonly secrets: Readonly<Record<string, string>>;
  readonly files: Readonly<Record<string, Digest>>;
  /** Disk images and ISOs that its disks begin with. */
  readonly diskImages?: Readonly<Record<string, Digest>>;
  /** False when somebody said `croft stop` or `croft suspend`: it is kept, but not running. */
  readonly running: boolean;
  /** It does not run because its memory is to be on disk: `croft suspend`. */
  readonly suspended?: boolean;
}

/** What is there, of one stack, as far as the loop could see. */
export interface Observed {
  readonly networks: readonly { readonly id: NetworkId; readonly section: NetworkSection; readonly intact: boolean }[];
  readonly volumes: readonly { readonly id: VolumeId; readonly section: VolumeSection }[];
  /** Disks of machines, also of those that are gone: they outlive them, as volumes outlive what uses them. */
  readonly disks: readonly { readonly instance: InstanceId; readonly name: string }[];
  readonly instances: readonly ObservedInstance[];
}

export interface ObservedInstance {
  readonly id: InstanceId;
  /** `exited`: it ended by itself and its restart policy decides. One that we stopped, or that a reboot ended, is `created`. */
  readonly status: "created" | "running" | "frozen" | "suspended" | "exited";
  /** `none`: no health check; counts as healthy while running. */
  readonly health: "none" | "starting" | "healthy" | "unhealthy";
  /** What it was last asked to be, for the fields that change in place. Absent when unknown: then it is brought up to date. */
  readonly section?: InstanceSection;
  /**
   * What it was made from, as in `DesiredInstance`, where known. Other content is another instance, but of a machine,
   * which gets it at its next start; what is not known is taken as unchanged.
   */
  readonly image?: Digest;
  readonly secrets?: Readonly<Record<string, string>>;
  readonly files?: Readonly<Record<string, Digest>>;
  readonly diskImages?: Readonly<Record<string, Digest>>;
  /** False: half-made or broken beyond restart; it is removed and made again. */
  readonly intact: boolean;
  /** False: its links, root or volumes are gone from the host; they are attached again. */
  readonly attached: boolean;
  readonly exitCode?: number;
  /** A restart is due, but not before this time (back-off). */
  readonly restartAfterMs?: number;
  /** It runs, and since it was started somebody asked for a restart: `croft restart`. Replicas follow one another. */
  readonly restartAsked?: boolean;
  /** Somebody asked for it to go back to this snapshot, which was not done yet. */
  readonly revertAsked?: string;
  /** Between which limits can change while it runs; absent: as one likes. One without bounds of its own cannot change. */
  readonly elastic?: Readonly<
    Partial<Record<"cpus" | "memoryBytes" | "pids", { readonly min: number; readonly max: number }>>
  >;
  /** Disks and nics can be plugged in and out while it runs. */
  readonly plugs?: boolean;
}

/** What a step costs whoever uses the instance. */
export type Cost = "none" | "hot" | "restart" | "recreate" | "migrate" | "data-loss";

export type Action =
  | { readonly kind: "create-network"; readonly network: NetworkId }
  | { readonly kind: "update-network"; readonly network: NetworkId }
  | { readonly kind: "remove-network"; readonly network: NetworkId }
  | { readonly kind: "create-volume"; readonly volume: VolumeId }
  | { readonly kind: "resize-volume"; readonly volume: VolumeId; readonly sizeBytes: number | undefined }
  | { readonly kind: "remove-volume"; readonly volume: VolumeId }
  /** Attach network and storage, then prepare. */
  | { readonly kind: "create-instance"; readonly instance: InstanceId }
  | { readonly kind: "start-instance"; readonly instance: InstanceId }
  /** Nothing to do but wait: done when it is observed healthy. */
  | { readonly kind: "await-healthy"; readonly instance: InstanceId }
  /** Change these members of its section in place. */
  | {
      readonly kind: "update-instance";
      readonly instance: InstanceId;
      readonly fields: readonly (keyof InstanceSection)[];
    }
  /** Attach again what went missing. */
  | { readonly kind: "repair-instance"; readonly instance: InstanceId }
  | { readonly kind: "stop-instance"; readonly instance: InstanceId }
  /** Memory to disk; nothing of it runs then. */
  | { readonly kind: "suspend-instance"; readonly instance: InstanceId }
  /** Back to the snapshot that was asked for. */
  | { readonly kind: "revert-instance"; readonly instance: InstanceId }
  | { readonly kind: "remove-disk"; readonly instance: InstanceId; readonly disk: string }
  | { readonly kind: "remove-instance"; readonly instance: InstanceId };

export interface Step {
  /** `start-instance shop.web.1.ab12cd34`: stable, unique in a plan. */
  readonly key: string;
  readonly action: Action;
  readonly cost: Cost;
  /** For people: `image changed`, `env POSTGRES_DB changed`, `exited with code 1`, `no longer in the file`. */
  readonly why: string;
  /** Keys of steps of this plan that must be done first. A step whose predecessors are all gone from the plan may run. */
  readonly after: readonly string[];
  /** Not before this time (restart back-off). */
  readonly notBeforeMs?: number;
}

export interface Plan {
  readonly steps: readonly Step[];
  /** What `protect`, or a change that cannot be made, forbids. A plan with refusals is not applied. */
  readonly refusals: readonly { readonly subject: string; readonly why: string; readonly hint: string }[];
}

export interface PlanOptions {
  /** Volumes that are no longer desired are removed only when asked (`down --volumes`, `up --prune-volumes`). */
  readonly removeVolumes: boolean;
}

/** Decides; never acts. `plan(d, o)` is empty when `o` already is as `d` says. */
export type PlanFunction = (desired: Desired, observed: Observed, options: PlanOptions) => Plan;
