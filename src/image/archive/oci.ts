import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { type Digest, sha256 } from "../../base/id.ts";
import type { Content, Lease, StoredImage } from "../content/content.ts";
import type { LayerStore } from "../layer-store.ts";
import { thisMachine } from "../layer/layer-workers.ts";
import {
  type Descriptor,
  type Index,
  checkLayers,
  chooseManifest,
  maxConfigBytes,
  maxManifestBytes,
  parseConfig,
  parseManifest,
} from "../manifest.ts";
import { hostPlatform } from "../platform.ts";
import { type Reference, parseReference } from "../reference.ts";
import type { LoadedImage } from "./load.ts";
import type { Spool } from "./spool.ts";

const maxImages = 1000;
const maxIndexDepth = 3;

/** Annotations by which tools write a name down; the first holds a whole name, the second sometimes only a tag. */
const nameAnnotations: readonly string[] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/** The images of an OCI layout: `index.json`, and blobs by digest. */
export async function loadOci(
  spool: Spool,
  content: Content,
  layers: LayerStore,
  lease: Lease,
  call: Call,
): Promise<readonly LoadedImage[]> {
  const index = parseManifest(await spool.document("index.json", maxManifestBytes), undefined, "index.json");
  if (index.kind !== "index") throw new Fault("corrupt", "index.json in the archive is not an index");
  if (index.manifests.length > maxImages) {
    throw new Fault("exhausted", `the archive holds ${index.manifests.length} images; at most ${maxImages} are loaded`);
  }
  const loaded = new Map<Digest, { image: StoredImage; references: Reference[] }>();
  for (const entry of index.manifests) {
    const bytes = await imageManifest(entry, spool, 0);
    if (bytes === undefined) continue;
    const image = await loadImage(bytes, spool, content, layers, lease, call);
    const known = loaded.get(image.digest) ?? { image, references: [] };
    const reference = nameOf(entry);
    if (reference !== undefined) known.references.push(reference);
    loaded.set(image.digest, known);
  }
  if (loaded.size === 0) throw new Fault("invalid", "the archive holds no image for this machine");
  return [...loaded.values()];
}

/** The manifest behind an entry, for this machine where there is a choice; undefined for what is not an image. */
async function imageManifest(entry: Descriptor, spool: Spool, depth: number): Promise<Buffer | undefined> {
  const subject = `manifest ${entry.digest} in the archive`;
  const bytes = await blob(entry, spool, maxManifestBytes, subject);
  const parsed = parseManifest(bytes, entry.mediaType, subject);
  if (parsed.kind === "manifest") return bytes;
  if (depth === maxIndexDepth) throw new Fault("hostile", `${subject}: indexes within indexes`);
  // An archive may hold one platform of an index that lists many.
  const present: Index = { ...parsed, manifests: parsed.manifests.filter(({ digest }) => spool.has(blobName(digest))) };
  return await imageManifest(chooseManifest(present, hostPlatform(), subject), spool, depth + 1);
}

async function loadImage(
  bytes: Buffer,
  spool: Spool,
  content: Content,
  layers: LayerStore,
  lease: Lease,
  call: Call,
): Promise<StoredImage> {
  const subject = `image ${sha256(bytes)} in the archive`;
  const manifest = parseManifest(bytes, undefined, subject);
  if (manifest.kind !== "manifest") throw new Fault("bug", `${subject} is an index`);
  lease.hold(sha256(bytes), manifest.config.digest, ...manifest.layers.map(({ digest }) => digest));
  const config = await blob(manifest.config, spool, maxConfigBytes, `configuration of ${subject}`);
  const document = parseConfig(config, subject);
  checkLayers(manifest, document, subject);
  lease.hold(...document.diffIds);
  for (const [position, { digest, sizeBytes }] of manifest.layers.entries()) {
    const diffId = document.diffIds[position];
    if (diffId === undefined) continue;
    const source = (): { kind: "file"; path: string } => ({ kind: "file", path: spool.file(blobName(digest)).path });
    await layers.ensure({ digest, sizeBytes, diffId }, { origin: thisMachine, sources: [source] }, call);
  }
  await content.putBlob(config);
  return await content.commit(bytes);
}

/** A document among the blobs, held against its descriptor. */
async function blob(descriptor: Descriptor, spool: Spool, maxBytes: number, subject: string): Promise<Buffer> {
  const bytes = await spool.document(blobName(descriptor.digest), maxBytes);
  if (bytes.length !== descriptor.sizeBytes || sha256(bytes) !== descriptor.digest) {
    throw new Fault("corrupt", `${subject} is not what its digest says`);
  }
  return bytes;
}

export function blobName(digest: Digest): string {
  return `blobs/sha256/${digest.slice("sha256:".length)}`;
}

/** The name an entry gives its image; a bare tag names nothing. */
function nameOf(entry: Index["manifests"][number]): Reference | undefined {
  for (const annotation of nameAnnotations) {
    const name = Object.hasOwn(entry.annotations, annotation) ? entry.annotations[annotation] : undefined;
    if (name === undefined || !/[/:]/.test(name)) continue;
    const reference = parseReference(name);
    if (reference.digest === undefined || reference.digest === entry.digest) return reference;
  }
  return undefined;
}
