import type { Call } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import type { Content, Lease, StoredImage } from "../content/content.ts";
import type { LayerStore } from "../layer-store.ts";
import type { Reference } from "../reference.ts";
import { loadDocker } from "./docker.ts";
import { loadOci } from "./oci.ts";
import { Spool } from "./spool.ts";

export interface LoadedImage {
  readonly image: StoredImage;
  /** The names that the archive gives it. */
  readonly references: readonly Reference[];
}

/**
 * Reads an archive of images, as an OCI layout or as `docker save` writes it, plain, gzip or zstd.
 *
 * Its files are spooled into the store's temporary directory under names of ours, whatever they are called in the
 * archive; then only what the documents name is looked at, and every byte is held against a digest.
 */
export async function loadArchive(
  archive: AsyncIterable<Uint8Array>,
  content: Content,
  layers: LayerStore,
  lease: Lease,
  call: Call,
): Promise<readonly LoadedImage[]> {
  const work = await content.workspace();
  try {
    const spool = await Spool.read(archive, work.path, call).catch(refuseOther);
    // Docker has written both since version 25; the OCI one carries the digests that the image was pulled by.
    if (spool.has("index.json")) return await loadOci(spool, content, layers, lease, call);
    if (spool.has("manifest.json")) return await loadDocker(spool, content, layers, lease, call);
    throw new Fault("invalid", "the archive holds neither index.json nor manifest.json", {
      hint: "make it with croft image save or docker save; the tar of a container's files is not an image",
    });
  } finally {
    await work.release();
  }
}

/** A file of another kind reads like a damaged tar. */
function refuseOther(thrown: unknown): never {
  if (!isFault(thrown, "corrupt")) throw thrown;
  throw new Fault("corrupt", `read the archive of images: ${thrown.message}`, {
    hint: "it must be whole, and written by croft image save or docker save: a tar, plain, gzip or zstd",
    cause: thrown,
  });
}
