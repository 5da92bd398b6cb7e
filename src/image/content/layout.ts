import { join } from "node:path";
import type { Digest } from "../../base/id.ts";
import { sha256 } from "../../base/id.ts";

/**
 * Where the store keeps what. Every file but the names is called after the digest of its content, so a directory listing
 * is the whole state and there is nothing that could disagree with it after a crash.
 *
 *     blob/<hex>        configurations and layers, byte for byte as in a registry: pushing and saving need the very bytes
 *     layer/<hex>.erofs a layer ready to mount, called after its diff id: equal layers are one file however compressed
 *     manifest/<hex>    a manifest; written last, so that its presence means the image is complete
 *     name/<hash>       one name and the manifest it means; the hash is of the name, which may be longer than a file name
 *     step/<hash>       layers that a build step made, by the hash of all that went into it
 *     tmp/              whatever is not finished; emptied at every start
 */
export interface Layout {
  readonly blobDir: string;
  readonly layerDir: string;
  readonly manifestDir: string;
  readonly nameDir: string;
  readonly stepDir: string;
  readonly temporaryDir: string;
}

export function layoutBeneath(libDir: string): Layout {
  const root = join(libDir, "image");
  return {
    blobDir: join(root, "blob"),
    layerDir: join(root, "layer"),
    manifestDir: join(root, "manifest"),
    nameDir: join(root, "name"),
    stepDir: join(root, "step"),
    temporaryDir: join(root, "tmp"),
  };
}

export function blobPath(layout: Layout, digest: Digest): string {
  return join(layout.blobDir, hex(digest));
}

export function layerPath(layout: Layout, diffId: Digest): string {
  return join(layout.layerDir, `${hex(diffId)}.erofs`);
}

export function manifestPath(layout: Layout, digest: Digest): string {
  return join(layout.manifestDir, hex(digest));
}

export function namePath(layout: Layout, reference: string): string {
  return join(layout.nameDir, hex(sha256(reference)));
}

export function stepPath(layout: Layout, key: Digest): string {
  return join(layout.stepDir, hex(key));
}

function hex(digest: Digest): string {
  return digest.slice("sha256:".length);
}
