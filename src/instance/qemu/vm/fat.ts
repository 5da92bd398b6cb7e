import { Fault } from "../../../base/fault.ts";

/**
 * A small FAT16 file system with a few files in its root: what a guest finds by its label, such as a cloud-init seed. Made
 * in memory, without any program.
 */
export interface FatFile {
  /** Printable ASCII. */
  readonly name: string;
  readonly content: Uint8Array;
}

const sectorBytes = 512;
const sectorsPerCluster = 4;
const clusterBytes = sectorBytes * sectorsPerCluster;
const rootEntries = 512;
/** Less would be read as FAT12, more as FAT32. */
const leastClusters = 4096;
const mostClusters = 65_000;

/** `label` has at most 11 characters. `exhausted` when the files are larger than such a file system can be. */
export function fatImage(label: string, files: readonly FatFile[]): Buffer {
  const needed = files.reduce((sum, { content }) => sum + Math.ceil(content.length / clusterBytes), 0);
  if (needed > mostClusters) throw new Fault("exhausted", `make a file system for ${label}: its files are too large`);
  const clusters = Math.max(leastClusters, needed) + 16;
  const fatSectors = Math.ceil(((clusters + 2) * 2) / sectorBytes);
  const rootSectors = (rootEntries * 32) / sectorBytes;
  const dataSector = 1 + 2 * fatSectors + rootSectors;
  const sectors = dataSector + clusters * sectorsPerCluster;
  const image = Buffer.alloc(sectors * sectorBytes);
  writeBootSector(image, { label, sectors, fatSectors });
  const fat = new Uint16Array(clusters + 2);
  fat[0] = 0xfff8;
  fat[1] = 0xffff;
  const root: Buffer[] = [labelEntry(label)];
  let next = 2;
  files.forEach(({ name, content }, index) => {
    const count = Math.ceil(content.length / clusterBytes);
    for (let cluster = next; cluster < next + count; cluster += 1) fat[cluster] = cluster + 1;
    if (count > 0) fat[next + count - 1] = 0xffff;
    image.set(content, (dataSector + (next - 2) * sectorsPerCluster) * sectorBytes);
    root.push(...fileEntries(name, index + 1, count === 0 ? 0 : next, content.length));
    next += count;
  });
  const table = Buffer.alloc(fatSectors * sectorBytes);
  fat.forEach((value, cluster) => table.writeUInt16LE(value, cluster * 2));
  table.copy(image, sectorBytes);
  table.copy(image, (1 + fatSectors) * sectorBytes);
  Buffer.concat(root).copy(image, (1 + 2 * fatSectors) * sectorBytes);
  return image;
}

function writeBootSector(
  image: Buffer,
  { label, sectors, fatSectors }: { label: string; sectors: number; fatSectors: number },
): void {
  Buffer.from("eb3c90", "hex").copy(image);
  image.write("MSDOS5.0", 3, "latin1");
  image.writeUInt16LE(sectorBytes, 11);
  image.writeUInt8(sectorsPerCluster, 13);
  image.writeUInt16LE(1, 14);
  image.writeUInt8(2, 16);
  image.writeUInt16LE(rootEntries, 17);
  if (sectors < 0x10000) image.writeUInt16LE(sectors, 19);
  else image.writeUInt32LE(sectors, 32);
  image.writeUInt8(0xf8, 21);
  image.writeUInt16LE(fatSectors, 22);
  image.writeUInt16LE(32, 24);
  image.writeUInt16LE(2, 26);
  image.writeUInt8(0x80, 36);
  image.writeUInt8(0x29, 38);
  image.writeUInt32LE(0xc10f7c10, 39);
  image.write(label.padEnd(11).slice(0, 11), 43, "latin1");
  image.write("FAT16   ", 54, "latin1");
  image.writeUInt16LE(0xaa55, 510);
}

function labelEntry(label: string): Buffer {
  const entry = Buffer.alloc(32);
  entry.write(label.padEnd(11).slice(0, 11), 0, "latin1");
  entry.writeUInt8(0x08, 11);
  entry.writeUInt16LE(dosDate, 24);
  return entry;
}

/** 1 January 2020: an image of the same content is the same bytes. */
const dosDate = (40 << 9) | (1 << 5) | 1;

/** Entries of the long name, last part first, and the short one that they belong to. */
function fileEntries(name: string, number: number, cluster: number, sizeBytes: number): Buffer[] {
  const short = Buffer.from(`FILE~${number}`.padEnd(11), "latin1");
  const sum = short.reduce((value, byte) => (((value & 1) << 7) + (value >> 1) + byte) & 0xff, 0);
  const parts = Math.ceil(name.length / 13);
  const entries: Buffer[] = [];
  for (let part = parts; part >= 1; part -= 1) entries.push(longEntry(name, part, part === parts, sum));
  const entry = Buffer.alloc(32);
  short.copy(entry);
  entry.writeUInt8(0x20, 11);
  entry.writeUInt16LE(dosDate, 16);
  entry.writeUInt16LE(dosDate, 18);
  entry.writeUInt16LE(dosDate, 24);
  entry.writeUInt16LE(cluster, 26);
  entry.writeUInt32LE(sizeBytes, 28);
  return [...entries, entry];
}

/** Where in an entry the 13 characters are that it holds. */
const longPlaces = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

function longEntry(name: string, part: number, isLast: boolean, sum: number): Buffer {
  const entry = Buffer.alloc(32);
  entry.writeUInt8(part | (isLast ? 0x40 : 0), 0);
  entry.writeUInt8(0x0f, 11);
  entry.writeUInt8(sum, 13);
  for (const [index, place] of longPlaces.entries()) {
    const at = (part - 1) * 13 + index;
    // The name ends with a zero, and what follows is filled up.
    const unit = at < name.length ? name.charCodeAt(at) : at === name.length ? 0 : 0xffff;
    entry.writeUInt16LE(unit, place);
  }
  return entry;
}
