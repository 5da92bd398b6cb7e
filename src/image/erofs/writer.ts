import { ftruncateSync } from "node:fs";
import { BlockFile } from "./block-file.ts";
import { ChunkMap, type Extent } from "./chunk-map.ts";
import { crc32c } from "./crc32c.ts";
import { countLinks, writeDirectories } from "./directory-writer.ts";
import {
  blockBytes,
  checksumOffset,
  encodeInode,
  encodeSuperblock,
  inodeBytes,
  layout,
  linksOffset,
  maxBlocks,
  superblockOffset,
  type Attributes,
  type Inode,
  type Layout,
} from "./format.ts";
import { InodeShelf } from "./inode-shelf.ts";
import type { Directory, Leaf } from "./tree.ts";
import { encodeXattrs, measureXattrs, type Xattrs } from "./xattr.ts";

/** Data of the file that is being written: whole blocks as they come, then the tail. */
interface OpenFile {
  readonly attributes: Attributes;
  readonly xattrs: Xattrs;
  readonly xattrsBytes: number;
  readonly sizeBytes: number;
  readonly dataOffset: number;
  /** From here on the data goes behind the inode; equal to `sizeBytes` when it all goes into blocks. */
  readonly tailOffset: number;
  /** Only of a sparse file. */
  readonly chunks: ChunkMap | undefined;
  readonly extents: readonly Extent[];
  extent: number;
  withinExtent: number;
}

/**
 * Writes one EROFS file system, uncompressed, in one pass: data as it comes, each inode when its data has ended, the
 * directories and the superblock at the end. Nothing but the tree of names stays in memory.
 *
 * The caller builds the tree: it puts the leaves that the methods return into the directories it makes, as often as there
 * are names for them, and passes the root to `finish`. All methods are synchronous and throw what `node:fs` throws.
 * What does not fit the format (see `measureXattrs`, names over 255 bytes) must be refused before it comes here.
 */
export class ErofsWriter {
  readonly #fd: number;
  readonly #file: BlockFile;
  readonly #shelf: InodeShelf;
  readonly #tail = Buffer.allocUnsafeSlow(blockBytes);
  #tailUsed = 0;
  #open: OpenFile | undefined;
  #inodes = 0;
  #hasChunkedFile = false;

  /** `fd` is an empty file open for writing; it stays open. `onWritten` hears now and then how far it reaches by now. */
  constructor(fd: number, onWritten?: (position: number) => void) {
    this.#fd = fd;
    this.#file = new BlockFile(fd, onWritten);
    this.#file.skip(blockBytes);
    this.#shelf = new InodeShelf(this.#file);
  }

  /** Bytes that the file system spans so far, holes included. */
  get position(): number {
    return this.#file.position;
  }

  /**
   * Begins a regular file of exactly `sizeBytes`. With `extents` (ascending, disjoint, within the size) it is sparse, and
   * `write` brings the extents' data only.
   */
  beginFile(attributes: Attributes, xattrs: Xattrs, sizeBytes: number, extents?: readonly Extent[]): void {
    const xattrsBytes = measureXattrs(xattrs) ?? 0;
    const tailBytes = sizeBytes % blockBytes;
    const inline = extents === undefined && inodeBytes + xattrsBytes + tailBytes <= blockBytes;
    this.#file.align();
    this.#tailUsed = 0;
    this.#open = {
      attributes,
      xattrs,
      xattrsBytes,
      sizeBytes,
      dataOffset: this.#file.position,
      tailOffset: inline ? sizeBytes - tailBytes : sizeBytes,
      chunks: extents === undefined ? undefined : new ChunkMap(this.#file, sizeBytes),
      extents: extents ?? [{ offset: 0, sizeBytes }],
      extent: 0,
      withinExtent: 0,
    };
  }

  write(bytes: Uint8Array): void {
    const open = this.#mustBeOpen();
    let done = 0;
    while (done < bytes.length) {
      const extent = open.extents[open.extent];
      if (extent === undefined) throw new RangeError("more data than the file's extents hold");
      const count = Math.min(bytes.length - done, extent.sizeBytes - open.withinExtent);
      if (count > 0) {
        this.#place(open, extent.offset + open.withinExtent, bytes.subarray(done, done + count));
      }
      done += count;
      open.withinExtent += count;
      if (open.withinExtent === extent.sizeBytes) {
        open.extent += 1;
        open.withinExtent = 0;
      }
    }
  }

  /** Ends the file that was begun, all of its data written. */
  endFile(): Leaf {
    const open = this.#mustBeOpen();
    this.#open = undefined;
    open.chunks?.finish();
    const tail = this.#tail.subarray(0, this.#tailUsed);
    const base = {
      type: "file",
      attributes: open.attributes,
      xattrsBytes: open.xattrsBytes,
      sizeBytes: open.sizeBytes,
      links: 1,
    } as const;
    if (open.chunks !== undefined) {
      this.#hasChunkedFile = true;
      return this.#leaf({ ...base, layout: layout.chunked, union: open.chunks.format }, open.xattrs, tail, open.chunks);
    }
    const inlineOrPlain: Layout = tail.length > 0 ? layout.inline : layout.plain;
    return this.#leaf({ ...base, layout: inlineOrPlain, union: open.dataOffset / blockBytes }, open.xattrs, tail);
  }

  /** A symbolic link to `target`, a byte string of at most one block less an inode. */
  symlink(attributes: Attributes, xattrs: Xattrs, target: string): Leaf {
    const xattrsBytes = measureXattrs(xattrs) ?? 0;
    const bytes = Buffer.from(target, "latin1");
    const inline = inodeBytes + xattrsBytes + bytes.length <= blockBytes;
    this.#file.align();
    const union = this.#file.position / blockBytes;
    if (!inline) this.#file.append(bytes);
    return this.#leaf(
      {
        type: "symlink",
        attributes,
        xattrsBytes,
        layout: inline ? layout.inline : layout.plain,
        sizeBytes: bytes.length,
        union,
        links: 1,
      },
      xattrs,
      inline ? bytes : Buffer.alloc(0),
    );
  }

  /** A device or fifo; `device` as `encodeDevice` made it, 0 for a fifo. */
  special(type: "character" | "block" | "fifo", attributes: Attributes, xattrs: Xattrs, device: number): Leaf {
    const xattrsBytes = measureXattrs(xattrs) ?? 0;
    const inode = { type, attributes, xattrsBytes, layout: layout.plain, sizeBytes: 0, union: device, links: 1 };
    return this.#leaf(inode, xattrs, Buffer.alloc(0));
  }

  /**
   * Writes what is still in memory. Afterwards the file is a complete file system, not yet synced.
   *
   * @param uuid 16 bytes that name it.
   * @throws RangeError when it would be larger than the format can address.
   */
  finish(root: Directory, uuid: Uint8Array): { readonly sizeBytes: number; readonly inodes: number } {
    const shared = countLinks(root);
    const firstBlock = Buffer.alloc(blockBytes);
    this.#inodes += writeDirectories(root, this.#file, firstBlock, this.#inodes + 1);
    this.#file.align();
    this.#shelf.flush();
    const blocks = this.#file.position / blockBytes;
    if (blocks > maxBlocks) throw new RangeError("a file system of 16 TiB or more cannot be addressed");
    this.#patchLinks(shared);
    encodeSuperblock({ inodes: this.#inodes, blocks, uuid }, this.#hasChunkedFile, firstBlock);
    firstBlock.writeUInt32LE(crc32c(firstBlock.subarray(superblockOffset)), checksumOffset);
    this.#file.flush();
    this.#file.writeAt(firstBlock, 0);
    // The end may be a gap, which a write would have to reach to make it part of the file.
    ftruncateSync(this.#fd, blocks * blockBytes);
    return { sizeBytes: blocks * blockBytes, inodes: this.#inodes };
  }

  #mustBeOpen(): OpenFile {
    if (this.#open === undefined) throw new RangeError("no file was begun");
    return this.#open;
  }

  #place(open: OpenFile, offset: number, bytes: Uint8Array): void {
    if (open.chunks !== undefined) return open.chunks.write(bytes, offset);
    const blockPart = Math.max(0, Math.min(bytes.length, open.tailOffset - offset));
    if (blockPart > 0) this.#file.append(bytes.subarray(0, blockPart));
    if (blockPart < bytes.length) {
      this.#tail.set(bytes.subarray(blockPart), this.#tailUsed);
      this.#tailUsed += bytes.length - blockPart;
    }
  }

  #leaf(
    inode: Omit<Inode, "ordinal" | "type"> & { type: Leaf["type"] },
    xattrs: Xattrs,
    tail: Buffer,
    chunks?: ChunkMap,
  ): Leaf {
    this.#inodes += 1;
    const headBytes = inodeBytes + inode.xattrsBytes;
    const sizeBytes = headBytes + (chunks?.mapBytes ?? tail.length);
    const fill = (target: Buffer): void => {
      encodeInode({ ...inode, ordinal: this.#inodes }, target, 0);
      if (inode.xattrsBytes > 0) encodeXattrs(xattrs, target, inodeBytes);
      if (tail.length > 0) tail.copy(target, headBytes);
      chunks?.encode(target, headBytes);
    };
    this.#file.align();
    if (sizeBytes <= blockBytes) {
      const { view, offset } = this.#shelf.take(sizeBytes);
      fill(view);
      return { type: inode.type, inodeNumber: offset / 32, links: 0 };
    }
    // Only attributes and chunk maps may cross blocks, so such an inode gets blocks of its own among the data.
    const offset = this.#file.position;
    const bytes = Buffer.alloc(sizeBytes);
    fill(bytes);
    this.#file.append(bytes);
    return { type: inode.type, inodeNumber: offset / 32, links: 0 };
  }

  /** An inode says one link until here. After the data is flushed, the few with more are corrected in place. */
  #patchLinks(shared: readonly Leaf[]): void {
    this.#file.flush();
    const links = Buffer.alloc(4);
    for (const leaf of shared) {
      links.writeUInt32LE(leaf.links);
      this.#file.writeAt(links, leaf.inodeNumber * 32 + linksOffset);
    }
  }
}
