import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Fault, isFault } from "../../base/fault.ts";
import { type Digest, canonicalJson, isDigest, sha256 } from "../../base/id.ts";
import { readSmallFile, removeTree, writeFileAtomic } from "../../host/file.ts";
import type { Content } from "../content/content.ts";
import { stepPath } from "../content/layout.ts";
import type { StoredLayer } from "../layer-store.ts";
import { parseObject } from "../manifest.ts";

/** Counts up when the same input gives another layer, because the code that makes it has changed. */
const stepVersion = 1;

/**
 * What build steps made, by all that went into them: the same step again costs one small file read. Steps rather than
 * images are remembered, so images that begin alike share what they have in common.
 */
export class StepCache {
  readonly #content: Content;

  constructor(content: Content) {
    this.#content = content;
  }

  /** The key of a step: `input` is plain data and says everything that decides its result. */
  key(input: object): Digest {
    return sha256(canonicalJson({ stepVersion, ...input }));
  }

  /** The layer that this step made, if it is still here. */
  async find(key: Digest): Promise<StoredLayer | undefined> {
    const layer = await readRecord(stepPath(this.#content.layout, key));
    if (layer === undefined) return undefined;
    return this.#content.hasBlob(layer.digest) && this.#content.hasLayer(layer.diffId) ? layer : undefined;
  }

  async remember(key: Digest, layer: StoredLayer): Promise<void> {
    const { digest, diffId, sizeBytes } = layer;
    await writeFileAtomic(stepPath(this.#content.layout, key), JSON.stringify({ digest, diffId, sizeBytes }));
  }

  /** Forgets steps whose layers were collected. */
  async collect(): Promise<void> {
    const { stepDir } = this.#content.layout;
    for (const name of await readdir(stepDir)) {
      const key = `sha256:${name}`;
      if (!isDigest(key) || (await this.find(key)) === undefined) await removeTree(join(stepDir, name));
    }
  }
}

/** A record that is damaged is as good as none: the step is done again. */
async function readRecord(path: string): Promise<StoredLayer | undefined> {
  try {
    const { digest, diffId, sizeBytes } = parseObject(await readSmallFile(path), 2 ** 16, path);
    const isWhole = typeof digest === "string" && isDigest(digest) && typeof diffId === "string" && isDigest(diffId);
    if (!isWhole || typeof sizeBytes !== "number") throw new Fault("corrupt", `${path} is not a build step`);
    return { digest, diffId, sizeBytes };
  } catch (error) {
    if (isFault(error, "not-found") || isFault(error, "corrupt")) return undefined;
    throw error;
  }
}
