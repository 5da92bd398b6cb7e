import type { Transform, TransformOptions } from "node:stream";
import { createGunzip, createZstdDecompress, type ZlibOptions, type ZstdOptions } from "node:zlib";

/** Output comes in pieces of 1 MiB: with node's default of 16 KiB the trips to its thread pool cost more than inflating. */
const chunkSize = 1 << 20;
/** Inflating may run a few pieces ahead, so that it does not wait while a piece is being hashed and written. */
const options: ZlibOptions & ZstdOptions & TransformOptions = { chunkSize, highWaterMark: 4 * chunkSize };

/**
 * What unpacks a blob that begins with these bytes, or undefined when it is not compressed. The bytes decide rather than the
 * media type, as in every other engine: archives of `docker save` do not say, and what comes out is verified anyway.
 */
export function decompressorFor(first: Buffer): Transform | undefined {
  if (first.length < 4) return undefined;
  if (first[0] === 0x1f && first[1] === 0x8b) return createGunzip(options);
  const magic = first.readUInt32LE(0);
  // A zstd stream may begin with a frame to be skipped, which has one of sixteen numbers.
  const isZstd = magic === 0xfd2fb528 || (magic & 0xfffffff0) >>> 0 === 0x184d2a50;
  return isZstd ? createZstdDecompress(options) : undefined;
}
