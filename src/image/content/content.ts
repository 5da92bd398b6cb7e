import { createHash, randomBytes } from "node:crypto";
import { createReadStream, renameSync, unlinkSync } from "node:fs";
import { mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { type Digest, isDigest, sha256 } from "../../base/id.ts";
import { errnoOf, hostFault } from "../../host/errno.ts";
import { readSmallFile, removeTree, syncDirectory, writeFileAtomic } from "../../host/file.ts";
import type { Image } from "../contract.ts";
import {
  type ConfigDocument,
  type Descriptor,
  type Manifest,
  checkLayers,
  maxConfigBytes,
  maxManifestBytes,
  parseConfig,
  parseManifest,
  parseObject,
} from "../manifest.ts";
import { type Layout, blobPath, layerPath, layoutBeneath, manifestPath, namePath } from "./layout.ts";

/** An image as the store holds it: what the contract shows, and the documents that pushing and saving need. */
export interface StoredImage {
  readonly digest: Digest;
  readonly manifestBytes: Buffer;
  readonly manifest: Manifest;
  readonly document: ConfigDocument;
  /** When it came here; stands in for the creation time of images that do not tell theirs. */
  readonly arrivedMs: number;
}

/** Keeps content from being collected while somebody works towards an image that needs it. */
export interface Lease extends Disposable {
  readonly hold: (...digests: readonly Digest[]) => void;
}

/**
 * The files of the store and what is known of them.
 *
 * All that is asked often is answered from memory, which is read once at the start from the directories; files are
 * written before memory is, so the memory never promises what the disk does not have. One process owns the directory.
 */
export class Content {
  readonly layout: Layout;
  readonly #blobs = new Map<Digest, number>();
  readonly #layers = new Map<Digest, number>();
  readonly #images = new Map<Digest, StoredImage>();
  readonly #names = new Map<string, Digest>();
  /** `Image` values as handed out, remade when a name or layer changes. */
  readonly #shown = new Map<Digest, Image>();
  readonly #held = new Map<Digest, number>();
  readonly #working = new Set<string>();
  #nameChange: Promise<void> = Promise.resolve();

  private constructor(layout: Layout) {
    this.layout = layout;
  }

  /** Opens the store beneath `libDir`, making it when absent, and removes what interrupted work left behind. */
  static async open(libDir: string): Promise<Content> {
    const content = new Content(layoutBeneath(libDir));
    const { layout } = content;
    try {
      for (const directory of Object.values(layout) as string[]) {
        await mkdir(directory, { recursive: true, mode: 0o700 });
      }
      // Emptied and not made anew: on a full disk there may be no room for a directory, and we have to start all the same.
      for (const name of await readdir(layout.temporaryDir)) await removeTree(join(layout.temporaryDir, name));
      await content.#scan();
    } catch (error) {
      throw hostFault(error, `open the image store in ${libDir}`);
    }
    return content;
  }

  find(digest: Digest): StoredImage | undefined {
    return this.#images.get(digest);
  }

  /** The manifest a canonical name means. */
  named(reference: string): Digest | undefined {
    return this.#names.get(reference);
  }

  namesOf(digest: Digest): readonly string[] {
    return [...this.#names].filter(([, named]) => named === digest).map(([reference]) => reference);
  }

  images(): readonly StoredImage[] {
    return [...this.#images.values()];
  }

  hasBlob(digest: Digest): boolean {
    return this.#blobs.has(digest);
  }

  blobSize(digest: Digest): number | undefined {
    return this.#blobs.get(digest);
  }

  hasLayer(diffId: Digest): boolean {
    return this.#layers.has(diffId);
  }

  /** The image as the contract shows it. The same object until something of it changes. */
  show(stored: StoredImage): Image {
    const known = this.#shown.get(stored.digest);
    if (known !== undefined) return known;
    const { manifest, document } = stored;
    const layers = document.diffIds.map((digest) => ({
      digest,
      path: layerPath(this.layout, digest),
      sizeBytes: this.#layers.get(digest) ?? 0,
    }));
    const image: Image = {
      digest: stored.digest,
      references: this.namesOf(stored.digest).toSorted(),
      config: document.config,
      layers,
      createdMs: document.createdMs === 0 ? stored.arrivedMs : document.createdMs,
      sizeBytes:
        layers.reduce((sum, layer) => sum + layer.sizeBytes, stored.manifestBytes.length) +
        [manifest.config, ...manifest.layers].reduce((sum, blob) => sum + blob.sizeBytes, 0),
    };
    this.#shown.set(stored.digest, image);
    return image;
  }

  /** An empty directory of the caller's own, on the store's file system; `release` removes it and what is in it. */
  async workspace(): Promise<{ readonly path: string; release(): Promise<void> }> {
    const name = randomBytes(8).toString("hex");
    const path = join(this.layout.temporaryDir, name);
    this.#working.add(name);
    try {
      await mkdir(path, { mode: 0o700 });
    } catch (error) {
      this.#working.delete(name);
      throw hostFault(error, `make ${path}`);
    }
    const release = async (): Promise<void> => {
      await removeTree(path);
      this.#working.delete(name);
    };
    return { path, release };
  }

  lease(): Lease {
    const mine: Digest[] = [];
    return {
      hold: (...digests) => {
        for (const digest of digests) {
          this.#held.set(digest, (this.#held.get(digest) ?? 0) + 1);
          mine.push(digest);
        }
      },
      [Symbol.dispose]: () => {
        for (const digest of mine.splice(0)) {
          const count = (this.#held.get(digest) ?? 1) - 1;
          if (count === 0) this.#held.delete(digest);
          else this.#held.set(digest, count);
        }
      },
    };
  }

  /** Stores a small document, durably. */
  async putBlob(bytes: Uint8Array): Promise<Digest> {
    const digest = sha256(bytes);
    if (!this.#blobs.has(digest)) {
      await writeFileAtomic(blobPath(this.layout, digest), bytes);
      this.#blobs.set(digest, bytes.length);
    }
    return digest;
  }

  /** Takes over a finished, verified and synced file as blob; it must lie in a workspace. */
  adoptBlob(path: string, digest: Digest, sizeBytes: number): void {
    // One rename, without a turn of the event loop before memory knows: `collect` never sees half of it.
    renameSync(path, blobPath(this.layout, digest));
    this.#blobs.set(digest, sizeBytes);
  }

  adoptLayer(path: string, diffId: Digest, sizeBytes: number): void {
    renameSync(path, layerPath(this.layout, diffId));
    this.#layers.set(diffId, sizeBytes);
  }

  /** A document of at most `maxBytes`, checked against its digest. */
  async readBlob(digest: Digest, maxBytes: number): Promise<Buffer> {
    const bytes = await readSmallFile(blobPath(this.layout, digest), maxBytes);
    if (sha256(bytes) !== digest) throw this.#damaged(digest);
    return bytes;
  }

  /**
   * A blob's bytes; fails with `corrupt` at the end when they are not what the digest says. A disk may lie, and what is
   * pushed or saved goes to others.
   */
  async *streamBlob(digest: Digest): AsyncGenerator<Buffer> {
    const hash = createHash("sha256");
    try {
      const file = createReadStream(blobPath(this.layout, digest), { highWaterMark: 2 ** 20 });
      for await (const chunk of file as AsyncIterable<Buffer>) {
        hash.update(chunk);
        yield chunk;
      }
    } catch (error) {
      throw hostFault(error, `read ${digest}`);
    }
    if (`sha256:${hash.digest("hex")}` !== digest) throw this.#damaged(digest);
  }

  /** Whether a blob that is here is what its digest says, by reading all of it. One that is not is forgotten. */
  async isSound(digest: Digest, call: Call): Promise<boolean> {
    try {
      for await (const _ of this.streamBlob(digest)) throwIfCancelled(call);
      return true;
    } catch (error) {
      if (isFault(error, "corrupt")) return false;
      throw error;
    }
  }

  /**
   * Makes an image of content that is all here: from now on it survives a crash. `manifestBytes` are its identity.
   * Throws a `bug` Fault when something of it is missing.
   */
  async commit(manifestBytes: Buffer): Promise<StoredImage> {
    const digest = sha256(manifestBytes);
    const known = this.#images.get(digest);
    if (known !== undefined) return known;
    const assembled = await this.#assemble(digest, manifestBytes, 0);
    if (assembled === undefined) throw new Fault("bug", `image ${digest} was to be stored without all its content`);
    // The adopted files' names have to be on disk before the manifest that promises them.
    await syncDirectory(this.layout.blobDir);
    await syncDirectory(this.layout.layerDir);
    const path = manifestPath(this.layout, digest);
    await writeFileAtomic(path, manifestBytes);
    // The file's time rather than the clock's, as it is what the next start finds.
    const stored = { ...assembled, arrivedMs: wholeMs((await stat(path)).mtimeMs) };
    this.#images.set(digest, stored);
    return stored;
  }

  async setName(reference: string, digest: Digest): Promise<void> {
    await this.#changingNames(async () => {
      const previous = this.#names.get(reference);
      if (previous === digest) return;
      await writeFileAtomic(namePath(this.layout, reference), JSON.stringify({ reference, digest }));
      this.#names.set(reference, digest);
      this.#shown.delete(digest);
      if (previous !== undefined) this.#shown.delete(previous);
    });
  }

  async removeName(reference: string): Promise<void> {
    await this.#changingNames(async () => {
      const previous = this.#names.get(reference);
      await removeTree(namePath(this.layout, reference));
      this.#names.delete(reference);
      if (previous !== undefined) this.#shown.delete(previous);
    });
  }

  /** One change after the other, so that the last one is the same on disk and in memory. */
  async #changingNames(change: () => Promise<void>): Promise<void> {
    const done = this.#nameChange.then(change);
    this.#nameChange = done.catch(() => {});
    await done;
  }

  /**
   * Deletes images that have no name and are not in `keep`, what only they needed, and unfinished work of the past.
   * Files leave their places within one turn of the event loop, so nobody can start to rely on one that is going.
   */
  async collect(keep: ReadonlySet<Digest>): Promise<{ images: number; freedBytes: number }> {
    const { temporaryDir } = this.layout;
    const discarded = (await readdir(temporaryDir)).filter((name) => !this.#working.has(name));
    const named = new Set(this.#names.values());
    const kept = (digest: Digest): boolean => named.has(digest) || keep.has(digest) || this.#held.has(digest);
    const needed = new Set<Digest>();
    for (const { digest, manifest, document } of this.#images.values()) {
      if (!kept(digest)) continue;
      for (const member of [manifest.config, ...manifest.layers]) needed.add(member.digest);
      for (const diffId of document.diffIds) needed.add(diffId);
    }
    let images = 0;
    let freedBytes = 0;
    const discard = (path: string, sizeBytes: number): void => {
      const name = randomBytes(8).toString("hex");
      // No directory is made for them, and one that is full is no obstacle: this is what gives a full disk its space back.
      if (renamed(path, join(temporaryDir, name))) discarded.push(name);
      else unlinkSync(path);
      freedBytes += sizeBytes;
    };
    for (const [digest, image] of this.#images) {
      if (kept(digest)) continue;
      // The manifest goes first: whatever happens next, an image is either complete or not there.
      discard(manifestPath(this.layout, digest), image.manifestBytes.length);
      this.#images.delete(digest);
      this.#shown.delete(digest);
      images += 1;
    }
    for (const [digest, sizeBytes] of this.#blobs) {
      if (needed.has(digest) || this.#held.has(digest)) continue;
      discard(blobPath(this.layout, digest), sizeBytes);
      this.#blobs.delete(digest);
    }
    for (const [diffId, sizeBytes] of this.#layers) {
      if (needed.has(diffId) || this.#held.has(diffId)) continue;
      discard(layerPath(this.layout, diffId), sizeBytes);
      this.#layers.delete(diffId);
    }
    for (const name of discarded) await removeTree(join(temporaryDir, name));
    return { images, freedBytes };
  }

  async #scan(): Promise<void> {
    const { layout } = this;
    await scanFiles(layout.blobDir, "", (digest, sizeBytes) => this.#blobs.set(digest, sizeBytes));
    await scanFiles(layout.layerDir, ".erofs", (digest, sizeBytes) => this.#layers.set(digest, sizeBytes));
    const manifests = new Map<Digest, number>();
    await scanFiles(layout.manifestDir, "", (digest, _, modifiedMs) => manifests.set(digest, modifiedMs));
    for (const [digest, modifiedMs] of manifests) {
      const bytes = await readSmallFile(manifestPath(layout, digest), maxManifestBytes);
      // A damaged image is as good as absent: pulling or building it again mends it.
      const stored = sha256(bytes) === digest ? await this.#assemble(digest, bytes, modifiedMs) : undefined;
      if (stored !== undefined) this.#images.set(digest, stored);
    }
    const names: string[] = [];
    await scanFiles(layout.nameDir, "", (digest) => names.push(digest.slice("sha256:".length)));
    for (const name of names) {
      const record = parseObject(await readSmallFile(join(layout.nameDir, name)), 2 ** 20, `the name in ${name}`);
      const { reference, digest } = record;
      if (typeof reference === "string" && typeof digest === "string" && isDigest(digest)) {
        this.#names.set(reference, digest);
      }
    }
  }

  /** The image of these manifest bytes, or undefined when something it needs is not here or damaged. */
  async #assemble(digest: Digest, manifestBytes: Buffer, arrivedMs: number): Promise<StoredImage | undefined> {
    const subject = `manifest ${digest}`;
    const manifest = parseManifest(manifestBytes, undefined, subject);
    if (manifest.kind !== "manifest") throw new Fault("bug", `${subject} is an index`);
    const isHere = (blob: Descriptor): boolean => this.#blobs.get(blob.digest) === blob.sizeBytes;
    if (![manifest.config, ...manifest.layers].every(isHere)) return undefined;
    try {
      const document = parseConfig(await this.readBlob(manifest.config.digest, maxConfigBytes), subject);
      checkLayers(manifest, document, subject);
      if (!document.diffIds.every((diffId) => this.#layers.has(diffId))) return undefined;
      return { digest, manifestBytes, manifest, document, arrivedMs };
    } catch (error) {
      if (isFault(error, "corrupt")) return undefined;
      throw error;
    }
  }

  /** Forgets the blob too, so that the next pull fetches it again. */
  #damaged(digest: Digest): Fault {
    this.#blobs.delete(digest);
    return new Fault("corrupt", `${digest} is damaged on this machine's disk`, {
      hint: "pull or build the image again",
    });
  }
}

/** False when there is no room for the new name. */
function renamed(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (["ENOSPC", "EDQUOT"].includes(errnoOf(error) ?? "")) return false;
    throw hostFault(error, `remove ${from}`);
  }
}

/** Visits the files of a directory that are called after a digest. Leftovers of interrupted writes have other names. */
async function scanFiles(
  directory: string,
  extension: string,
  visit: (digest: Digest, sizeBytes: number, modifiedMs: number) => void,
): Promise<void> {
  for (const name of await readdir(directory)) {
    const digest = `sha256:${name.slice(0, name.length - extension.length)}`;
    const path = join(directory, name);
    if (!name.endsWith(extension) || !isDigest(digest)) {
      await removeTree(path);
      continue;
    }
    const facts = await stat(path);
    visit(digest, facts.size, wholeMs(facts.mtimeMs));
  }
}

function wholeMs(timeMs: number): number {
  return Math.trunc(timeMs);
}
