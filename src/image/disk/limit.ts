/** What one image may cost before it is refused. The defaults admit every real image that we know of. */
export interface DiskImageLimits {
  /** As it comes, compressed or not. */
  readonly maxReceivedBytes: number;
  /** Unpacked; holes count as what they read as. */
  readonly maxUnpackedBytes: number;
  /** Unpacked bytes for each one that came, once more than `ratioFloorBytes` came out: much of a raw disk is zeros. */
  readonly maxRatio: number;
  readonly ratioFloorBytes: number;
  /** What a guest may see. */
  readonly maxVirtualBytes: number;
}

export const defaultDiskImageLimits: DiskImageLimits = {
  maxReceivedBytes: 128 * 2 ** 30,
  maxUnpackedBytes: 256 * 2 ** 30,
  maxRatio: 2000,
  ratioFloorBytes: 4 * 2 ** 30,
  maxVirtualBytes: 16 * 2 ** 40,
};
