import { open } from "node:fs/promises";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { type Digest, sha256 } from "../../base/id.ts";
import type { Content, Lease, StoredImage } from "../content/content.ts";
import type { LayerStore, StoredLayer } from "../layer-store.ts";
import {
  type Descriptor,
  array,
  corrupt,
  maxConfigBytes,
  maxManifestBytes,
  mediaType,
  object,
  parseConfig,
  refuseManyLayers,
  texts,
  writeManifest,
} from "../manifest.ts";
import { parseReference } from "../reference.ts";
import { shown } from "../shown.ts";
import type { LoadedImage } from "./load.ts";
import type { Spool } from "./spool.ts";

const maxImages = 1000;

/**
 * The images of a `docker save` archive: `manifest.json` names for each a configuration and its layers, which are plain
 * tars or links to those of another image. It has no manifests in the registry's sense, so one is written here; the
 * same archive always gives the same one.
 */
export async function loadDocker(
  spool: Spool,
  content: Content,
  layers: LayerStore,
  lease: Lease,
  call: Call,
): Promise<readonly LoadedImage[]> {
  const subject = "manifest.json in the archive";
  const entries = array(
    parseJson(await spool.document("manifest.json", maxManifestBytes), subject),
    "the list",
    subject,
  );
  if (entries.length > maxImages) {
    throw new Fault("exhausted", `the archive holds ${entries.length} images; at most ${maxImages} are loaded`);
  }
  const loaded: LoadedImage[] = [];
  for (const value of entries) {
    const entry = object(value, "an entry", subject);
    const config = entry["Config"];
    if (typeof config !== "string") throw corrupt(subject, "an entry names no configuration");
    const image = await loadImage(
      config,
      texts(entry["Layers"], "Layers", subject),
      spool,
      content,
      layers,
      lease,
      call,
    );
    const references = texts(entry["RepoTags"], "RepoTags", subject).map((tag) => parseReference(tag));
    loaded.push({ image, references });
  }
  if (loaded.length === 0) throw new Fault("invalid", "the archive holds no image");
  return loaded;
}

async function loadImage(
  configName: string,
  layerNames: readonly string[],
  spool: Spool,
  content: Content,
  layers: LayerStore,
  lease: Lease,
  call: Call,
): Promise<StoredImage> {
  const subject = `image ${shown(configName)} in the archive`;
  refuseManyLayers(layerNames.length, subject);
  const config = await spool.document(configName, maxConfigBytes);
  const document = parseConfig(config, subject);
  if (layerNames.length !== document.diffIds.length) {
    throw corrupt(subject, `it lists ${layerNames.length} layers, its configuration ${document.diffIds.length}`);
  }
  lease.hold(sha256(config), ...document.diffIds);
  const descriptors: Descriptor[] = [];
  for (const [position, name] of layerNames.entries()) {
    const diffId = document.diffIds[position];
    if (diffId === undefined) continue;
    const { path } = spool.file(name);
    const layer = await ensureLayer(path, diffId, content, layers, lease, call);
    descriptors.push({ ...layer, mediaType: await layerType(path), urls: [] });
  }
  const configDescriptor = { mediaType: mediaType.config, digest: await content.putBlob(config), urls: [] };
  const { bytes, digest } = writeManifest({ ...configDescriptor, sizeBytes: config.length }, descriptors);
  lease.hold(digest);
  return await content.commit(bytes);
}

/** Only the diff id is known, and the blob's digest equals it as long as the layer is a plain tar. */
async function ensureLayer(
  path: string,
  diffId: Digest,
  content: Content,
  layers: LayerStore,
  lease: Lease,
  call: Call,
): Promise<StoredLayer> {
  const isPlain = (await layerType(path)) === mediaType.layer;
  const known = isPlain ? content.blobSize(diffId) : undefined;
  if (known !== undefined && content.hasLayer(diffId)) return { digest: diffId, diffId, sizeBytes: known };
  return await layers.add({ kind: "file", path }, { diffId }, lease.hold, call);
}

/** By its first bytes, as the archive does not say. */
async function layerType(path: string): Promise<string> {
  const file = await open(path);
  try {
    const first = Buffer.alloc(4);
    await file.read(first, 0, 4, 0);
    if (first[0] === 0x1f && first[1] === 0x8b) return mediaType.layerGzip;
    return first.readUInt32LE(0) === 0xfd2fb528 ? mediaType.layerZstd : mediaType.layer;
  } finally {
    await file.close();
  }
}

function parseJson(bytes: Buffer, subject: string): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new Fault("corrupt", `${subject} is not JSON`, { cause: error });
  }
}
