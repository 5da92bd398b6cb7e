import { Fault } from "../base/fault.ts";
import type { DiskImages } from "../image/disk/contract.ts";

/** Until the library is here. */
export async function openDiskImages(): Promise<DiskImages> {
  const refuse = async (): Promise<never> => {
    throw new Fault("unsupported", "this release has no library of disk images");
  };
  return {
    import: refuse,
    find: async () => undefined,
    get: refuse,
    list: async () => [],
    verify: refuse,
    remove: refuse,
    collect: async () => ({ images: 0, freedBytes: 0 }),
  };
}
