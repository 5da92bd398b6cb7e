import type { Call } from "../base/call.ts";
import type { Digest } from "../base/id.ts";

/**
 * The machine's images: one content-addressed store shared by all stacks. A layer is one EROFS file named by its digest
 * (see `layer/`), never a directory tree. All methods are safe to call at once; the same pull asked for twice runs once.
 */
export interface Images {
  /** The image a name means here and now, or undefined when it is not here. Never touches the network. */
  find(reference: string, call: Call): Promise<Image | undefined>;
  get(digest: Digest, call: Call): Promise<Image>;
  list(call: Call): Promise<readonly Image[]>;
  /** From the registry, whether or not it is here; layers that are here are not fetched again. */
  pull(reference: string, options: PullOptions, call: Call): Promise<Image>;
  push(reference: string, options: { readonly credentials?: Credentials }, call: Call): Promise<Digest>;
  /** Builds and names it. The same input again is the image that is here, at no cost, unless `fresh`. */
  build(recipe: Recipe, call: Call): Promise<Image>;
  /** Reads an OCI layout or `docker save` archive, plain or compressed. Returns what it brought. */
  load(archive: AsyncIterable<Uint8Array>, call: Call): Promise<readonly Image[]>;
  /** Writes one archive that holds these images. */
  save(references: readonly string[], format: "oci" | "docker", call: Call): AsyncIterable<Uint8Array>;
  tag(source: string, reference: string, call: Call): Promise<void>;
  /** Takes away a name (or, by digest, all its names). The content goes with `collect`. */
  remove(reference: string, call: Call): Promise<void>;
  /** Deletes content that no name and none of `keep` needs, and leftovers of interrupted work. */
  collect(keep: readonly Digest[], call: Call): Promise<{ readonly images: number; readonly freedBytes: number }>;
}

/** Who this machine is to registries. */
export interface Registries {
  /** Keeps the credentials for a registry (`docker.io`, `localhost:5000`) once it has let us in with them. */
  login(registry: string, credentials: Credentials, call: Call): Promise<void>;
  /** Forgets them; credentials in docker's own configuration are not touched. */
  logout(registry: string, call: Call): Promise<void>;
}

export interface Image {
  /** Of the manifest of this machine's platform: what a generation pins. */
  readonly digest: Digest;
  /** Canonical names, `docker.io/library/nginx:1.27`; empty for one kept only by a generation. */
  readonly references: readonly string[];
  readonly config: ImageConfig;
  /** Lowest first. The digest is the diff id, that of the uncompressed layer, after which the file is called. */
  readonly layers: readonly { readonly digest: Digest; readonly path: string; readonly sizeBytes: number }[];
  readonly createdMs: number;
  /** On this machine's disk, layers shared with others included. */
  readonly sizeBytes: number;
}

/** The runtime part of an OCI image configuration, with empty values where the image says nothing. */
export interface ImageConfig {
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly user: string;
  readonly workdir: string;
  readonly volumes: readonly string[];
  readonly exposedPorts: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly stopSignal?: string;
  readonly architecture: string;
  readonly os: string;
}

export interface PullOptions {
  /** `linux/amd64`, `linux/arm64/v8`; absent: this machine's. */
  readonly platform?: string;
  readonly credentials?: Credentials;
}

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** An `[image.x]` section, resolved: where files came from is a tar in the daemon's hands. */
export interface Recipe {
  /** The name it gets. */
  readonly reference: string;
  /** `scratch`, `debian:<suite>` (built from Debian's packages when no registry has it), or an image reference. */
  readonly from: string;
  readonly packages: readonly string[];
  /** Destination in the image → a tar file holding either one file named `.` or a directory's tree. */
  readonly files: readonly { readonly destination: string; readonly digest: Digest; readonly tarPath: string }[];
  readonly command?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly user?: string;
  readonly workdir?: string;
  /** Build again although the same input was built before (packages may have moved on). */
  readonly fresh: boolean;
}
