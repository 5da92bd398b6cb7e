import { gzipSync } from "node:zlib";
import { type Digest, sha256 } from "../../base/id.ts";
import { entry, tar } from "../layer/tar-fixture.ts";
import { mediaType } from "../manifest.ts";
import { hostPlatform } from "../platform.ts";

/** For tests: a small image, all of it in memory. */
export interface SampleImage {
  readonly manifest: Buffer;
  readonly digest: Digest;
  readonly config: Buffer;
  readonly layers: readonly SampleLayer[];
  /** Configuration and layers by digest. */
  readonly blobs: ReadonlyMap<string, Buffer>;
}

export interface SampleLayer {
  readonly tar: Buffer;
  readonly blob: Buffer;
  readonly digest: Digest;
  readonly diffId: Digest;
  readonly mediaType: string;
}

/** One gzipped layer for each text, with one file that holds it. */
export function sampleImage(texts: readonly string[], platform: object = hostPlatform()): SampleImage {
  const layers = texts.map((text, position) => sampleLayer(tar(entry({ name: `file-${position}` }, text))));
  return imageOf(layers, platform);
}

export function sampleLayer(bytes: Buffer): SampleLayer {
  const blob = gzipSync(bytes);
  return { tar: bytes, blob, digest: sha256(blob), diffId: sha256(bytes), mediaType: mediaType.layerGzip };
}

/** An image of these layers. What `lies` says is told of a layer instead of the truth. */
export function imageOf(
  layers: readonly SampleLayer[],
  platform: object = hostPlatform(),
  lies: { readonly sizeBytes?: number; readonly digest?: Digest; readonly diffId?: Digest } = {},
): SampleImage {
  const config = Buffer.from(
    JSON.stringify({
      ...platform,
      config: { Cmd: ["/file-0"], Env: ["A=1"] },
      rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => lies.diffId ?? diffId) },
    }),
  );
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaType.manifest,
      config: { mediaType: mediaType.config, digest: sha256(config), size: config.length },
      layers: layers.map((layer) => ({
        mediaType: layer.mediaType,
        digest: lies.digest ?? layer.digest,
        size: lies.sizeBytes ?? layer.blob.length,
      })),
    }),
  );
  const blobs = new Map<string, Buffer>([[sha256(config), config]]);
  for (const layer of layers) blobs.set(lies.digest ?? layer.digest, layer.blob);
  return { manifest, digest: sha256(manifest), config, layers, blobs };
}

/** An index of these images for these platforms. */
export function indexOf(entries: readonly { image: SampleImage; platform: object }[]): Buffer {
  const manifests = entries.map(({ image, platform }) => ({
    mediaType: mediaType.manifest,
    digest: image.digest,
    size: image.manifest.length,
    platform,
  }));
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaType.index, manifests }));
}
