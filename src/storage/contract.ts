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
  readonly disks?: DiskFacet;
}

export interface RootSpec {
  readonly id: InstanceId;
  /** Paths of EROFS layer files, lowest first. Empty for an image without layers. */
  readonly layers: readonly LayerFile[];
  readonly readOnly: boolean;
  /**
   * What the instance's engine takes. A directory may be attached beside a block root, to look into the image; attaching
   * the block root ends it.
   */
  readonly kind: Root["kind"];
  /** For `block`: the user who may open the writable file, as a number. Default: root. */
  readonly ownerUid?: number;
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
      /**
       * A raw file with an ext4 file system, sparse, that holds the writable part. Whoever uses the root may put another one
       * in its place, by `rename`. Absent when the root is read-only.
       */
      readonly writable?: string;
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

/** Disks of full machines. They belong to one instance, and are named by it and a word of their own: `root`, `data`. */
export interface DiskFacet {
  /**
   * Makes the disk when it is absent, else grows it when `sizeBytes` grew (a smaller size is refused), and hands it over.
   * A disk with a base is a copy-on-write child of it, made at once whatever its size. What is there is kept, whatever
   * base is asked for. Growing throws `precondition` while a machine has it open: that machine is asked to grow it first.
   */
  attachDisk(disk: DiskSpec, call: Call): Promise<AttachedDisk>;
  /** Deletes the disk and its data. Idempotent. */
  removeDisk(id: InstanceId, name: string, call: Call): Promise<void>;
  /** All disks there are, also half-made. */
  listDisks(call: Call): Promise<readonly DiskFacts[]>;
  /**
   * Makes the target a disk with the source's content, apart from it from now on; once, when it is there already nothing
   * is done. At once whatever their size, but for a source with internal snapshots, which are copied with it.
   * Throws `not-found` without the source, `precondition` while a machine has it open.
   */
  cloneDisk(source: DiskKey, target: DiskKey, call: Call): Promise<void>;
  /**
   * Writes all that is in the disk, without its snapshots, to a qcow2 file of its own at `path`, which is there whole or
   * not at all. Throws as `cloneDisk` does.
   */
  exportDisk(source: DiskKey, path: string, call: Call): Promise<void>;
}

export interface DiskKey {
  readonly id: InstanceId;
  readonly name: string;
}

export interface DiskSpec extends DiskKey {
  /** A verified file of the image library, never written to. Absent: blank. */
  readonly base?: { readonly path: string; readonly format: DiskFormat };
  /** Bytes the guest sees; absent: as the base. Required for a blank one. */
  readonly sizeBytes?: number;
  /** The user who may open it, as a number. Default: root. */
  readonly ownerUid?: number;
}

export type DiskFormat = "qcow2" | "raw";

export interface AttachedDisk {
  readonly path: string;
  readonly format: DiskFormat;
  /** Files that `path` reads from, nearest first: what a sandbox has to let through. */
  readonly backing: readonly string[];
}

export interface DiskFacts extends DiskKey {
  /** What the guest sees; 0 for a disk that is half made. */
  readonly sizeBytes: number;
  /** On this machine's disk, without what it shares with others. */
  readonly usedBytes: number;
  /** As in `AttachedDisk`: these files must stay. */
  readonly backing: readonly string[];
}
