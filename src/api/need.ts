import type { Call } from "../base/call.ts";
import type { Digest } from "../base/id.ts";
import type { EventBus } from "../event/contract.ts";
import type { Images, Registries } from "../image/contract.ts";
import type { DiskImages } from "../image/disk/contract.ts";
import type { Operations } from "../operation/contract.ts";
import type { Cloud, Preview } from "../reconcile/contract.ts";
import type { Secrets } from "../secret/contract.ts";
import type { SectionDiff } from "../stack/plan/diff.ts";

/** Everything that the services ask of the rest of the daemon. `bin` puts it together. */
export interface Needs {
  readonly cloud: Cloud;
  readonly images: Images;
  readonly diskImages: DiskImages;
  readonly events: EventBus;
  readonly operations: Operations;
  readonly secrets: Pick<Secrets, "put" | "rotate" | "current" | "list" | "remove">;
  readonly files: FileStore;
  readonly registries: Registries;
  readonly host: HostFacts;
  readonly plans: PlanFormat;
}

/** Plans and differences as a person reads them in a terminal. */
export interface PlanFormat {
  plan(preview: Preview, options: { readonly color: boolean }): string;
  diff(sections: readonly SectionDiff[], options: { readonly color: boolean }): string;
}

/** Local files that clients sent along with a stack file, as tars named by their digest. */
export interface FileStore {
  /** Keeps a tar that holds either one file named `.` or a directory's tree. The same content again costs nothing. */
  put(tar: AsyncIterable<Uint8Array>, call: Call): Promise<Digest>;
  /**
   * The content of the one file in a tar; undefined when it holds a directory, or a file of more than `limitBytes`.
   * `not-found` when the tar is not here.
   */
  readFile(digest: Digest, limitBytes: number, call: Call): Promise<Uint8Array | undefined>;
}

export interface HostFacts {
  info(call: Call): Promise<HostInfo>;
  /** Really tries; takes seconds. */
  diagnose(call: Call): Promise<readonly Finding[]>;
  pools(call: Call): Promise<readonly PoolView[]>;
}

export interface HostInfo {
  readonly name: string;
  readonly version: string;
  readonly pid: number;
  readonly startedMs: number;
  readonly kernel: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly libDir: string;
  readonly runDir: string;
  readonly cgroups: "v1" | "hybrid" | "v2";
  /** By kind of instance: `container` → `crun`. */
  readonly engines: Readonly<Record<string, string>>;
  readonly diskFreeBytes: number;
}

export interface Finding {
  /** `engine crun`, `storage overlay`, `cgroups`. */
  readonly topic: string;
  readonly status: "ok" | "warning" | "failed";
  readonly detail: string;
  readonly mend?: string;
}

export interface PoolView {
  readonly name: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly freeBytes: number;
  readonly roots: number;
  readonly volumes: number;
}
