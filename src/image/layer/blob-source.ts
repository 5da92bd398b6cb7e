import { createReadStream } from "node:fs";
import type { Call } from "../../base/call.ts";
import { openHttpBlob } from "./http-blob.ts";

/** Where a layer's blob comes from, as a description, so that the worker that unpacks it can open it by itself. */
export type BlobSource = FileSource | HttpSource;

/** A file, a fifo, or a part of a file, such as a layer within an uncompressed archive of images. */
export interface FileSource {
  readonly kind: "file";
  readonly path: string;
  readonly offset?: number;
  /** Default: to the end. */
  readonly sizeBytes?: number;
}

export interface HttpSource {
  readonly kind: "http";
  /** `http:` or `https:`. Redirects are followed; `authorization` goes to the first origin only. */
  readonly url: string;
  /** Asked before each connection, also when a download is resumed, so that a token may be renewed meanwhile. */
  headers(): Promise<Readonly<Record<string, string>>>;
}

/** The blob's bytes from its beginning. Errors come while iterating; leaving the loop closes what was opened. */
export function openBlob(source: BlobSource, call: Call): AsyncIterable<Uint8Array> {
  if (source.kind === "http") return openHttpBlob(source, call);
  const start = source.offset ?? 0;
  return createReadStream(source.path, {
    highWaterMark: 1 << 20,
    ...(start === 0 ? {} : { start }),
    ...(source.sizeBytes === undefined ? {} : { end: start + source.sizeBytes - 1 }),
  });
}
