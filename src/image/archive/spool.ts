import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setImmediate as nextTurn } from "node:timers/promises";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { formatSize } from "../../base/unit.ts";
import { hostFault } from "../../host/errno.ts";
import { readSmallFile } from "../../host/file.ts";
import { decompressorFor } from "../layer/compression.ts";
import { type TarEntry, type TarSink, TarReader } from "../layer/tar-reader.ts";
import { RoomWatch } from "../room.ts";
import { shown } from "../shown.ts";

/** An archive of a hundred images of a hundred layers has some 20,000 entries. */
const maxEntries = 100_000;
const maxNameBytes = 4096;
/** A link in an archive of `docker save` points at the layer that an earlier image has; links to links do not occur. */
const maxLinks = 8;
/** As with layers: more than this for one byte of the archive is an attack. */
const maxRatio = 200;
const ratioFloorBytes = 256 * 2 ** 20;
/** Of all that is in an archive, and of the archive itself. Real ones of many images have some 10 GiB. */
const maxArchiveBytes = 256 * 2 ** 30;
/** The worst that fits in here, nothing but tiny records, takes some 25 ms to read. */
const pieceBytes = 256 * 2 ** 10;
/** After this the event loop has a turn before the next piece. */
const maxTurnMs = 10;

interface Spooled {
  readonly path: string;
  readonly sizeBytes: number;
}

/** The files of an archive, each in a file of its own with a number for a name; looked up by their names in the archive. */
export class Spool {
  readonly #files: ReadonlyMap<string, Spooled>;
  readonly #links: ReadonlyMap<string, string>;

  private constructor(files: ReadonlyMap<string, Spooled>, links: ReadonlyMap<string, string>) {
    this.#files = files;
    this.#links = links;
  }

  /**
   * Reads a whole archive into an empty directory. Entries that are neither files nor links are passed over. Throws
   * `exhausted` for more than `maxBytes` or what fills the disk, `hostile` for what expands without bound, and `corrupt`.
   */
  static async read(
    archive: AsyncIterable<Uint8Array>,
    directory: string,
    call: Call,
    maxBytes = maxArchiveBytes,
  ): Promise<Spool> {
    const sink = new SpoolSink(directory);
    const reader = new TarReader(sink);
    let packedBytes = 0;
    let unpackedBytes = 0;
    const turns = new Turns(call);
    const push = async (chunk: Buffer): Promise<void> => {
      throwIfCancelled(call);
      unpackedBytes += chunk.length;
      refuseSize(unpackedBytes, maxBytes);
      if (unpackedBytes > ratioFloorBytes && unpackedBytes > packedBytes * maxRatio) {
        throw new Fault("hostile", `the archive expands more than ${maxRatio} times`);
      }
      for (let at = 0; at < chunk.length; at += pieceBytes) {
        reader.push(chunk.subarray(at, at + pieceBytes));
        await turns.give();
      }
      call.report({ topic: "load", state: "reading", done: unpackedBytes, unit: "bytes" });
    };
    const counted = async function* (): AsyncGenerator<Buffer> {
      for await (const bytes of archive) {
        throwIfCancelled(call);
        packedBytes += bytes.length;
        refuseSize(packedBytes, maxBytes);
        yield Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      }
    };
    try {
      const chunks = counted();
      let first: Buffer = Buffer.alloc(0);
      while (first.length < 4) {
        const next = await chunks.next();
        if (next.done === true) break;
        first = Buffer.concat([first, next.value]);
      }
      const decompressor = decompressorFor(first);
      if (decompressor === undefined) {
        await push(first);
        for await (const chunk of chunks) await push(chunk);
      } else {
        decompressor.write(first);
        await pipeline(Readable.from(chunks), decompressor, async (unpacked: AsyncIterable<Buffer>) => {
          for await (const chunk of unpacked) await push(chunk);
        });
      }
      reader.end();
    } catch (error) {
      throwIfCancelled(call);
      throw archiveFault(error);
    } finally {
      sink.close();
    }
    return new Spool(sink.files, sink.links);
  }

  has(name: string): boolean {
    return this.#find(name) !== undefined;
  }

  /** Where the content of a file of the archive lies. Throws `corrupt` when the archive has no such file. */
  file(name: string): Spooled {
    const found = this.#find(name);
    if (found === undefined) throw new Fault("corrupt", `the archive lacks its file ${shown(name, 200)}`);
    return found;
  }

  /** The content of a document of the archive, which may not be larger than `maxBytes`. */
  async document(name: string, maxBytes: number): Promise<Buffer> {
    const { path, sizeBytes } = this.file(name);
    if (sizeBytes > maxBytes) throw new Fault("exhausted", `${name} in the archive is larger than ${maxBytes} bytes`);
    return await readSmallFile(path, maxBytes);
  }

  #find(name: string): Spooled | undefined {
    let current = cleanName(name);
    for (let links = 0; current !== undefined && links < maxLinks; links += 1) {
      const file = this.#files.get(current);
      if (file !== undefined) return file;
      current = this.#links.get(current);
    }
    return undefined;
  }
}

class SpoolSink implements TarSink {
  readonly files = new Map<string, Spooled>();
  /** Links, symbolic or hard, to where in the archive they lead. */
  readonly links = new Map<string, string>();
  readonly #directory: string;
  readonly #room: RoomWatch;
  #entries = 0;
  #writtenBytes = 0;
  #open: { readonly name: string; readonly path: string; readonly fd: number; sizeBytes: number } | undefined;

  constructor(directory: string) {
    this.#directory = directory;
    this.#room = new RoomWatch(directory);
  }

  begin(entry: TarEntry): void {
    this.#entries += 1;
    if (this.#entries > maxEntries) throw new Fault("exhausted", `the archive has more than ${maxEntries} entries`);
    if (entry.extents !== undefined) throw new Fault("unsupported", "the archive holds a sparse file");
    const path = decoded(entry.path);
    const name = path === undefined ? undefined : cleanName(path);
    // Names that lead out of the archive are of no use in it: nothing that is asked for later can have them.
    if (name === undefined) return;
    if (entry.type === "symlink" || entry.type === "link") {
      const target = decoded(entry.linkPath);
      const base = entry.type === "link" ? "" : name.split("/").slice(0, -1).join("/");
      const resolved = target === undefined ? undefined : resolveName(base, target);
      if (resolved !== undefined) this.links.set(name, resolved);
    } else if (entry.type === "file") {
      const path = join(this.#directory, String(this.#entries));
      // Synchronous, as the tar reader is: this is one copy into the page cache at the pace at which the archive arrives.
      this.#open = { name, path, fd: openSync(path, "wx", 0o600), sizeBytes: 0 };
    }
  }

  data(bytes: Buffer): void {
    const open = this.#open;
    if (open === undefined) return;
    for (let done = 0; done < bytes.length;) done += writeSync(open.fd, bytes, done);
    open.sizeBytes += bytes.length;
    this.#writtenBytes += bytes.length;
    this.#room.reached(this.#writtenBytes);
  }

  end(): void {
    const open = this.#open;
    if (open === undefined) return;
    this.close();
    this.files.set(open.name, { path: open.path, sizeBytes: open.sizeBytes });
    this.links.delete(open.name);
  }

  close(): void {
    if (this.#open !== undefined) closeSync(this.#open.fd);
    this.#open = undefined;
  }
}

/** The tar reader gives names as bytes. Undefined for one that is too long: a global header may give every entry a MiB of it. */
function decoded(bytes: string): string | undefined {
  return bytes.length > maxNameBytes ? undefined : Buffer.from(bytes, "latin1").toString("utf8");
}

/** `./blobs//sha256/x` as `blobs/sha256/x`; undefined when it is empty, too long or leads out. */
function cleanName(name: string): string | undefined {
  return name.startsWith("/") ? undefined : resolveName("", name);
}

function resolveName(base: string, name: string): string | undefined {
  if (name.length > maxNameBytes || name.startsWith("/")) return undefined;
  const parts: string[] = base === "" ? [] : base.split("/");
  for (const part of name.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) return undefined;
  }
  return parts.length === 0 ? undefined : parts.join("/");
}

function refuseSize(sizeBytes: number, maxBytes: number): void {
  if (sizeBytes <= maxBytes) return;
  throw new Fault("exhausted", `the archive is larger than the ${formatSize(maxBytes)} allowed`);
}

/** Lets everything else in the daemon have its turn while an archive is read, however fast that comes. */
class Turns {
  readonly #call: Call;
  #sinceMs: number;

  constructor(call: Call) {
    this.#call = call;
    this.#sinceMs = call.clock.monotonicMs();
  }

  async give(): Promise<void> {
    if (this.#call.clock.monotonicMs() - this.#sinceMs < maxTurnMs) return;
    await nextTurn();
    this.#sinceMs = this.#call.clock.monotonicMs();
  }
}

function archiveFault(error: unknown): Fault {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (code.startsWith("Z_") || code.startsWith("ZSTD_") || code === "ERR_STREAM_PREMATURE_CLOSE") {
    return new Fault("corrupt", "read the archive: its compressed data is damaged", { cause: error });
  }
  return hostFault(error, "read the archive");
}
