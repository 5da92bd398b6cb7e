/**
 * The on-disk format of EROFS as Linux 5.15 and later read it: the structures of fs/erofs/erofs_fs.h, little-endian.
 *
 * Two choices keep the writer small. Every inode has the extended form, because the compact one has no room for a time
 * stamp and each entry of a layer brings its own. `meta_blkaddr` is zero, so that an inode number is simply the inode's
 * byte offset in the file divided by 32 and inodes can be written anywhere between the data while a tar streams by.
 */

export const blockBytes = 4096;
export const inodeBytes = 64;
/** Where the superblock begins, and where the first inode (the root, whose number must fit in 16 bits) follows it. */
export const superblockOffset = 1024;
export const rootOffset = superblockOffset + 128;
/** The root cannot move out of the first block, so its extended attributes must fit there. */
export const maxRootXattrsBytes = blockBytes - rootOffset - inodeBytes;

/** How an inode's data is laid out. Values of the format. */
export const layout = { plain: 0, inline: 2, chunked: 4 } as const;
export type Layout = (typeof layout)[keyof typeof layout];

/** File types: what a directory entry says, and the bits of `st_mode`. Values of the format and of Linux. */
export const fileType = {
  file: { dirent: 1, modeBits: 0o100000 },
  directory: { dirent: 2, modeBits: 0o040000 },
  character: { dirent: 3, modeBits: 0o020000 },
  block: { dirent: 4, modeBits: 0o060000 },
  fifo: { dirent: 5, modeBits: 0o010000 },
  symlink: { dirent: 7, modeBits: 0o120000 },
} as const;
export type FileType = keyof typeof fileType;

/** A chunk without data: reads as zeros. */
export const nullBlock = 0xffffffff;
/** Block addresses have 32 bits and the last one means "none", so a file system ends just below 16 TiB. */
export const maxBlocks = 0xfffffffe;

/** What an inode says of permissions, owner and time. */
export interface Attributes {
  /** Permission bits with setuid, setgid and sticky: at most 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since the Unix epoch; negative before it. */
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
}

export interface Inode {
  readonly type: FileType;
  readonly attributes: Attributes;
  readonly xattrsBytes: number;
  readonly layout: Layout;
  readonly sizeBytes: number;
  /** First data block, encoded device number, or chunk format: what the union `i_u` holds for this type and layout. */
  readonly union: number;
  readonly links: number;
  /** A small number for `stat` on 32-bit systems only. */
  readonly ordinal: number;
}

/** Where the link count lies in an inode: hard links are counted when the tree is complete, and patched in. */
export const linksOffset = 44;

/** Writes the 64 bytes of an extended inode at `offset` of `target`, which must be zeroed there. */
export function encodeInode(inode: Inode, target: Buffer, offset: number): void {
  const { attributes } = inode;
  target.writeUInt16LE(1 | (inode.layout << 1), offset);
  target.writeUInt16LE(inode.xattrsBytes === 0 ? 0 : (inode.xattrsBytes - 12) / 4 + 1, offset + 2);
  target.writeUInt16LE(fileType[inode.type].modeBits | attributes.mode, offset + 4);
  target.writeBigUInt64LE(BigInt(inode.sizeBytes), offset + 8);
  target.writeUInt32LE(inode.union, offset + 16);
  target.writeUInt32LE(inode.ordinal, offset + 20);
  target.writeUInt32LE(attributes.uid, offset + 24);
  target.writeUInt32LE(attributes.gid, offset + 28);
  target.writeBigInt64LE(BigInt(attributes.mtimeSec), offset + 32);
  target.writeUInt32LE(attributes.mtimeNsec, offset + 40);
  target.writeUInt32LE(inode.links, offset + linksOffset);
}

/** A device number as Linux encodes it in 32 bits: 12 bits of major, 20 of minor. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** Where a superblock's checksum lies; it covers the rest of the first block after `superblockOffset`. */
export const checksumOffset = superblockOffset + 4;

export interface Superblock {
  readonly inodes: number;
  readonly blocks: number;
  /** 16 bytes. */
  readonly uuid: Uint8Array;
}

const magic = 0xe0f5e1e2;
const compatChecksum = 0x1;
const compatMtime = 0x2;
const incompatChunkedFile = 0x4;

/** Writes the superblock into the file system's first block, without the checksum. */
export function encodeSuperblock(superblock: Superblock, hasChunkedFile: boolean, firstBlock: Buffer): void {
  const at = superblockOffset;
  firstBlock.writeUInt32LE(magic, at);
  firstBlock.writeUInt32LE(compatChecksum | compatMtime, at + 8);
  firstBlock.writeUInt8(Math.log2(blockBytes), at + 12);
  firstBlock.writeUInt16LE(rootOffset / 32, at + 14);
  firstBlock.writeBigUInt64LE(BigInt(superblock.inodes), at + 16);
  firstBlock.writeUInt32LE(superblock.blocks, at + 36);
  firstBlock.set(superblock.uuid.subarray(0, 16), at + 48);
  firstBlock.writeUInt32LE(hasChunkedFile ? incompatChunkedFile : 0, at + 80);
}
