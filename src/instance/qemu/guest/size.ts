import type { Limits } from "../../contract.ts";

/** What a guest is made as. */
export interface GuestSize {
  readonly memoryMiB: number;
  readonly processors: number;
}

const mebibyte = 2 ** 20;
/** Kernel, page tables, our own few processes. */
const ownMiB = 64;
const leastMiB = 256;
/** Of a guest whose program has no limit. It takes of the host what it touches. */
const usualMiB = 512;

/**
 * A guest's memory is what its program may use and what the guest itself needs, rounded up to a power of two: sizes then
 * are few, so that more instances share one saved memory, and there is room to raise the limit while it runs. The limit
 * itself is kept by the guest's control group, as for a container.
 */
export function guestSize(limits: Limits): GuestSize {
  const wantedMiB = limits.memoryBytes === undefined ? usualMiB : Math.ceil(limits.memoryBytes / mebibyte) + ownMiB;
  const memoryMiB = Math.max(leastMiB, 2 ** Math.ceil(Math.log2(wantedMiB)));
  return { memoryMiB, processors: Math.max(1, Math.ceil(limits.cpus ?? 1)) };
}

/** The highest limit that a program in a guest of this size can be given while it runs. */
export function highestLimitBytes(size: GuestSize): number {
  return (size.memoryMiB - ownMiB) * mebibyte;
}
