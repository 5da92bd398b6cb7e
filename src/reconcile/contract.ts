import type { Call } from "../base/call.ts";
import type { Digest, InstanceId, NetworkId, VolumeId } from "../base/id.ts";
import type {
  Exit,
  ExecSpec,
  Limits,
  LogLine,
  LogRange,
  ProcessFacts,
  Session,
  SnapshotFacts,
  SnapshotSpec,
  Stats,
  GuestFacts,
} from "../instance/contract.ts";
import type { Operation } from "../operation/contract.ts";
import type { Generation, InstanceSection, StackSpec } from "../stack/model.ts";
import type { Plan } from "../stack/plan/step.ts";

/**
 * The face of the one loop: what `api/` may ask of it. Every verb changes desired state and lets the loop make it so;
 * reads answer from what the loop last observed, without touching the host.
 */
export interface Cloud {
  readonly stacks: Stacks;
  readonly instances: Instances;
  readonly machines: Machines;
}

/** A checked stack file with everything that the client had to send along. */
export interface Submission {
  readonly spec: StackSpec;
  /** Path beside the stack file → digest of the tar in the file store. */
  readonly files: Readonly<Record<string, Digest>>;
  /** Values of `env` and `file` secrets by secret name. Never logged. */
  readonly secrets: ReadonlyMap<string, Uint8Array>;
}

export interface Stacks {
  /** What applying would do. Pulls nothing and changes nothing. */
  preview(submission: Submission, options: { readonly pruneVolumes: boolean }, call: Call): Promise<Preview>;
  apply(submission: Submission, options: ApplyOptions, call: Call): Promise<Operation>;
  /** Builds `[image.x]` sections (all when `names` is empty) and nothing else. */
  build(submission: Submission, names: readonly string[], fresh: boolean, call: Call): Promise<Operation>;
  remove(stack: string, options: { readonly volumes: boolean }, call: Call): Promise<Operation>;
  /** `to` undefined: the last generation before the current one that was live. */
  rollback(stack: string, to: number | undefined, author: string, call: Call): Promise<Operation>;
  list(): readonly StackView[];
  get(stack: string): StackView;
  /** Newest first. */
  generations(stack: string, call: Call): Promise<readonly GenerationView[]>;
  /** Two generations, for a diff. 0 means: `to` the current one, `from` the one before `to` (undefined: there is none). */
  compare(stack: string, from: number, to: number, call: Call): Promise<Comparison>;
  /** Images that some kept generation or instance needs. */
  imagesInUse(call: Call): Promise<ReadonlyMap<Digest, readonly string[]>>;
  /** Deletes files that were sent along and secret versions that no kept generation needs. */
  collect(call: Call): Promise<void>;
  networks(): readonly NetworkView[];
  volumes(call: Call): Promise<readonly VolumeView[]>;
  removeVolume(id: VolumeId, call: Call): Promise<void>;
}

export interface ApplyOptions {
  readonly pruneVolumes: boolean;
  /** Refuse with `conflict` unless this is the current generation (0: none). */
  readonly baseGeneration?: number;
  readonly pull: boolean;
  readonly build: boolean;
  readonly author: string;
  readonly message: string;
}

export interface Preview {
  readonly stack: string;
  /** The current generation; 0 and `before` absent when there is none. */
  readonly baseGeneration: number;
  readonly before?: Generation;
  /** Images and secrets that are not here yet are left out. */
  readonly after: Generation;
  readonly plan: Plan;
  readonly missingImages: readonly string[];
}

export interface Comparison {
  readonly from: number;
  readonly to: number;
  readonly before: Generation | undefined;
  readonly after: Generation;
}

export interface StackView {
  readonly name: string;
  readonly origin: "file" | "run";
  readonly status: "applying" | "healthy" | "degraded" | "failed" | "removing";
  readonly generation: number;
  readonly wanted: number;
  readonly running: number;
  readonly updatedMs: number;
}

export interface GenerationView {
  readonly number: number;
  readonly digest: Digest;
  readonly createdMs: number;
  readonly status: "applying" | "live" | "superseded" | "failed" | "rolled-back";
  readonly current: boolean;
  readonly author: string;
  readonly message: string;
  readonly changes: readonly string[];
  readonly failure?: string;
}

export interface Instances {
  /** Changes whenever an answer of `list` would: lets callers keep an encoded answer. */
  revision(): number;
  list(): readonly InstanceView[];
  /** By `web`, `web-2`, `shop/web`, `shop/web-2` or id. `not-found` with near names, `invalid` when several match. */
  find(name: string): InstanceView;
  /** Like `find`, but a section's name means all its replicas and `shop/` all of a stack. */
  select(name: string): readonly InstanceView[];
  run(request: RunRequest, call: Call): Promise<Run>;
  start(id: InstanceId, call: Call): Promise<InstanceView>;
  stop(id: InstanceId, graceMs: number | undefined, call: Call): Promise<InstanceView>;
  restart(id: InstanceId, graceMs: number | undefined, call: Call): Promise<InstanceView>;
  kill(id: InstanceId, signal: string, call: Call): Promise<InstanceView>;
  pause(id: InstanceId, call: Call): Promise<InstanceView>;
  unpause(id: InstanceId, call: Call): Promise<InstanceView>;
  /** Memory to disk; `start` goes on from there. `unsupported` where the engine cannot. */
  suspend(id: InstanceId, call: Call): Promise<InstanceView>;
  remove(id: InstanceId, force: boolean, call: Call): Promise<void>;
  exec(id: InstanceId, spec: ExecSpec, call: Call): Promise<Session>;
  attach(id: InstanceId, call: Call): Promise<Session>;
  logs(id: InstanceId, range: LogRange, call: Call): AsyncIterable<LogLine>;
  processes(id: InstanceId, call: Call): Promise<readonly ProcessFacts[]>;
  stats(id: InstanceId, call: Call): Promise<Stats>;
}

/** What full machines can do beyond. `unsupported` for instances whose engine lacks it. */
export interface Machines {
  snapshot(id: InstanceId, spec: SnapshotSpec, call: Call): Promise<SnapshotFacts>;
  snapshots(id: InstanceId, call: Call): Promise<readonly SnapshotFacts[]>;
  /** Desired state, as all else: it is done by the loop, once, also when the daemon dies meanwhile. */
  revert(id: InstanceId, snapshot: string, call: Call): Promise<InstanceView>;
  removeSnapshot(id: InstanceId, snapshot: string, call: Call): Promise<void>;
  console(id: InstanceId, call: Call): Promise<Session>;
  screenshot(id: InstanceId, call: Call): Promise<Uint8Array>;
  /** What the guest's agent says. `unavailable` when none answers. */
  guest(id: InstanceId, call: Call): Promise<GuestFacts>;
  /** What it is and its disks, as one file. */
  export(id: InstanceId, call: Call): AsyncIterable<Uint8Array>;
  /** A machine from such a file; `name` undefined: the file's own. */
  import(
    bytes: AsyncIterable<Uint8Array>,
    options: { readonly name: string | undefined; readonly author: string },
    call: Call,
  ): Promise<InstanceView>;
  /** Another machine with the same disks, which is started. `precondition` while the first one runs. */
  clone(id: InstanceId, options: { readonly name: string; readonly author: string }, call: Call): Promise<InstanceView>;
}

/** `croft run`: a stack of one instance, made by the same loop. */
export interface RunRequest {
  /** Also the stack's name; absent: one is made up. */
  readonly name?: string;
  readonly section: InstanceSection;
  readonly pull: "missing" | "always" | "never";
  /** Remove it when it exits. */
  readonly remove: boolean;
  /** Hand back a session that sees the first byte. */
  readonly attach: boolean;
  readonly author: string;
  /** What the section names, where that is known already: of a machine that is a copy of another one. */
  readonly pinned?: Pick<Generation, "diskImages" | "secrets" | "files">;
}

export interface Run {
  readonly instance: InstanceView;
  /** When `attach` was asked for. */
  readonly session?: Session;
}

export interface InstanceView {
  readonly id: InstanceId;
  readonly stack: string;
  /** `web`, or `web-2` when the section has several replicas. */
  readonly name: string;
  readonly ordinal: number;
  readonly section: InstanceSection;
  readonly imageDigest?: Digest;
  readonly status: "pending" | "created" | "running" | "paused" | "suspended" | "exited" | "restarting" | "stopping";
  readonly health: "none" | "starting" | "healthy" | "unhealthy";
  readonly pid?: number;
  readonly createdMs: number;
  readonly startedMs?: number;
  readonly exit?: Exit;
  readonly restarts: number;
  readonly addresses: readonly { readonly network: string; readonly address: string }[];
  /** What went wrong last: a failed health check's words, a start error. Empty when all is well. */
  readonly message: string;
  readonly limits: Limits;
  readonly argv: readonly string[];
  readonly engine: string;
}

export interface NetworkView {
  readonly id: NetworkId;
  readonly stack: string;
  readonly name: string;
  readonly subnet: string;
  readonly internal: boolean;
  readonly members: readonly { readonly instance: string; readonly address: string }[];
}

export interface VolumeView {
  readonly id: VolumeId;
  readonly stack: string;
  readonly name: string;
  readonly sizeBytes?: number;
  readonly usedBytes?: number;
  readonly protect: boolean;
  readonly path: string;
  readonly usedBy: readonly string[];
}
