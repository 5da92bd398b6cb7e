import { Fault } from "../base/fault.ts";
import { type Digest, isDigest, sha256 } from "../base/id.ts";
import type { ImageConfig } from "./contract.ts";
import { type Platform, formatPlatform, platformOf, suitability } from "./platform.ts";
import { shown } from "./shown.ts";

/**
 * The documents of a registry, read as what they are: text from strangers. Each is bounded in size before it is parsed,
 * every member that is used is checked, and what is not understood is refused by name rather than guessed at.
 */

/** Larger manifests and indexes are refused; registries refuse them too. */
export const maxManifestBytes = 4 * 2 ** 20;
export const maxConfigBytes = 8 * 2 ** 20;
/** The kernel stacks at most 500 layers, and one of them is the writable one. */
const maxLayers = 400;
const maxIndexEntries = 1000;

export const mediaType = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar",
  layerGzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  layerZstd: "application/vnd.oci.image.layer.v1.tar+zstd",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
  dockerLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
} as const;

/** What a registry is asked for, in the order of preference. */
export const acceptedManifests: readonly string[] = [
  mediaType.manifest,
  mediaType.index,
  mediaType.dockerManifest,
  mediaType.dockerList,
];

/** Layers that registries may refuse to hold, because their licence forbids it; their `urls` say who has them. */
const foreignLayer =
  /^application\/vnd\.(?:oci\.image\.layer\.nondistributable\.v1|docker\.image\.rootfs\.foreign\.diff)\./;
const knownLayers: ReadonlySet<string> = new Set<string>([
  mediaType.layer,
  mediaType.layerGzip,
  mediaType.layerZstd,
  mediaType.dockerLayer,
  mediaType.dockerLayerGzip,
]);

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly urls: readonly string[];
}

export interface Manifest {
  readonly kind: "manifest";
  readonly mediaType: string;
  readonly config: Descriptor;
  /** Lowest first. */
  readonly layers: readonly Descriptor[];
}

export interface Index {
  readonly kind: "index";
  readonly mediaType: string;
  readonly manifests: readonly (Descriptor & {
    readonly platform?: Platform;
    readonly annotations: Readonly<Record<string, string>>;
  })[];
}

/** What a configuration says, and what is checked against the manifest. */
export interface ConfigDocument {
  readonly config: ImageConfig;
  readonly platform: Platform;
  /** Digests of the uncompressed layers, lowest first. */
  readonly diffIds: readonly Digest[];
  readonly createdMs: number;
}

/** Whether the layer's bytes may have to come from its `urls`. */
export function isForeign(layer: Descriptor): boolean {
  return foreignLayer.test(layer.mediaType);
}

/**
 * Reads a manifest or index. `claimed` is the media type it came with, if any; it must not contradict the document's
 * own. Throws `corrupt` for what is not a manifest and `unsupported` for one of a kind we do not speak.
 */
export function parseManifest(bytes: Uint8Array, claimed: string | undefined, subject: string): Manifest | Index {
  const document = parseObject(bytes, maxManifestBytes, subject);
  if (document["schemaVersion"] === 1) {
    throw new Fault(
      "unsupported",
      `${subject} is in docker's first manifest format, which proves nothing of its content`,
      {
        hint: "push it again with a current tool",
      },
    );
  }
  if (document["schemaVersion"] !== 2) throw corrupt(subject, "it is not an image manifest");
  // A document that can be read both ways would be one image to one tool and another image to the next.
  if ("manifests" in document && ("layers" in document || "config" in document)) {
    throw new Fault("hostile", `${subject} is a manifest and an index at once`);
  }
  const own = document["mediaType"];
  const type = typeof own === "string" ? own : (knownType(claimed) ?? guessType(document));
  if (knownType(claimed) !== undefined && claimed !== type) {
    throw corrupt(subject, `it was sent as ${claimed} and calls itself ${shown(type)}`);
  }
  if (type === mediaType.index || type === mediaType.dockerList) return readIndex(document, type, subject);
  if (type === mediaType.manifest || type === mediaType.dockerManifest) return readManifest(document, type, subject);
  throw new Fault("unsupported", `${subject} is of the type ${shown(type)}, which is not an image`);
}

/** The entry of an index that runs best on `wanted`. Throws an `unsupported` Fault that lists what there is. */
export function chooseManifest(index: Index, wanted: Platform, subject: string): Descriptor {
  let best: { descriptor: Descriptor; score: number } | undefined;
  for (const entry of index.manifests) {
    if (!acceptedManifests.includes(entry.mediaType)) continue;
    // An index of one image need not say its platform; the image's configuration is asked later.
    const unsaid = entry.platform === undefined && index.manifests.length === 1;
    const score = entry.platform === undefined ? (unsaid ? 1 : 0) : suitability(entry.platform, wanted);
    if (score > (best?.score ?? 0)) best = { descriptor: entry, score };
  }
  if (best !== undefined) return best.descriptor;
  const offered = new Set(
    index.manifests.map(({ platform }) => (platform === undefined ? "?" : formatPlatform(platform))),
  );
  offered.delete("unknown/unknown");
  throw new Fault("unsupported", `${subject} has no image for ${formatPlatform(wanted)}`, {
    hint: `it has ${[...offered].slice(0, 20).join(", ") || "none"}; choose one by platform`,
  });
}

/** Reads an image configuration. Throws `corrupt`. */
export function parseConfig(bytes: Uint8Array, subject: string): ConfigDocument {
  const document = parseObject(bytes, maxConfigBytes, subject);
  const rootfs = object(document["rootfs"] ?? {}, "rootfs", subject);
  const diffIds = array(rootfs["diff_ids"] ?? [], "rootfs.diff_ids", subject).map((value) => {
    if (typeof value !== "string" || !isDigest(value)) throw corrupt(subject, "a layer's diff_id is not a digest");
    return value;
  });
  const inner = object(document["config"] ?? {}, "config", subject);
  const os = text(document["os"], "os", subject) || "linux";
  const architecture = text(document["architecture"], "architecture", subject);
  const stopSignal = text(inner["StopSignal"], "StopSignal", subject);
  const created = Date.parse(text(document["created"], "created", subject));
  const platform = platformOf(os, architecture, text(document["variant"], "variant", subject));
  const config: ImageConfig = {
    entrypoint: texts(inner["Entrypoint"], "Entrypoint", subject),
    command: texts(inner["Cmd"], "Cmd", subject),
    env: environment(texts(inner["Env"], "Env", subject)),
    user: text(inner["User"], "User", subject),
    workdir: text(inner["WorkingDir"], "WorkingDir", subject),
    volumes: Object.keys(object(inner["Volumes"] ?? {}, "Volumes", subject)),
    exposedPorts: Object.keys(object(inner["ExposedPorts"] ?? {}, "ExposedPorts", subject)),
    labels: stringMap(inner["Labels"], "Labels", subject),
    ...(stopSignal === "" ? {} : { stopSignal }),
    architecture: platform.architecture,
    os,
  };
  return { config, platform, diffIds, createdMs: Number.isFinite(created) ? created : 0 };
}

/** A manifest and its configuration must speak of the same layers. */
export function checkLayers(manifest: Manifest, document: ConfigDocument, subject: string): void {
  if (manifest.layers.length !== document.diffIds.length) {
    throw corrupt(
      subject,
      `its manifest has ${manifest.layers.length} layers, its configuration ${document.diffIds.length}`,
    );
  }
}

/** Throws an `unsupported` Fault for more layers than can be stacked. */
export function refuseManyLayers(count: number, subject: string): void {
  if (count <= maxLayers) return;
  throw new Fault("unsupported", `${subject} has ${count} layers; at most ${maxLayers} can be stacked`);
}

/** A new manifest: its bytes, which are its identity, and what they say. */
export function writeManifest(config: Descriptor, layers: readonly Descriptor[]): { bytes: Buffer; digest: Digest } {
  const plain = ({ mediaType: type, digest, sizeBytes }: Descriptor): object => ({
    mediaType: type,
    digest,
    size: sizeBytes,
  });
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaType.manifest,
      config: plain(config),
      layers: layers.map(plain),
    }),
  );
  return { bytes, digest: sha256(bytes) };
}

export function corrupt(subject: string, why: string): Fault {
  return new Fault("corrupt", `${subject}: ${why}`);
}

/** The JSON object in `bytes`. */
export function parseObject(bytes: Uint8Array, maxBytes: number, subject: string): Readonly<Record<string, unknown>> {
  if (bytes.length > maxBytes) throw new Fault("exhausted", `${subject} is larger than ${maxBytes} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (error) {
    throw new Fault("corrupt", `${subject} is not JSON`, { cause: error });
  }
  return object(value, "the document", subject);
}

export function readDescriptor(value: unknown, what: string, subject: string): Descriptor {
  const descriptor = object(value, what, subject);
  const { mediaType: type, digest, size } = descriptor;
  if (typeof digest === "string" && /^sha(?:384|512):/.test(digest)) {
    throw new Fault("unsupported", `${subject}: ${what} is named by ${digest.slice(0, 6)}; only sha256 is spoken here`);
  }
  if (typeof type !== "string" || typeof digest !== "string" || !isDigest(digest)) {
    throw corrupt(subject, `${what} has no media type or digest`);
  }
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0)
    throw corrupt(subject, `${what} has no size`);
  return { mediaType: type, digest, sizeBytes: size, urls: texts(descriptor["urls"], `${what}.urls`, subject) };
}

export function object(value: unknown, what: string, subject: string): Readonly<Record<string, unknown>> {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw corrupt(subject, `${what} is not an object`);
  }
  return value as Readonly<Record<string, unknown>>;
}

export function array(value: unknown, what: string, subject: string): readonly unknown[] {
  if (!Array.isArray(value)) throw corrupt(subject, `${what} is not a list`);
  return value;
}

export function stringMap(value: unknown, what: string, subject: string): Readonly<Record<string, string>> {
  const entries = Object.entries(object(value ?? {}, what, subject));
  return Object.fromEntries(entries.map(([key, member]) => [key, text(member, `${what}.${key}`, subject)]));
}

/** A list of strings; absent and null are empty. */
export function texts(value: unknown, what: string, subject: string): readonly string[] {
  return array(value ?? [], what, subject).map((member) => text(member, what, subject));
}

function text(value: unknown, what: string, subject: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw corrupt(subject, `${what} is not text`);
  return value;
}

/** `A=1` lines as a record; the last of equal names wins, and a line without `=` is an empty value, as in docker. */
function environment(lines: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    lines.map((line) => {
      const equals = line.indexOf("=");
      return equals === -1 ? [line, ""] : [line.slice(0, equals), line.slice(equals + 1)];
    }),
  );
}

function readIndex(document: Readonly<Record<string, unknown>>, type: string, subject: string): Index {
  const entries = array(document["manifests"], "manifests", subject);
  if (entries.length > maxIndexEntries) throw new Fault("exhausted", `${subject} has ${entries.length} manifests`);
  const manifests = entries.map((entry) => {
    const descriptor = readDescriptor(entry, "an entry", subject);
    const members = object(entry, "an entry", subject);
    const annotations = stringMap(members["annotations"], "annotations", subject);
    if (members["platform"] === undefined) return { ...descriptor, annotations };
    const platform = object(members["platform"], "platform", subject);
    return {
      ...descriptor,
      annotations,
      platform: platformOf(
        text(platform["os"], "os", subject),
        text(platform["architecture"], "architecture", subject),
        text(platform["variant"], "variant", subject),
      ),
    };
  });
  return { kind: "index", mediaType: type, manifests };
}

function readManifest(document: Readonly<Record<string, unknown>>, type: string, subject: string): Manifest {
  const config = readDescriptor(document["config"], "config", subject);
  if (config.mediaType !== mediaType.config && config.mediaType !== mediaType.dockerConfig) {
    throw new Fault("unsupported", `${subject} is not an image but holds ${shown(config.mediaType)}`);
  }
  const entries = array(document["layers"], "layers", subject);
  refuseManyLayers(entries.length, subject);
  const layers = entries.map((entry) => readDescriptor(entry, "a layer", subject));
  for (const layer of layers) {
    if (knownLayers.has(layer.mediaType) || isForeign(layer)) continue;
    throw new Fault("unsupported", `${subject} has a layer of the type ${shown(layer.mediaType)}`);
  }
  return { kind: "manifest", mediaType: type, config, layers };
}

function knownType(type: string | undefined): string | undefined {
  return type !== undefined && acceptedManifests.includes(type) ? type : undefined;
}

/** Old OCI documents do not name their own type. */
function guessType(document: Readonly<Record<string, unknown>>): string {
  return "manifests" in document ? mediaType.index : mediaType.manifest;
}
