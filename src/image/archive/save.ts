import { pack } from "tar-stream";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Digest } from "../../base/id.ts";
import { buildEpochSec } from "../build/epoch.ts";
import type { Content, StoredImage } from "../content/content.ts";
import { type Descriptor, mediaType } from "../manifest.ts";
import { type Reference, formatReference } from "../reference.ts";
import { blobName } from "./oci.ts";

export interface SavedImage {
  readonly image: StoredImage;
  readonly reference: Reference | undefined;
}

/**
 * Writes images as one tar, with each blob once. Both formats have the OCI layout, with the very manifests, so that
 * loading gives the same digests; `docker` adds the `manifest.json` by which docker and podman of any age find their way.
 * The same images give the same bytes.
 */
export async function* saveArchive(
  images: readonly SavedImage[],
  format: "oci" | "docker",
  content: Content,
  call: Call,
): AsyncGenerator<Uint8Array> {
  if (images.length === 0) throw new Fault("invalid", "no image was named to be saved");
  const packer = pack();
  let failure: { readonly error: unknown } | undefined;
  const written = writeEntries(packer, images, format, content, call).catch((error: unknown) => {
    failure = { error };
    packer.destroy();
  });
  try {
    for await (const chunk of packer as AsyncIterable<Uint8Array>) yield chunk;
  } catch (error) {
    failure ??= { error };
  } finally {
    // Whoever stops reading ends the writer too.
    packer.destroy();
    await written;
  }
  throwIfCancelled(call);
  if (failure !== undefined) throw failure.error;
}

type Packer = ReturnType<typeof pack>;

async function writeEntries(
  packer: Packer,
  images: readonly SavedImage[],
  format: "oci" | "docker",
  content: Content,
  call: Call,
): Promise<void> {
  await writeDocument(packer, "oci-layout", JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await writeDocument(packer, "index.json", JSON.stringify(indexOf(images)));
  if (format === "docker") await writeDocument(packer, "manifest.json", JSON.stringify(images.map(dockerEntry)));
  const done = new Set<Digest>();
  for (const { image } of images) {
    if (!done.has(image.digest)) await writeDocument(packer, blobName(image.digest), image.manifestBytes);
    done.add(image.digest);
    for (const blob of [image.manifest.config, ...image.manifest.layers]) {
      if (done.has(blob.digest)) continue;
      done.add(blob.digest);
      await writeBlob(packer, blob, content, call);
    }
  }
  packer.finalize();
}

function indexOf(images: readonly SavedImage[]): object {
  return {
    schemaVersion: 2,
    mediaType: mediaType.index,
    manifests: images.map(({ image, reference }) => ({
      mediaType: image.manifest.mediaType,
      digest: image.digest,
      size: image.manifestBytes.length,
      platform: image.document.platform,
      ...(reference === undefined
        ? {}
        : {
            annotations: {
              "io.containerd.image.name": formatReference(reference),
              "org.opencontainers.image.ref.name": formatReference(reference),
            },
          }),
    })),
  };
}

/** Old versions of docker take layers compressed or not, and follow the paths whatever they are. */
function dockerEntry({ image, reference }: SavedImage): object {
  return {
    Config: blobName(image.manifest.config.digest),
    RepoTags: reference?.tag === undefined ? [] : [`${reference.domain}/${reference.path}:${reference.tag}`],
    Layers: image.manifest.layers.map(({ digest }) => blobName(digest)),
  };
}

async function writeDocument(packer: Packer, name: string, data: string | Buffer): Promise<void> {
  const bytes = Buffer.from(data);
  await writeEntry(packer, name, bytes.length, [bytes]);
}

async function writeBlob(packer: Packer, blob: Descriptor, content: Content, call: Call): Promise<void> {
  const topic = `save ${blob.digest.slice(0, "sha256:".length + 12)}`;
  const { sizeBytes } = blob;
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    let done = 0;
    for await (const chunk of content.streamBlob(blob.digest)) {
      throwIfCancelled(call);
      yield chunk;
      done += chunk.length;
      call.report({ topic, state: "writing", done, total: sizeBytes, unit: "bytes" });
    }
  };
  await writeEntry(packer, blobName(blob.digest), sizeBytes, counted());
}

async function writeEntry(
  packer: Packer,
  name: string,
  sizeBytes: number,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  promise.catch(() => {});
  const header = { name, size: sizeBytes, mode: 0o644, mtime: new Date(buildEpochSec * 1000) };
  const sink = packer.entry(header, (error) => (error ? reject(error) : resolve()));
  sink.on("error", reject);
  for await (const chunk of chunks) {
    if (sink.write(chunk)) continue;
    const drained = new Promise<void>((ready) => void sink.once("drain", () => ready()));
    await Promise.race([drained, promise]);
  }
  sink.end(null);
  await promise;
}
