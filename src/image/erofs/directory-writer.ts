import type { BlockFile } from "./block-file.ts";
import { encodeDirents, measureDirents, type Dirent } from "./dirent.ts";
import { blockBytes, encodeInode, inodeBytes, layout, rootOffset } from "./format.ts";
import type { Directory, Leaf, Node } from "./tree.ts";
import { encodeXattrs, measureXattrs } from "./xattr.ts";

/** Where one directory will lie. Everything is placed before anything is written, since parent and child name each other. */
interface Place {
  readonly directory: Directory;
  readonly parent: Place | undefined;
  readonly inodeOffset: number;
  readonly xattrsBytes: number;
  readonly sizeBytes: number;
  /** True when the last, partial block of the data lies behind the inode. */
  readonly tailInline: boolean;
  dataOffset: number;
}

/** Counts the names of every leaf below `root` in its `links`; returns those with more than one. */
export function countLinks(root: Directory): Leaf[] {
  const shared: Leaf[] = [];
  const pending = [root];
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    for (const child of directory.children.values()) {
      if (child.type === "directory") {
        pending.push(child);
        continue;
      }
      child.links += 1;
      if (child.links === 2) shared.push(child);
    }
  }
  return shared;
}

/**
 * Writes all directories below and including `root` at the end of `file`: first the inodes, then the data that does not
 * fit behind them. The root's inode goes into `firstBlock`, where the superblock points.
 *
 * Returns how many there are.
 */
export function writeDirectories(root: Directory, file: BlockFile, firstBlock: Buffer, firstOrdinal: number): number {
  file.align();
  const places = placeDirectories(root, file.position);
  const byDirectory = new Map(places.map((place) => [place.directory, place]));

  for (const [index, place] of places.entries()) {
    const { directory, xattrsBytes, sizeBytes, tailInline } = place;
    const tailBytes = tailInline ? sizeBytes % blockBytes : 0;
    const isRoot = place.parent === undefined;
    const target = isRoot ? firstBlock : Buffer.alloc(inodeBytes + xattrsBytes + tailBytes);
    const at = isRoot ? rootOffset : 0;
    const subdirectories = [...directory.children.values()].filter((child) => child.type === "directory").length;
    encodeInode(
      {
        type: "directory",
        attributes: directory.attributes,
        xattrsBytes,
        layout: tailInline ? layout.inline : layout.plain,
        sizeBytes,
        union: place.dataOffset / blockBytes,
        links: 2 + subdirectories,
        ordinal: firstOrdinal + index,
      },
      target,
      at,
    );
    if (xattrsBytes > 0) encodeXattrs(directory.xattrs, target, at + inodeBytes);
    if (tailBytes > 0) {
      const data = encodeDirents(entriesOf(place, byDirectory));
      data.copy(target, at + inodeBytes + xattrsBytes, sizeBytes - tailBytes);
    }
    if (!isRoot) {
      file.skip(place.inodeOffset - file.position);
      file.append(target);
    }
  }

  file.align();
  for (const place of places) {
    const spilled = spilledBytes(place);
    if (spilled === 0) continue;
    file.append(encodeDirents(entriesOf(place, byDirectory)).subarray(0, spilled));
    file.align();
  }
  return places.length;
}

function placeDirectories(root: Directory, offset: number): Place[] {
  const places = [place(root, undefined, rootOffset)];
  let next = offset;
  // The list grows while it is walked: parents come before their children.
  for (const parent of places) {
    for (const child of parent.directory.children.values()) {
      if (child.type !== "directory") continue;
      const placed = place(child, parent, next);
      places.push(placed);
      next = placed.inodeOffset + inlineBytes(placed);
    }
  }
  let dataOffset = Math.ceil(next / blockBytes) * blockBytes;
  for (const placed of places) {
    placed.dataOffset = dataOffset;
    dataOffset += Math.ceil(spilledBytes(placed) / blockBytes) * blockBytes;
  }
  return places;
}

/** `directory` at the first fitting place from `offset` on: a tail may not cross a block boundary. */
function place(directory: Directory, parent: Place | undefined, offset: number): Place {
  const { sizeBytes } = measureDirents(sortedNames(directory));
  const xattrsBytes = measureXattrs(directory.xattrs) ?? 0;
  const aligned = Math.ceil(offset / 32) * 32;
  const headBytes = inodeBytes + xattrsBytes;
  const tailBytes = sizeBytes % blockBytes;
  // The root cannot move to the next block, so there is only the rest of the first one for it.
  const roomBytes = parent === undefined ? blockBytes - rootOffset : blockBytes;
  const tailInline = tailBytes > 0 && headBytes + tailBytes <= roomBytes;
  const needBytes = headBytes + (tailInline ? tailBytes : 0);
  const crosses = (aligned % blockBytes) + needBytes > blockBytes;
  const inodeOffset = crosses && parent !== undefined ? Math.ceil(aligned / blockBytes) * blockBytes : aligned;
  return { directory, parent, inodeOffset, xattrsBytes, sizeBytes, tailInline, dataOffset: 0 };
}

function inlineBytes(place: Place): number {
  return inodeBytes + place.xattrsBytes + (place.tailInline ? place.sizeBytes % blockBytes : 0);
}

function spilledBytes(place: Place): number {
  return place.tailInline ? place.sizeBytes - (place.sizeBytes % blockBytes) : place.sizeBytes;
}

function sortedNames(directory: Directory): string[] {
  return [".", "..", ...directory.children.keys()].sort();
}

function entriesOf(place: Place, byDirectory: ReadonlyMap<Directory, Place>): Dirent[] {
  const self = place.inodeOffset / 32;
  const parent = (place.parent ?? place).inodeOffset / 32;
  const numberOf = (child: Node): number =>
    child.type === "directory" ? (byDirectory.get(child)?.inodeOffset ?? 0) / 32 : child.inodeNumber;
  const entries: Dirent[] = [
    { name: ".", inodeNumber: self, type: "directory" },
    { name: "..", inodeNumber: parent, type: "directory" },
  ];
  for (const [name, child] of place.directory.children) {
    entries.push({ name, inodeNumber: numberOf(child), type: child.type });
  }
  return entries.sort((left, right) => (left.name < right.name ? -1 : 1));
}
