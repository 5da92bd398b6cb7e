import { join } from "node:path";
import type { Call } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import type { Digest } from "../base/id.ts";
import type { Content } from "./content/content.ts";
import { blobPath } from "./content/layout.ts";
import type { BlobSource } from "./layer/blob-source.ts";
import type { LayerExpectation } from "./layer/ingest.ts";
import { thisMachine, type LayerWorkers } from "./layer/layer-workers.ts";
import { SharedWork } from "./shared-work.ts";

/** A layer that is in the store: its blob and its file system. */
export interface StoredLayer {
  /** Of the blob. */
  readonly digest: Digest;
  readonly diffId: Digest;
  readonly sizeBytes: number;
}

/** Where a layer may be had. */
export interface LayerOffer {
  /** Who offers it: a registry's origin, or `thisMachine`. */
  readonly origin: string;
  /** The first of them that has it gives it. */
  readonly sources: readonly ((call: Call) => BlobSource)[];
}

/** Brings layers into the store, each once however many ask for it at the same time. */
export class LayerStore {
  readonly #content: Content;
  readonly #workers: LayerWorkers;
  readonly #shared = new SharedWork<StoredLayer>();

  constructor(content: Content, workers: LayerWorkers) {
    this.#content = content;
    this.#workers = workers;
  }

  /**
   * The layer with this blob and diff id, from the store or else from where it is offered. The caller holds a lease on both
   * digests.
   *
   * Who asks the same origin for the same meanwhile shares the work, and tries for itself when that failed, as it may be
   * let in where the first was not. What another origin offers, or offers as something else, is work of its own: nobody
   * waits for a registry that was not asked.
   */
  async ensure(expected: Required<LayerExpectation>, offer: LayerOffer, call: Call): Promise<StoredLayer> {
    const { digest, diffId, sizeBytes } = expected;
    const content = this.#content;
    if (content.blobSize(digest) === sizeBytes && content.hasLayer(diffId)) return { digest, diffId, sizeBytes };
    const key = [digest, diffId, sizeBytes, offer.origin].join(" ");
    const own = { isTried: false };
    for (;;) {
      try {
        return await this.#shared.join(key, call, async (call) => {
          own.isTried = true;
          return await this.#bring(expected, offer, call);
        });
      } catch (error) {
        if (own.isTried || call.signal.aborted) throw error;
      }
    }
  }

  /**
   * A layer of which not all is known beforehand: one made here, or of an archive that does not tell its digest. `hold` is
   * told the digests before they are in the store, to hold them with the caller's lease.
   */
  async add(
    source: BlobSource,
    expected: LayerExpectation,
    hold: (...digests: readonly Digest[]) => void,
    call: Call,
  ): Promise<StoredLayer> {
    return await this.#ingest(source, thisMachine, expected, call, hold);
  }

  async #bring(expected: Required<LayerExpectation>, offer: LayerOffer, call: Call): Promise<StoredLayer> {
    const { digest } = expected;
    const { origin, sources } = offer;
    const content = this.#content;
    if (content.hasBlob(digest)) {
      try {
        return await this.#ingest({ kind: "file", path: blobPath(content.layout, digest) }, origin, expected, call);
      } catch (error) {
        // Either the disk damaged it, and it is fetched anew, or what is said of it is a lie. Then it stays, as others need it.
        if (!isFault(error, "corrupt") || (await content.isSound(digest, call))) throw error;
      }
    }
    let failure: unknown = new Fault("not-found", `layer ${digest} is nowhere to be had`);
    for (const source of sources) {
      try {
        return await this.#ingest(source(call), origin, expected, call);
      } catch (error) {
        if (!isFault(error, "not-found")) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  async #ingest(
    source: BlobSource,
    origin: string,
    expected: LayerExpectation,
    call: Call,
    hold: (...digests: readonly Digest[]) => void = () => {},
  ): Promise<StoredLayer> {
    const content = this.#content;
    const workspace = await content.workspace();
    const targetPath = join(workspace.path, "layer");
    const keepBlobPath = join(workspace.path, "blob");
    try {
      const facts = await this.#workers.ingest(source, { targetPath, keepBlobPath }, expected, call, { origin });
      const { digest, diffId, sizeBytes } = facts;
      hold(digest, diffId);
      if (!content.hasBlob(digest)) content.adoptBlob(keepBlobPath, digest, sizeBytes);
      if (!content.hasLayer(diffId)) content.adoptLayer(targetPath, diffId, facts.erofsBytes);
      return { digest, diffId, sizeBytes };
    } finally {
      await workspace.release();
    }
  }
}
