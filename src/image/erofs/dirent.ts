import { blockBytes, fileType, type FileType } from "./format.ts";

/**
 * Directory data: blocks that each begin with entries of 12 bytes, sorted by name, followed by the names. The kernel
 * searches the blocks and then the entries of one block by halving, so order over all blocks is what makes lookups work.
 */
export interface Dirent {
  readonly name: string;
  readonly inodeNumber: number;
  readonly type: FileType;
}

const entryBytes = 12;

/** Where each block of a directory with these sorted names begins (as an index into the names), and its size in all. */
export function measureDirents(sortedNames: readonly string[]): { firsts: number[]; sizeBytes: number } {
  const firsts = [0];
  let used = 0;
  for (const [index, name] of sortedNames.entries()) {
    const bytes = entryBytes + name.length;
    if (used + bytes > blockBytes) {
      firsts.push(index);
      used = 0;
    }
    used += bytes;
  }
  return { firsts, sizeBytes: (firsts.length - 1) * blockBytes + used };
}

/** The data of a directory with these entries, sorted by name. */
export function encodeDirents(sorted: readonly Dirent[]): Buffer {
  const { firsts, sizeBytes } = measureDirents(sorted.map((entry) => entry.name));
  const data = Buffer.alloc(sizeBytes);
  for (const [block, first] of firsts.entries()) {
    const entries = sorted.slice(first, firsts[block + 1]);
    const start = block * blockBytes;
    let nameOffset = entries.length * entryBytes;
    for (const [index, entry] of entries.entries()) {
      const at = start + index * entryBytes;
      data.writeBigUInt64LE(BigInt(entry.inodeNumber), at);
      data.writeUInt16LE(nameOffset, at + 8);
      data.writeUInt8(fileType[entry.type].dirent, at + 10);
      data.write(entry.name, start + nameOffset, "latin1");
      nameOffset += entry.name.length;
    }
  }
  return data;
}
