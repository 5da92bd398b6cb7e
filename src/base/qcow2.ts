import { Fault } from "./fault.ts";
import { formatSize } from "./unit.ts";

/**
 * The header of qcow2 images, read with distrust and written: QEMU's docs/interop/qcow2.txt. Pure: bytes in, bytes out.
 *
 * Nothing else here looks into an image before this did: a header can name files of the host that a program would open.
 */

export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly virtualSizeBytes: number;
  readonly clusterBytes: number;
  /** What the image reads where it has nothing of its own; `format` as the image says, if it does. */
  readonly backing?: { readonly file: string; readonly format?: string };
  /** Internal snapshots. */
  readonly snapshots: number;
  /** It was not closed; what QEMU mends by itself when it opens the image for writing. */
  readonly dirty: boolean;
  readonly l1Entries: number;
  readonly l1Offset: number;
}

/** So much of the file's beginning the reader needs, or all of it when it is shorter. */
export const qcow2HeadBytes = 65_536;

const magic = 0x51_46_49_fb;
const version2HeaderBytes = 72;
const maxBackingNameBytes = 1023;
const maxL1Bytes = 32 * 2 ** 20;
const maxRefcountTableBytes = 8 * 2 ** 20;
const maxSnapshots = 65_536;

const incompatible = { dirty: 1n, corrupt: 2n, externalData: 4n, compressionType: 8n, extendedL2: 16n } as const;
const knownIncompatible = Object.values(incompatible).reduce<bigint>((all, bit) => all | bit, 0n);

const extension = {
  end: 0,
  backingFormat: 0xe2_79_2a_ca,
  encryption: 0x05_37_be_77,
  externalData: 0x44_41_54_41,
} as const;

export function isQcow2(head: Uint8Array): boolean {
  return head.length >= 4 && Buffer.from(head.buffer, head.byteOffset, 4).readUInt32BE(0) === magic;
}

/**
 * What the header says, once all of it makes sense for a file of `fileBytes`.
 *
 * Throws `corrupt` for what no program writes, `unsupported` for what we do not know (encryption, features of later
 * versions), `hostile` for content that lies in another file. A backing file is not judged here: see `backing`.
 */
export function parseQcow2(bytes: Uint8Array, fileBytes: number, what: string): Qcow2Header {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const corrupt = (why: string): Fault => new Fault("corrupt", `${what}: ${why}`);
  if (!isQcow2(head)) throw corrupt("it is no qcow2 image");
  if (head.length < version2HeaderBytes) throw corrupt("the file ends within its header");
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw new Fault("unsupported", `${what}: qcow2 version ${version} is not known`);
  const fixed = version === 2 ? version2Fields : readVersion3(head, corrupt);
  refuseFeatures(fixed.incompatibleFeatures, head, fixed.headerBytes, what);
  if (head.readUInt32BE(32) !== 0) throw encrypted(what);

  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) throw corrupt(`clusters of 2^${clusterBits} bytes`);
  const clusterBytes = 2 ** clusterBits;
  const virtualSizeBytes = wide(head, 24);
  const l1Entries = head.readUInt32BE(36);
  const l1Offset = wide(head, 40);
  const entryBytes = (fixed.incompatibleFeatures & incompatible.extendedL2) === 0n ? 8 : 16;
  const neededEntries = Math.ceil(virtualSizeBytes / (clusterBytes * (clusterBytes / entryBytes)));
  if (!Number.isSafeInteger(virtualSizeBytes) || Math.max(l1Entries, neededEntries) * 8 > maxL1Bytes) {
    throw corrupt(`a size of ${formatSize(virtualSizeBytes)} with clusters of ${clusterBytes} bytes`);
  }
  if (l1Entries < neededEntries) throw corrupt("its table does not cover its size");
  const within = (offset: number, sizeBytes: number): boolean =>
    offset % clusterBytes === 0 && offset >= clusterBytes && offset + sizeBytes <= fileBytes;
  if (l1Entries > 0 && !within(l1Offset, l1Entries * 8)) throw corrupt("its table is outside of the file");
  const refcountBytes = head.readUInt32BE(56) * clusterBytes;
  if (refcountBytes === 0 || refcountBytes > maxRefcountTableBytes) throw corrupt("its table of reference counts");
  if (!within(wide(head, 48), Math.min(refcountBytes, clusterBytes))) {
    throw corrupt("its table of reference counts is outside of the file");
  }
  const snapshots = head.readUInt32BE(60);
  if (snapshots > maxSnapshots || (snapshots > 0 && !within(wide(head, 64), 1)))
    throw corrupt("its table of snapshots");

  const backing = readBacking(head, fixed.headerBytes, clusterBytes, what);
  const dirty = (fixed.incompatibleFeatures & incompatible.dirty) !== 0n;
  const header = { version, virtualSizeBytes, clusterBytes, snapshots, dirty, l1Entries, l1Offset } as const;
  return backing === undefined ? header : { ...header, backing };
}

interface Version3Fields {
  readonly incompatibleFeatures: bigint;
  readonly headerBytes: number;
}

const version2Fields: Version3Fields = { incompatibleFeatures: 0n, headerBytes: version2HeaderBytes };

function readVersion3(head: Buffer, corrupt: (why: string) => Fault): Version3Fields {
  if (head.length < 104) throw corrupt("the file ends within its header");
  const headerBytes = head.readUInt32BE(100);
  if (headerBytes < 104 || headerBytes % 8 !== 0 || headerBytes > 4096)
    throw corrupt(`a header of ${headerBytes} bytes`);
  if (headerBytes > head.length) throw corrupt("the file ends within its header");
  if (head.readUInt32BE(96) > 6) throw corrupt(`reference counts of 2^${head.readUInt32BE(96)} bits`);
  const compression = headerBytes > 104 ? head.readUInt8(104) : 0;
  if (compression > 1) throw corrupt(`compression type ${compression}`);
  return { incompatibleFeatures: head.readBigUInt64BE(72), headerBytes };
}

function refuseFeatures(features: bigint, head: Buffer, headerBytes: number, what: string): void {
  if ((features & incompatible.externalData) !== 0n) {
    const file = findExtension(head, headerBytes, extension.externalData, what);
    const name = file === undefined ? "" : ` ${JSON.stringify(file.toString("latin1"))}`;
    throw new Fault("hostile", `${what}: its content is in another file${name}, which is not opened`, {
      hint: "make one file of it where it comes from: qemu-img convert -O qcow2",
    });
  }
  if ((features & incompatible.corrupt) !== 0n) throw new Fault("corrupt", `${what}: it is marked as corrupt`);
  const unknown = features & ~knownIncompatible;
  if (unknown === 0n) return;
  throw new Fault("unsupported", `${what}: it uses features that are not known (0x${unknown.toString(16)})`);
}

function readBacking(head: Buffer, headerBytes: number, clusterBytes: number, what: string): Qcow2Header["backing"] {
  if (findExtension(head, headerBytes, extension.encryption, what) !== undefined) throw encrypted(what);
  const offset = wide(head, 8);
  if (offset === 0) return undefined;
  const sizeBytes = head.readUInt32BE(16);
  const end = offset + sizeBytes;
  if (sizeBytes === 0 || sizeBytes > maxBackingNameBytes || end > Math.min(clusterBytes, head.length)) {
    throw new Fault("corrupt", `${what}: the name of its backing file`);
  }
  const file = head.toString("utf8", offset, end);
  const format = findExtension(head, headerBytes, extension.backingFormat, what)?.toString("latin1");
  return format === undefined ? { file } : { file, format };
}

/** Extensions follow the header one after the other, each with its type and length, padded to eight bytes. */
function findExtension(head: Buffer, headerBytes: number, wanted: number, what: string): Buffer | undefined {
  const backingOffset = wide(head, 8);
  const end = backingOffset === 0 ? head.length : Math.min(backingOffset, head.length);
  for (let at = headerBytes; at + 8 <= end;) {
    const type = head.readUInt32BE(at);
    if (type === extension.end) return undefined;
    const sizeBytes = head.readUInt32BE(at + 4);
    if (sizeBytes > end - at - 8) throw new Fault("corrupt", `${what}: an extension of its header is cut off`);
    if (type === wanted) return head.subarray(at + 8, at + 8 + sizeBytes);
    at += 8 + Math.ceil(sizeBytes / 8) * 8;
  }
  return undefined;
}

function encrypted(what: string): Fault {
  return new Fault("unsupported", `${what}: it is encrypted`, { hint: "decrypt it where it comes from" });
}

/** A 64-bit number; beyond 2^53 it is nothing that fits a file, and compares as such. */
function wide(head: Buffer, offset: number): number {
  return Number(head.readBigUInt64BE(offset));
}

export interface NewQcow2 {
  readonly virtualSizeBytes: number;
  /** An absolute path, and what format that file has. */
  readonly backing?: { readonly file: string; readonly format: "qcow2" | "raw" };
}

/** What an image without content consists of: all bytes between these are zeros, up to `fileBytes`. */
export interface EmptyQcow2 {
  readonly fileBytes: number;
  readonly pieces: readonly { readonly offset: number; readonly bytes: Buffer }[];
}

const clusterBits = 16;
const clusterBytes = 2 ** clusterBits;
const bytesForL1Entry = clusterBytes * (clusterBytes / 8);
const writtenHeaderBytes = 112;

/**
 * An image without content of its own, as `qemu-img create` makes it within the 20 ms that starting it takes: header, one
 * cluster each with the table and the block of reference counts, and the table of the content, which has room for 4 TiB
 * so that a disk grows by its header alone.
 */
export function emptyQcow2({ virtualSizeBytes, backing }: NewQcow2): EmptyQcow2 {
  const l1Bytes = Math.ceil(Math.max(1, (virtualSizeBytes / bytesForL1Entry) * 8) / clusterBytes) * clusterBytes;
  const header = Buffer.alloc(clusterBytes);
  header.writeUInt32BE(magic, 0);
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(clusterBits, 20);
  header.writeBigUInt64BE(BigInt(virtualSizeBytes), 24);
  header.writeUInt32BE(l1Bytes / 8, 36);
  header.writeBigUInt64BE(BigInt(3 * clusterBytes), 40);
  header.writeBigUInt64BE(BigInt(clusterBytes), 48);
  header.writeUInt32BE(1, 56);
  header.writeUInt32BE(4, 96);
  header.writeUInt32BE(writtenHeaderBytes, 100);
  const headerEnd = backing === undefined ? writtenHeaderBytes + 8 : writeBacking(header, backing);
  const refcountTable = Buffer.alloc(8);
  refcountTable.writeBigUInt64BE(BigInt(2 * clusterBytes));
  const usedClusters = 3 + l1Bytes / clusterBytes;
  const refcounts = Buffer.alloc(usedClusters * 2);
  for (let cluster = 0; cluster < usedClusters; cluster += 1) refcounts.writeUInt16BE(1, cluster * 2);
  return {
    fileBytes: usedClusters * clusterBytes,
    pieces: [
      { offset: 0, bytes: header.subarray(0, headerEnd) },
      { offset: clusterBytes, bytes: refcountTable },
      { offset: 2 * clusterBytes, bytes: refcounts },
    ],
  };
}

/** Returns where the header ends. */
function writeBacking(header: Buffer, { file, format }: NonNullable<NewQcow2["backing"]>): number {
  const name = Buffer.from(file);
  if (!file.startsWith("/") || name.length > maxBackingNameBytes) {
    throw new Fault("invalid", `${file} cannot be the backing file of a disk: its path is not absolute, or too long`);
  }
  header.writeUInt32BE(extension.backingFormat, writtenHeaderBytes);
  header.writeUInt32BE(format.length, writtenHeaderBytes + 4);
  header.write(format, writtenHeaderBytes + 8, "latin1");
  // The extension's padding and the empty one that ends the list are zeros already.
  const nameOffset = writtenHeaderBytes + 16 + 8;
  name.copy(header, nameOffset);
  header.writeBigUInt64BE(BigInt(nameOffset), 8);
  header.writeUInt32BE(name.length, 16);
  return nameOffset + name.length;
}
