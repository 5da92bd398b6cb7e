import type { Call } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import type { Digest } from "../../base/id.ts";
import type { Content, StoredImage } from "../content/content.ts";
import type { Descriptor } from "../manifest.ts";
import { type Reference, formatReference, parseReference } from "../reference.ts";
import type { RepositoryClient } from "./client.ts";

/** Blobs on their way at once. */
const parallel = 3;

/** Sends an image: what the registry does not have, blobs first, the manifest, which makes it visible, last. */
export async function pushImage(
  image: StoredImage,
  reference: Reference,
  client: RepositoryClient,
  content: Content,
  call: Call,
): Promise<Digest> {
  const selector = reference.tag ?? image.digest;
  if (reference.digest !== undefined && reference.digest !== image.digest) {
    throw new Fault("invalid", `${formatReference(reference)} is not the name of image ${image.digest}`);
  }
  const blobs = new Map<Digest, Descriptor>();
  for (const blob of [image.manifest.config, ...image.manifest.layers]) blobs.set(blob.digest, blob);
  const siblings = siblingPaths(image, reference, content);
  const waiting = [...blobs.values()];
  const lane = async (): Promise<void> => {
    for (let blob = waiting.shift(); blob !== undefined; blob = waiting.shift()) {
      try {
        await pushBlob(blob, siblings, client, content, call);
      } catch (error) {
        waiting.length = 0;
        throw error;
      }
    }
  };
  const lanes = await Promise.allSettled(Array.from({ length: parallel }, lane));
  const failed = lanes.find((outcome) => outcome.status === "rejected");
  if (failed !== undefined) throw failed.reason;
  await client.uploadManifest(selector, image.manifest.mediaType, image.manifestBytes, call);
  return image.digest;
}

/** Other repositories of the same registry from which the image's blobs may be there already. */
function siblingPaths(image: StoredImage, reference: Reference, content: Content): readonly string[] {
  const paths = content
    .namesOf(image.digest)
    .map((name) => parseReference(name))
    .filter(({ domain, path }) => domain === reference.domain && path !== reference.path)
    .map(({ path }) => path);
  return [...new Set(paths)].slice(0, 2);
}

async function pushBlob(
  blob: Descriptor,
  siblings: readonly string[],
  client: RepositoryClient,
  content: Content,
  call: Call,
): Promise<void> {
  const { digest, sizeBytes } = blob;
  const topic = `push ${digest.slice(0, "sha256:".length + 12)}`;
  if (await client.hasBlob(digest, call)) {
    call.report({ topic, state: "there already", done: sizeBytes, total: sizeBytes, unit: "bytes" });
    return;
  }
  for (const path of siblings) {
    if (await client.mountBlob(digest, path, call).catch(ifRefused)) return;
  }
  const open = async function* (): AsyncGenerator<Uint8Array> {
    let done = 0;
    for await (const chunk of content.streamBlob(digest)) {
      yield chunk;
      done += chunk.length;
      call.report({ topic, state: "uploading", done, total: sizeBytes, unit: "bytes" });
    }
  };
  await client.uploadBlob(digest, sizeBytes, open, call);
}

/** Not being allowed to read the other repository only means that the blob has to be sent. */
function ifRefused(error: unknown): false {
  if (isFault(error, "unauthenticated") || isFault(error, "forbidden")) return false;
  throw error;
}
