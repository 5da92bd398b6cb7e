import type { Call } from "../../base/call.ts";
import type { Digest } from "../../base/id.ts";

/**
 * The machine's library of disk images and ISOs, shared by all stacks: what disks of full machines begin as, and what
 * lies in their CD-ROM drives. Content is named by its digest and never changes; a name leads to a content. All methods
 * are safe to call at once.
 */
export interface DiskImages {
  /**
   * Brings an image in under a name, held against its checksum before anything else looks at it. The same content under
   * the same name again is the image that is here, at no cost when the checksum says so beforehand. A download that was
   * interrupted goes on where it stopped, also in the next call.
   *
   * Throws `corrupt` when checksum, signature or format do not hold, `hostile` for an image that names files outside of
   * itself, `precondition` when nothing vouches for it and that was not allowed, `already-exists` when the name means
   * another content and `replace` was not said, `exhausted` beyond the limits or on a full disk. Nothing stays behind
   * then, but for what a repeated download can use.
   */
  import(request: DiskImport, call: Call): Promise<DiskImage>;
  /**
   * The same for a content that is not to have a name: a disk of a machine that comes as a file. Within a day somebody has
   * to need it, see `collect`.
   */
  importNameless(request: Omit<DiskImport, "name" | "replace">, call: Call): Promise<DiskImage>;
  /** Deletes a content that has no name and that no disk reads from, at once. Idempotent. */
  discard(digest: Digest, call: Call): Promise<void>;
  /** The image a name means here and now, or undefined when there is none. Reads no content. */
  find(name: string, call: Call): Promise<DiskImage | undefined>;
  /** By content: what a generation pinned, whatever its name means by now. Throws `not-found`. */
  get(digest: Digest, call: Call): Promise<DiskImage>;
  list(call: Call): Promise<readonly DiskImage[]>;
  /** Reads all of its content again. Throws `corrupt` when it is not what was imported. */
  verify(name: string, call: Call): Promise<DiskImage>;
  /**
   * Takes away a name, and the content with its last name. Throws `precondition` while a disk is backed by it, naming the
   * disk. Idempotent.
   */
  remove(name: string, call: Call): Promise<void>;
  /**
   * Deletes contents without a name that no disk and none of `keep` needs, but for those that came without one within the
   * last day: what they are for may not be made yet. Deletes what interrupted imports left, too.
   */
  collect(keep: readonly Digest[], call: Call): Promise<{ readonly images: number; readonly freedBytes: number }>;
}

export interface DiskImage {
  /** Of the file at `path`. An image that came compressed lies here unpacked, so this is not what its publisher says. */
  readonly digest: Digest;
  /** Sorted; empty for a content whose names all went on to another. */
  readonly names: readonly string[];
  /** Read-only; never written to. */
  readonly path: string;
  readonly format: "qcow2" | "raw";
  readonly kind: DiskImageKind;
  /** What a guest sees. */
  readonly virtualSizeBytes: number;
  /** On this machine's disk. */
  readonly sizeBytes: number;
  /** What vouched for it when it was imported. */
  readonly verified: Verification;
  /** Where it came from, for people: a URL without credentials, or the name of a file. */
  readonly origin: string;
  readonly importedMs: number;
}

export type DiskImageKind = "disk" | "iso";
/** `no`: nothing but whoever imported it. `signature`: a list of checksums that was signed by a key of the given keyring. */
export type Verification = "no" | "checksum" | "signature";

export interface DiskImport {
  /** Absent: the last part of the origin, without the ending of a compression: `debian-12.qcow2`. See `diskImageNamePattern`. */
  readonly name?: string;
  readonly source: DiskSource;
  /** Absent: nothing vouches for it, which is refused for ISOs and for everything from a URL, unless allowed. */
  readonly checksum?: ImageChecksum;
  readonly allowUnverified: boolean;
  /** The name may mean another content already, and goes on to this one. */
  readonly replace: boolean;
}

export type DiskSource =
  /** On this machine, read as the daemon: who may ask for that is decided above. */
  | { readonly kind: "file"; readonly path: string }
  /** As they come, from a client for example. */
  | {
      readonly kind: "bytes";
      readonly bytes: AsyncIterable<Uint8Array>;
      /** What it is called where it comes from: `debian-12.qcow2.xz`. */
      readonly filename: string;
      readonly sizeBytes?: number;
    }
  | { readonly kind: "url"; readonly url: string };

export type ImageChecksum =
  /** Of the bytes as they come, compressed or not: `sha256:` or `sha512:` and hex digits. */
  | { readonly kind: "digest"; readonly digest: string }
  /** A list as publishers keep it, `SHA256SUMS` or `SHA512SUMS`, in which the image is found by its file name. */
  | {
      readonly kind: "list";
      readonly list: SmallFile;
      /** Proves that the list is the publisher's. Without it the list is a checksum and no more. */
      readonly signature?: {
        /** `SHA256SUMS.gpg`, `SHA512SUMS.sign`. Absent: the list is a signed text itself, as `SHA256SUMS.asc` is. */
        readonly detached?: SmallFile;
        /** A file on this machine with the public keys that are trusted, as `gpg --export` writes it, armored or not. */
        readonly keyringPath: string;
      };
    };

/** A few kilobytes, handed over or fetched. */
export type SmallFile =
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | { readonly kind: "url"; readonly url: string };

/** What images may be called. */
export const diskImageNamePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
