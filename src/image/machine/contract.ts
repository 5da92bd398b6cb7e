import type { Call } from "../../base/call.ts";

/** Whole machines as one file each: a tar that says first what the machine is, and then holds its disks. */
export interface MachineFiles {
  /**
   * The file, as it is read. `fill` writes the disks into an empty directory, which is deleted in the end, whatever
   * happens; `description` is anything that JSON can say.
   */
  pack(
    description: object,
    fill: (directory: string, call: Call) => Promise<readonly { readonly name: string; readonly path: string }[]>,
    call: Call,
  ): AsyncIterable<Uint8Array>;
  /**
   * Reads such a file, and hands over each disk in its turn: `take` may leave one unread that it knows by its digest. Returns the description.
   * Throws `corrupt` when the file is none or is cut off; what was taken then is the caller's to give back.
   */
  unpack(
    file: AsyncIterable<Uint8Array>,
    take: (disk: PackedDisk, description: unknown) => Promise<void>,
    call: Call,
  ): Promise<unknown>;
}

/** Goes with the disks, and is none: what the machine's firmware remembers. No disk has such a name. */
export const firmwarePart = "firmware.variables";

export interface PackedDisk {
  /** As disks are called, or `firmwarePart`. */
  readonly name: string;
  readonly sizeBytes: number;
  /** `sha256:` and hex digits, as the file claims: whoever takes it has to hold the bytes against it. */
  readonly digest: string;
  readonly bytes: AsyncIterable<Uint8Array>;
}
