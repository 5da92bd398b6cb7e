import type { Call } from "../base/call.ts";
import type { Driver } from "../base/driver.ts";
import type { Digest, InstanceId, VolumeId } from "../base/id.ts";

/**
 * Where instances' roots and volumes live. Every method is idempotent: asking for what is already so succeeds at once.
 * Names on the host derive from the ids, and `list` tells all the pool holds, also after a crash, also what is half made.
 */
export interface Pool extends Driver {
  /**
   * Makes the writable root of an instance from read-only layers (EROFS files, lowest first) and attaches it.
   * The writable part survives `detachRoot` and a reboot; `removeRoot` deletes it.
   */
  attachRoot(root: RootSpec, call: Call): Promise<Root>;
  detachRoot(id: InstanceId, call: Call): Promise<void>;
  removeRoot(id: InstanceId, call: Call): Promise<void>;

  /** Makes the volume when it is absent, grows it when `sizeBytes` grew (a smaller size is refused), and attaches it. */
  attachVolume(volume: VolumeSpec, call: Call): Promise<AttachedVolume>;
  detachVolume(id: VolumeId, call: Call): Promise<void>;
  /** Deletes the volume and its data. */
  removeVolume(id: VolumeId, call: Call): Promise<void>;

  /** Everything this pool holds. */
  list(call: Call): Promise<PoolFacts>;
  readonly clone?: CloneFacet;
}

export interface RootSpec {
  readonly id: InstanceId;
  /** Paths of EROFS layer files, lowest first. Empty for an image without layers. */
  readonly layers: readonly LayerFile[];
  readonly readOnly: boolean;
}

export interface LayerFile {
  readonly digest: Digest;
  readonly path: string;
}

/** What the pool hands to the engine. `directory` is a mount point; `block` is for guests with a kernel of their own. */
export type Root =
  | { readonly kind: "directory"; readonly path: string }
  | {
      readonly kind: "block";
      /** Read-only EROFS files, lowest first. */
      readonly layers: readonly LayerFile[];
      /** A file or block device that holds the writable part. */
      readonly writable: string;
    };

export interface VolumeSpec {
  readonly id: VolumeId;
  /** Quota; absent: no limit but the disk. */
  readonly sizeBytes?: number;
  /**
   * A directory of an image whose content, owner and mode a new, empty volume takes over, as named volumes do in docker:
   * the instance's attached root and the path inside it, resolved beneath that root. Copied at most once.
   */
  readonly seed?: { readonly rootPath: string; readonly path: string };
}

export interface AttachedVolume {
  readonly path: string;
  /** True when `sizeBytes` is really enforced. */
  readonly quota: boolean;
}

export interface PoolFacts {
  readonly roots: readonly { readonly id: InstanceId; readonly attached: boolean; readonly usedBytes?: number }[];
  readonly volumes: readonly VolumeFacts[];
}

export interface VolumeFacts {
  readonly id: VolumeId;
  readonly attached: boolean;
  readonly path: string;
  readonly sizeBytes?: number;
  readonly usedBytes?: number;
}

/** Copy-on-write (or plain) copies of volumes. */
export interface CloneFacet {
  cloneVolume(source: VolumeId, target: VolumeId, call: Call): Promise<void>;
}
