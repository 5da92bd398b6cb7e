import { Fault } from "../../base/fault.ts";
import type { Extent } from "../erofs/chunk-map.ts";
import type { Xattrs } from "../erofs/xattr.ts";
import { maxExtents, noPax, parsePax, parseTime, wholeNumber, type PaxRecords } from "./pax.ts";
import { checkedExtents, decodeOldExtents, LeadingExtentMap, parseExtentList, tooManyExtents } from "./sparse-map.ts";
import { decodeHeader, number, tarBlockBytes, text, type TarHeader } from "./tar-header.ts";

export type TarEntryType = "file" | "link" | "symlink" | "character" | "block" | "directory" | "fifo";

/** One entry with everything that its headers say. Names are byte strings, unchecked: `..` and `/` are still in them. */
export interface TarEntry {
  readonly type: TarEntryType;
  readonly path: string;
  /** Of links and symbolic links. */
  readonly linkPath: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  /** Of a file: how long it is when unpacked. Zero for everything else. */
  readonly sizeBytes: number;
  /** Of a sparse file: where the data that follows belongs. */
  readonly extents: readonly Extent[] | undefined;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly xattrs: Xattrs;
}

/** Who receives the entries. `data` comes between `begin` and `end` of files only; its bytes are valid during the call. */
export interface TarSink {
  begin(entry: TarEntry): void;
  data(bytes: Buffer): void;
  end(): void;
}

/** Extended headers and long names are held in memory; real ones are a few KiB. The same limit as Go's archive/tar. */
const maxExtendedBytes = 1 << 20;

const entryTypes: Readonly<Record<string, TarEntryType>> = {
  "0": "file",
  "7": "file",
  S: "file",
  "1": "link",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

/**
 * Reads a tar that is pushed in pieces of any size: ustar, PAX, GNU, star and v7, with long names, extended attributes and
 * all four sparse formats. It is our own because the library at hand knows no sparse files and works entry by entry with
 * streams, which costs more per small file than reading it does.
 *
 * `push` and `end` throw a `corrupt` Fault where the tar is malformed, and what the sink throws. After that the reader is dead.
 */
export class TarReader {
  readonly #sink: TarSink;
  readonly #parser: Generator<void, void>;
  #chunk: Buffer = Buffer.alloc(0);
  #at = 0;
  #ended = false;
  #global: PaxRecords = noPax;
  #current = "";

  constructor(sink: TarSink) {
    this.#sink = sink;
    this.#parser = this.#parse();
  }

  /** The name of the entry being read, or of the last one; empty before the first. A byte string. */
  get current(): string {
    return this.#current;
  }

  push(chunk: Buffer): void {
    this.#chunk = chunk;
    this.#at = 0;
    this.#parser.next();
  }

  /** No more bytes will come. */
  end(): void {
    this.#ended = true;
    this.#parser.next();
  }

  /** Reads as much as is there and yields when it needs more. */
  *#parse(): Generator<void, void> {
    let local = noPax;
    let longName: string | undefined;
    let longLink: string | undefined;
    let isExtended = false;
    for (;;) {
      const block = yield* this.#exactly(tarBlockBytes);
      if (block === undefined || isZero(block)) {
        if (isExtended) throw new Fault("corrupt", "the tar ends after an extended header, where an entry must follow");
        if (block !== undefined) yield* this.#readEndMark();
        return;
      }
      const header = decodeHeader(block);
      isExtended = true;
      if (header.type === "x") local = parsePax(yield* this.#extended(header));
      else if (header.type === "g") {
        this.#global = parsePax(yield* this.#extended(header));
        isExtended = local !== noPax || longName !== undefined || longLink !== undefined;
      } else if (header.type === "L") longName = upToNul(yield* this.#extended(header));
      else if (header.type === "K") longLink = upToNul(yield* this.#extended(header));
      else {
        yield* this.#readEntry(header, Buffer.from(block), { local, longName, longLink });
        local = noPax;
        longName = longLink = undefined;
        isExtended = false;
      }
    }
  }

  *#readEntry(
    header: TarHeader,
    block: Buffer,
    names: { local: PaxRecords; longName: string | undefined; longLink: string | undefined },
  ): Generator<void, void> {
    const { local } = names;
    const pax = (key: string): string | undefined => {
      const value = local.values.get(key) ?? this.#global.values.get(key);
      return value === "" ? undefined : value;
    };
    const path = ownRecord(local, "GNU.sparse.name") ?? names.longName ?? pax("path") ?? header.name;
    this.#current = path;
    const type = entryTypes[header.type];
    if (type === undefined) {
      // A volume label names the archive; it has no data and is no entry.
      if (header.type === "V" && header.sizeBytes === 0) return;
      throw new Fault("corrupt", `it has the type ${JSON.stringify(header.type)}, which is not known`);
    }

    // Only files have data. Other types may say a size, which old programs used for other ends.
    const paxSize = pax("size");
    const recordedBytes = paxSize === undefined ? header.sizeBytes : wholeNumber(paxSize, "the PAX size");
    if (recordedBytes < 0) throw new Fault("corrupt", "its size is negative");
    let storedBytes = type === "file" ? recordedBytes : 0;
    const paddingBytes = (tarBlockBytes - (storedBytes % tarBlockBytes)) % tarBlockBytes;

    const sparse = yield* this.#sparseLayout(header, block, local, storedBytes);
    if (sparse !== undefined) storedBytes -= sparse.mapBytes;

    const paxUid = pax("uid");
    const paxGid = pax("gid");
    const paxTime = pax("mtime");
    const time = paxTime === undefined ? { sec: header.mtimeSec, nsec: 0 } : parseTime(paxTime);
    this.#sink.begin({
      type,
      path,
      linkPath: names.longLink ?? pax("linkpath") ?? header.linkName,
      mode: header.mode & 0o7777,
      uid: paxUid === undefined ? header.uid : wholeNumber(paxUid, "the PAX owner"),
      gid: paxGid === undefined ? header.gid : wholeNumber(paxGid, "the PAX group"),
      mtimeSec: time.sec,
      mtimeNsec: time.nsec,
      sizeBytes: sparse?.sizeBytes ?? storedBytes,
      extents: sparse && checkedExtents(sparse.extents, sparse.sizeBytes, storedBytes),
      deviceMajor: header.deviceMajor,
      deviceMinor: header.deviceMinor,
      xattrs: this.#xattrs(local),
    });
    if (type === "file") yield* this.#stream(storedBytes, (bytes) => this.#sink.data(bytes));
    this.#sink.end();
    yield* this.#stream(paddingBytes, () => {});
  }

  /** The real size and the extents of a sparse file, and how many bytes of its data the map took; else undefined. */
  *#sparseLayout(
    header: TarHeader,
    block: Buffer,
    local: PaxRecords,
    storedBytes: number,
  ): Generator<void, { sizeBytes: number; extents: Extent[]; mapBytes: number } | undefined> {
    if (header.type === "S") {
      const extents: Extent[] = [];
      decodeOldExtents(block, 386, 4, extents);
      let isContinued = block[482] !== 0;
      while (isContinued) {
        const more = yield* this.#mustHave(tarBlockBytes);
        decodeOldExtents(more, 0, 21, extents);
        if (extents.length > maxExtents) throw tooManyExtents();
        isContinued = more[504] !== 0;
      }
      return { sizeBytes: oldRealSize(block), extents, mapBytes: 0 };
    }
    const realSize = ownRecord(local, "GNU.sparse.realsize") ?? ownRecord(local, "GNU.sparse.size");
    if (realSize === undefined || header.type !== "0") return undefined;
    const sizeBytes = wholeNumber(realSize, "the size of a sparse file");
    if (ownRecord(local, "GNU.sparse.major") === "1") {
      const map = new LeadingExtentMap();
      for (let mapBytes = tarBlockBytes; mapBytes <= storedBytes; mapBytes += tarBlockBytes) {
        const extents = map.add(yield* this.#mustHave(tarBlockBytes));
        if (extents !== undefined) return { sizeBytes, extents, mapBytes };
      }
      throw new Fault("corrupt", "its sparse map does not end within its data");
    }
    const list = ownRecord(local, "GNU.sparse.map");
    return { sizeBytes, extents: list === undefined ? [...local.sparse] : parseExtentList(list), mapBytes: 0 };
  }

  /** Copied only where both headers have some: a global one holds for every entry that follows. */
  #xattrs(local: PaxRecords): Xattrs {
    if (local.xattrs.size === 0) return this.#global.xattrs;
    return this.#global.xattrs.size === 0 ? local.xattrs : new Map([...this.#global.xattrs, ...local.xattrs]);
  }

  /** A second block of zeros ends the tar; then only zeros may follow, which fill the last record of a tape. */
  *#readEndMark(): Generator<void, void> {
    for (;;) {
      if (this.#at === this.#chunk.length) {
        if (this.#ended) return;
        yield;
        continue;
      }
      if (!isZero(this.#chunk.subarray(this.#at))) {
        throw new Fault("corrupt", "something other than zeros follows the end mark of the tar");
      }
      this.#at = this.#chunk.length;
    }
  }

  /** The whole body of an extended header. */
  *#extended(header: TarHeader): Generator<void, Buffer> {
    const { sizeBytes } = header;
    if (sizeBytes < 0) throw new Fault("corrupt", "the size of an extended header is negative");
    if (sizeBytes > maxExtendedBytes) {
      throw new Fault("exhausted", `an extended header takes ${sizeBytes} bytes; the limit is ${maxExtendedBytes}`);
    }
    const body = Buffer.from(yield* this.#mustHave(sizeBytes));
    yield* this.#stream((tarBlockBytes - (sizeBytes % tarBlockBytes)) % tarBlockBytes, () => {});
    return body;
  }

  *#mustHave(count: number): Generator<void, Buffer> {
    const bytes = yield* this.#exactly(count);
    if (bytes === undefined) throw truncated();
    return bytes;
  }

  /** `count` bytes in one piece, valid until the next call; undefined when the tar ended before the first of them. */
  *#exactly(count: number): Generator<void, Buffer | undefined> {
    if (this.#chunk.length - this.#at >= count) {
      this.#at += count;
      return this.#chunk.subarray(this.#at - count, this.#at);
    }
    const piece = Buffer.allocUnsafe(count);
    let filled = 0;
    while (filled < count) {
      if (this.#at === this.#chunk.length) {
        if (this.#ended && filled === 0) return undefined;
        if (this.#ended) throw truncated();
        yield;
        continue;
      }
      const copied = this.#chunk.copy(piece, filled, this.#at, this.#at + count - filled);
      this.#at += copied;
      filled += copied;
    }
    return piece;
  }

  /** Hands on `count` bytes as they come. */
  *#stream(count: number, consume: (bytes: Buffer) => void): Generator<void, void> {
    let left = count;
    while (left > 0) {
      if (this.#at === this.#chunk.length) {
        if (this.#ended) throw truncated();
        yield;
        continue;
      }
      const bytes = this.#chunk.subarray(this.#at, this.#at + left);
      this.#at += bytes.length;
      left -= bytes.length;
      consume(bytes);
    }
  }
}

/**
 * A record of the entry's own header. What describes one sparse file is not taken from a global header: no program writes
 * it there, and a long map would be read anew for every entry.
 */
function ownRecord({ values }: PaxRecords, key: string): string | undefined {
  const value = values.get(key);
  return value === "" ? undefined : value;
}

/** Where the old GNU format keeps the size of the unpacked file. */
function oldRealSize(block: Buffer): number {
  const sizeBytes = number(block, 483, 12, "size of a sparse file");
  if (sizeBytes < 0) throw new Fault("corrupt", "the size of a sparse file is negative");
  return sizeBytes;
}

function upToNul(body: Buffer): string {
  return text(body, 0, body.length);
}

function isZero(bytes: Uint8Array): boolean {
  for (const byte of bytes) if (byte !== 0) return false;
  return true;
}

function truncated(): Fault {
  return new Fault("corrupt", "the tar ends in the middle of an entry");
}
