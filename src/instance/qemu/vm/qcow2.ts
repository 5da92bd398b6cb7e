import { Fault } from "../../../base/fault.ts";

/**
 * The header of a qcow2 file, as far as trust goes: what it says about other files, and whether it is all there. QEMU never
 * opens a path that an image names; it is compared with what the pool says.
 */
export interface Qcow2Header {
  readonly virtualSizeBytes: number;
  readonly backing?: { readonly path: string; readonly format?: string };
  /** Its data lie in another file that it names. */
  readonly hasDataFile: boolean;
  /** The file must be at least this long to hold its own tables. */
  readonly leastBytes: number;
}

const magic = 0x514649fb;
const backingFormatExtension = 0xe2792aca;
const dataFileBit = 1n << 2n;
/** As QEMU has it. */
const maxBackingBytes = 1023;

/** So much of a file is enough: header, extensions and the backing file's name are in its first cluster, of 64 KiB mostly. */
export const headBytes = 64 * 1024;

/** Undefined when it is no qcow2 file at all; `corrupt` for one that makes no sense. */
export function parseQcow2Header(head: Uint8Array, what: string): Qcow2Header | undefined {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (head.length < 4 || view.getUint32(0) !== magic) return undefined;
  const broken = (why: string): Fault => new Fault("corrupt", `${what}: not a qcow2 image that can be used: ${why}`);
  if (head.length < 104) throw broken("it is shorter than its header");
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) throw broken(`its version is ${version}`);
  const backingOffset = view.getBigUint64(8);
  const backingBytes = view.getUint32(16);
  const clusterBytes = 2 ** view.getUint32(20);
  if (clusterBytes < 512 || clusterBytes > 2 ** 21) throw broken("clusters of an impossible size");
  const features = version === 3 ? view.getBigUint64(72) : 0n;
  const tables = [
    Number(view.getBigUint64(40)) + view.getUint32(36) * 8,
    Number(view.getBigUint64(48)) + view.getUint32(56) * clusterBytes,
  ];
  const header = {
    virtualSizeBytes: Number(view.getBigUint64(24)),
    hasDataFile: (features & dataFileBit) !== 0n,
    leastBytes: Math.max(...tables),
  };
  if (backingOffset === 0n) return header;
  if (backingBytes === 0 || backingBytes > maxBackingBytes) throw broken("the name of its backing file is too long");
  const end = Number(backingOffset) + backingBytes;
  if (end > head.length) throw broken("the name of its backing file is not where it should be");
  const path = Buffer.from(head.subarray(Number(backingOffset), end)).toString("utf8");
  const format = backingFormat(view, version === 3 ? view.getUint32(100) : 72, Number(backingOffset));
  return { ...header, backing: { path, ...(format === undefined ? {} : { format }) } };
}

function backingFormat(view: DataView, from: number, end: number): string | undefined {
  for (let at = from; at + 8 <= Math.min(end, view.byteLength);) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === 0 || at + 8 + length > view.byteLength) return undefined;
    if (type === backingFormatExtension) {
      return Buffer.from(view.buffer, view.byteOffset + at + 8, length).toString("latin1");
    }
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return undefined;
}
