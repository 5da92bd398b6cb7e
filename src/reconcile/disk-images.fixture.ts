import { Fault } from "../base/fault.ts";
import { sha256, type Digest } from "../base/id.ts";
import type { DiskImage, DiskImages, DiskImport } from "../image/disk/contract.ts";

/** A library that has every disk image whose name does not begin with `missing`; `.iso` ones are ISOs. */
export class FakeDiskImages implements DiskImages {
  readonly #known = new Map<Digest, DiskImage>();

  async import({ name, source }: DiskImport): Promise<DiskImage> {
    if (source.kind === "bytes") for await (const _ of source.bytes);
    return this.#image(name ?? "imported.qcow2");
  }

  async importNameless({ source, checksum }: Parameters<DiskImages["importNameless"]>[0]): Promise<DiskImage> {
    if (source.kind === "bytes") for await (const _ of source.bytes);
    const image = this.#image(checksum?.kind === "digest" ? checksum.digest : "nameless");
    const nameless = { ...image, names: [] };
    this.#known.set(image.digest, nameless);
    return nameless;
  }

  async discard(digest: Digest): Promise<void> {
    this.#known.delete(digest);
  }

  async find(name: string): Promise<DiskImage | undefined> {
    return name.startsWith("missing") ? undefined : this.#image(name);
  }

  async get(digest: Digest): Promise<DiskImage> {
    const image = this.#known.get(digest) ?? known.get(digest);
    if (image === undefined) throw new Fault("not-found", `there is no disk image ${digest}`);
    return image;
  }

  async list(): Promise<readonly DiskImage[]> {
    return [...this.#known.values()];
  }

  async verify(name: string): Promise<DiskImage> {
    return this.#image(name);
  }

  async remove(name: string): Promise<void> {
    this.#known.delete(this.#image(name).digest);
  }

  async collect(): Promise<{ readonly images: number; readonly freedBytes: number }> {
    return { images: 0, freedBytes: 0 };
  }

  #image(name: string): DiskImage {
    const isIso = name.endsWith(".iso");
    const image: DiskImage = {
      digest: sha256(name),
      names: [name],
      path: `/memory/disk-images/${name}`,
      format: isIso ? "raw" : "qcow2",
      kind: isIso ? "iso" : "disk",
      virtualSizeBytes: 2 ** 30,
      sizeBytes: 2 ** 20,
      verified: "checksum",
      origin: name,
      importedMs: 0,
    };
    this.#known.set(image.digest, image);
    known.set(image.digest, image);
    return image;
  }
}

/** Digests mean the same images to every daemon. */
const known = new Map<Digest, DiskImage>();
