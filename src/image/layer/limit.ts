/** What one layer may cost before it is refused. The defaults admit every real image that we know of. */
export interface LayerLimits {
  /** Of the uncompressed tar, of the file system made from it, and of the blob: gzip can also make much of nothing. */
  readonly maxUnpackedBytes: number;
  /** Entries of the tar and directories that it only implies. Each takes some 200 bytes of the worker's memory. */
  readonly maxEntries: number;
  /** Uncompressed bytes for each compressed one, once more than `ratioFloorBytes` came out. Real layers stay below 20. */
  readonly maxRatio: number;
  /** So much may come out of a few bytes: a single file of zeros compresses a thousandfold without being an attack. */
  readonly ratioFloorBytes: number;
  /** Directories within directories. */
  readonly maxDepth: number;
  /** Names and directories' extended attributes, which stay in memory until the layer is complete. */
  readonly maxNameBytes: number;
}

export const defaultLayerLimits: LayerLimits = {
  maxUnpackedBytes: 64 * 2 ** 30,
  maxEntries: 1_000_000,
  maxRatio: 200,
  ratioFloorBytes: 2 ** 30,
  maxDepth: 256,
  maxNameBytes: 128 * 2 ** 20,
};
