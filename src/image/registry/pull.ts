import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { type Reference, formatReference } from "../reference.ts";
import type { Content, Lease, StoredImage } from "../content/content.ts";
import type { LayerStore } from "../layer-store.ts";
import type { BlobSource } from "../layer/blob-source.ts";
import {
  type Descriptor,
  type Manifest,
  acceptedManifests,
  checkLayers,
  chooseManifest,
  corrupt,
  isForeign,
  maxConfigBytes,
  parseConfig,
  parseManifest,
} from "../manifest.ts";
import { type Platform, formatPlatform, hostPlatform, suitability } from "../platform.ts";
import { refuseWithoutRoom } from "../room.ts";
import type { RepositoryClient } from "./client.ts";
import { followable } from "./endpoint.ts";

/** An index may name another one; deeper than this it is a trap. */
const maxIndexDepth = 3;

/** Fetches an image and all it needs. The image is complete in the store, without a name, when this resolves. */
export async function pullImage(
  reference: Reference,
  platform: Platform | undefined,
  client: RepositoryClient,
  content: Content,
  layers: LayerStore,
  lease: Lease,
  call: Call,
): Promise<StoredImage> {
  const subject = formatReference(reference);
  const { bytes, manifest } = await findManifest(reference, platform ?? hostPlatform(), client, call);
  lease.hold(manifest.config.digest, ...manifest.layers.map(({ digest }) => digest));
  const config = await fetchConfig(manifest.config, client, content, call);
  if (config.length !== manifest.config.sizeBytes) {
    throw corrupt(
      subject,
      `its configuration has ${config.length} bytes, its manifest says ${manifest.config.sizeBytes}`,
    );
  }
  const document = parseConfig(config, `configuration of ${subject}`);
  checkLayers(manifest, document, subject);
  checkPlatform(document.platform, platform, subject);
  lease.hold(...document.diffIds);
  refuseWithoutRoom(content.layout.temporaryDir, missingBytes(manifest, content), subject);
  const work = manifest.layers.map((layer, position) => ({ layer, diffId: document.diffIds[position] }));
  await all(call, work, async ({ layer, diffId }, call) => {
    if (diffId === undefined) return;
    const { digest, sizeBytes } = layer;
    const offer = { origin: client.origin.origin, sources: sourcesOf(layer, client) };
    await layers.ensure({ digest, sizeBytes, diffId }, offer, call);
  });
  await content.putBlob(config);
  return await content.commit(bytes);
}

async function findManifest(
  reference: Reference,
  platform: Platform,
  client: RepositoryClient,
  call: Call,
): Promise<{ bytes: Buffer; manifest: Manifest }> {
  const subject = formatReference(reference);
  let selector: string = reference.digest ?? reference.tag ?? "latest";
  let expectedBytes: number | undefined;
  for (let depth = 0; depth < maxIndexDepth; depth += 1) {
    call.report({ topic: `pull ${subject}`, state: "reading the manifest" });
    const { bytes, contentType } = await client.fetchManifest(selector, acceptedManifests, call);
    if (expectedBytes !== undefined && bytes.length !== expectedBytes) {
      throw new Fault("corrupt", `${subject}: its manifest has ${bytes.length} bytes, the index says ${expectedBytes}`);
    }
    const parsed = parseManifest(bytes, contentType, subject);
    if (parsed.kind === "manifest") return { bytes, manifest: parsed };
    const chosen = chooseManifest(parsed, platform, subject);
    selector = chosen.digest;
    expectedBytes = chosen.sizeBytes;
  }
  throw new Fault("hostile", `${subject}: indexes within indexes, more than ${maxIndexDepth} deep`);
}

/** The configuration, from the store when it has it. */
async function fetchConfig(
  config: Descriptor,
  client: RepositoryClient,
  content: Content,
  call: Call,
): Promise<Buffer> {
  if (content.hasBlob(config.digest)) return await content.readBlob(config.digest, maxConfigBytes);
  return await client.fetchBlob(config.digest, config.sizeBytes, maxConfigBytes, call);
}

/** An image for another machine would fail only later, and obscurely. One that was asked for by platform is taken. */
function checkPlatform(found: Platform, asked: Platform | undefined, subject: string): void {
  if (suitability(found, asked ?? hostPlatform()) > 0) return;
  const wanted =
    asked === undefined ? `this machine is ${formatPlatform(hostPlatform())}` : `not ${formatPlatform(asked)}`;
  throw new Fault("unsupported", `${subject} is an image for ${formatPlatform(found)}, ${wanted}`, {
    hint: `to have it nevertheless, ask for the platform ${formatPlatform(found)}`,
  });
}

/** What there is to fetch, by what the manifest says; unpacked it takes at least as much once more. */
function missingBytes(manifest: Manifest, content: Content): number {
  const missing = new Map(manifest.layers.map(({ digest, sizeBytes }) => [digest, sizeBytes]));
  return [...missing].reduce((sum, [digest, sizeBytes]) => sum + (content.hasBlob(digest) ? 0 : sizeBytes), 0);
}

/** Where the layer's bytes may be had: the registry, and for foreign layers also where their publisher keeps them. */
function sourcesOf(layer: Descriptor, client: RepositoryClient): readonly ((call: Call) => BlobSource)[] {
  const registry = (call: Call): BlobSource => ({ kind: "http", ...client.blobSource(layer.digest, call) });
  if (!isForeign(layer)) return [registry];
  const foreign = layer.urls.slice(0, 3).map((text) => (): BlobSource => {
    const url = followable(text, client.origin, client.origin, "foreign layer");
    return { kind: "http", url: url.href, headers: () => Promise.resolve({}) };
  });
  return [registry, ...foreign];
}

/** Runs `action` for all at once; the first failure cancels the others, and all have ended when this ends. */
async function all<Item>(
  call: Call,
  items: readonly Item[],
  action: (item: Item, call: Call) => Promise<void>,
): Promise<void> {
  const controller = new AbortController();
  const signal = AbortSignal.any([call.signal, controller.signal]);
  const shared: Call = { signal, clock: call.clock, report: (progress) => call.report(progress) };
  let failed: { readonly error: unknown } | undefined;
  const guarded = async (item: Item): Promise<void> => {
    try {
      await action(item, shared);
    } catch (error) {
      failed ??= { error };
      controller.abort(new Fault("cancelled", "another layer of the image failed"));
    }
  };
  await Promise.all(items.map(guarded));
  if (failed !== undefined) throw failed.error;
}
