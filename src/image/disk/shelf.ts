import { randomBytes } from "node:crypto";
import { readdirSync, statSync } from "node:fs";
import { chmod, mkdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Fault, isFault } from "../../base/fault.ts";
import { type Digest, isDigest } from "../../base/id.ts";
import { hostFault } from "../../host/errno.ts";
import { fileExists, readSmallFile, removeTree, syncDirectory, writeFileAtomic } from "../../host/file.ts";
import { type DiskImage, diskImageNamePattern } from "./contract.ts";

/** What is written down about a content when it came. */
export interface About {
  readonly format: DiskImage["format"];
  readonly kind: DiskImage["kind"];
  readonly virtualSizeBytes: number;
  readonly fileBytes: number;
  readonly verified: DiskImage["verified"];
  readonly origin: string;
  readonly importedMs: number;
  /** Checksums of the bytes as they came, by which the same is recognized without fetching it again. */
  readonly came: readonly string[];
  /** When it came without a name, the last time it did. */
  readonly namelessMs?: number;
  /** It was read again and was not what it had been. */
  readonly damaged?: true;
}

/**
 * Where the library keeps what:
 *
 *     content/<hex>      a file, called after its digest, read-only
 *     about/<hex>.json   what is known about it; written after it, so that its presence means the content is complete
 *     name/<name>        the digest that a name means
 *     part/<key>         what came so far of a download that can go on
 *     tmp/               whatever is not finished; emptied at every start
 *
 * Few and small, so all is read from the disk whenever it is asked for. One process owns the directory.
 */
export class Shelf {
  readonly #contentDir: string;
  readonly #aboutDir: string;
  readonly #nameDir: string;
  readonly partDir: string;
  readonly temporaryDir: string;

  private constructor(root: string) {
    this.#contentDir = join(root, "content");
    this.#aboutDir = join(root, "about");
    this.#nameDir = join(root, "name");
    this.partDir = join(root, "part");
    this.temporaryDir = join(root, "tmp");
  }

  /** Makes it when absent, and settles what interrupted work left behind. */
  static async open(root: string): Promise<Shelf> {
    const shelf = new Shelf(root);
    try {
      for (const directory of [shelf.#contentDir, shelf.#aboutDir, shelf.#nameDir, shelf.partDir, shelf.temporaryDir]) {
        await mkdir(directory, { recursive: true, mode: 0o700 });
      }
      // Emptied, not made anew: on a full disk somebody else may take what is given back.
      for (const name of readdirSync(shelf.temporaryDir)) await removeTree(join(shelf.temporaryDir, name));
      await shelf.#restore();
      return shelf;
    } catch (error) {
      throw hostFault(error, `open the library of disk images in ${root}`);
    }
  }

  pathOf(digest: Digest): string {
    return join(this.#contentDir, hexOf(digest));
  }

  async named(name: string): Promise<Digest | undefined> {
    if (!diskImageNamePattern.test(name)) return undefined;
    const text = await readSmallFile(join(this.#nameDir, name)).catch(ifMissing);
    const digest = text?.toString("utf8").trim() ?? "";
    return isDigest(digest) ? digest : undefined;
  }

  /** Every name and what it means. */
  async names(): Promise<ReadonlyMap<string, Digest>> {
    const names = new Map<string, Digest>();
    for (const name of readdirSync(this.#nameDir).toSorted()) {
      const digest = await this.named(name);
      if (digest !== undefined) names.set(name, digest);
    }
    return names;
  }

  digests(): readonly Digest[] {
    const files = readdirSync(this.#aboutDir).filter((file) => file.endsWith(".json"));
    return files.map((file) => `sha256:${file.slice(0, -".json".length)}`).filter((text) => isDigest(text));
  }

  async about(digest: Digest): Promise<About | undefined> {
    const text = await readSmallFile(this.#aboutPath(digest)).catch(ifMissing);
    return text === undefined ? undefined : (JSON.parse(text.toString("utf8")) as About);
  }

  async noteAbout(digest: Digest, about: About): Promise<void> {
    await this.#write(this.#aboutPath(digest), JSON.stringify(about));
  }

  /** Takes the file over, in place of one that may be there: the digest says that this one is right. */
  async keep(file: string, digest: Digest, about: About): Promise<void> {
    await chmod(file, 0o444);
    await rename(file, this.pathOf(digest));
    await syncDirectory(this.#contentDir);
    await this.noteAbout(digest, about);
  }

  async setName(name: string, digest: Digest): Promise<void> {
    await this.#write(join(this.#nameDir, name), digest);
  }

  async removeName(name: string): Promise<void> {
    await rm(join(this.#nameDir, name), { force: true });
    await syncDirectory(this.#nameDir);
  }

  usedBytes(digest: Digest): number {
    const facts = statSync(this.pathOf(digest), { throwIfNoEntry: false });
    return (facts?.blocks ?? 0) * statBlockBytes;
  }

  fileBytes(digest: Digest): number | undefined {
    return statSync(this.pathOf(digest), { throwIfNoEntry: false })?.size;
  }

  /**
   * Deletes a content unless `isHeld` says no. It is asked once more when the content cannot be found any more, so that
   * nobody who begins to use it in between is left without it: either it is seen, or it does not find the file.
   */
  async drop(digest: Digest, isHeld: () => Promise<boolean>): Promise<boolean> {
    if (await isHeld()) return false;
    const path = this.pathOf(digest);
    const aside = `${path}${beingRemoved}`;
    try {
      if (await fileExists(path)) await rename(path, aside);
      if (await isHeld()) {
        await rename(aside, path);
        return false;
      }
      await rm(this.#aboutPath(digest), { force: true });
      await syncDirectory(dirname(this.#aboutPath(digest)));
      await removeTree(aside);
      return true;
    } catch (error) {
      throw hostFault(error, `remove the content ${digest}`);
    }
  }

  /** A removal that was interrupted did not happen, as long as something is known about the content. */
  async #restore(): Promise<void> {
    for (const file of readdirSync(this.#contentDir)) {
      const path = join(this.#contentDir, file);
      const digest = `sha256:${file.replace(beingRemoved, "")}`;
      const isKnown = isDigest(digest) && (await fileExists(this.#aboutPath(digest)));
      if (!isKnown) await removeTree(path);
      else if (file.endsWith(beingRemoved)) await rename(path, path.slice(0, -beingRemoved.length));
    }
  }

  /** What an interrupted write leaves must not be taken for a name, so it begins where all is unfinished. */
  async #write(path: string, text: string): Promise<void> {
    const unfinished = join(this.temporaryDir, randomBytes(8).toString("hex"));
    try {
      await writeFileAtomic(unfinished, text);
      await rename(unfinished, path);
      await syncDirectory(dirname(path));
    } catch (error) {
      await removeTree(unfinished).catch(() => {});
      throw hostFault(error, `write ${path}`);
    }
  }

  #aboutPath(digest: Digest): string {
    return join(this.#aboutDir, `${hexOf(digest)}.json`);
  }
}

const beingRemoved = "~removed";
const statBlockBytes = 512;

function hexOf(digest: Digest): string {
  if (!isDigest(digest)) throw new Fault("bug", `"${String(digest)}" is not a digest`);
  return digest.slice("sha256:".length);
}

function ifMissing(error: unknown): undefined {
  if (!isFault(error, "not-found")) throw error;
}
