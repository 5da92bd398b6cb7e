import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { extract } from "tar-stream";
import { throwIfCancelled, type Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { Home } from "../base/home.ts";
import { isDigest, type Digest } from "../base/id.ts";
import { formatSize } from "../base/unit.ts";
import { syncDirectory } from "../host/file.ts";
import { hostFault } from "../host/errno.ts";

/** One archive may be this large: what people inject beside an image, and the folders images are built from. */
const maxArchiveBytes = 2 ** 30;
/** What is injected into one instance is held in memory on the way. */
const maxInjectedBytes = 64 * 2 ** 20;

/** A regular file of a submitted archive. */
export interface SubmittedFile {
  /** Relative to the folder that was submitted; `.` for one submitted as a single file. */
  readonly path: string;
  readonly mode: number;
  readonly content: Uint8Array;
}

/**
 * Files and folders that came along with stack files, as the tar archives clients sent, each named by its digest.
 * Generations refer to them, so they stay until no generation does. Archives are read as data: none is ever unpacked.
 */
export class SubmittedFiles {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async open(home: Home): Promise<SubmittedFiles> {
    const directory = join(home.libDir, "file");
    await mkdir(directory, { recursive: true, mode: 0o700 });
    for (const name of await readdir(directory)) {
      if (name.endsWith(temporarySuffix)) await rm(join(directory, name), { force: true });
    }
    return new SubmittedFiles(directory);
  }

  /** Keeps a tar that holds either one file named `.` or a directory's tree. The same content again costs nothing. */
  async put(tar: AsyncIterable<Uint8Array>, call: Call): Promise<Digest> {
    const temporary = join(this.#directory, `${crypto.randomUUID()}${temporarySuffix}`);
    const hash = createHash("sha256");
    let sizeBytes = 0;
    try {
      const file = await open(temporary, "wx", 0o600);
      try {
        for await (const chunk of tar) {
          throwIfCancelled(call);
          sizeBytes += chunk.length;
          if (sizeBytes > maxArchiveBytes) {
            throw new Fault("exhausted", `the files sent along are larger than ${formatSize(maxArchiveBytes)}`, {
              hint: "put large data in an image or a volume",
            });
          }
          hash.update(chunk);
          await file.writeFile(chunk);
        }
        await file.sync();
      } finally {
        await file.close();
      }
      const digest = `sha256:${hash.digest("hex")}` as Digest;
      await rename(temporary, this.pathOf(digest));
      await syncDirectory(this.#directory);
      return digest;
    } catch (error) {
      await rm(temporary, { force: true });
      throw hostFault(error, "keep the files sent along with a stack file");
    }
  }

  pathOf(digest: Digest): string {
    return join(this.#directory, `${digest.slice("sha256:".length)}.tar`);
  }

  /** Its regular files. Throws `not-found`, or `exhausted` when they are too large to inject. */
  async read(digest: Digest, call: Call): Promise<readonly SubmittedFile[]> {
    const files: SubmittedFile[] = [];
    let totalBytes = 0;
    await this.#walk(digest, call, async (name, mode, content) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of content) {
        totalBytes += chunk.length;
        if (totalBytes > maxInjectedBytes) {
          throw new Fault("exhausted", `files to inject are larger than ${formatSize(maxInjectedBytes)} together`, {
            hint: "put large data in an image or a volume",
          });
        }
        chunks.push(chunk);
      }
      files.push({ path: checkedPath(name), mode, content: Buffer.concat(chunks) });
    });
    return files;
  }

  /** The content of the one file in an archive; undefined when it holds a directory or more than `limitBytes`. */
  async readFile(digest: Digest, limitBytes: number, call: Call): Promise<Uint8Array | undefined> {
    const { size } = await stat(this.pathOf(digest)).catch((error: unknown) => {
      throw hostFault(error, `read the submitted file ${digest}`);
    });
    // Headers and padding of one entry come to less than this.
    if (size > limitBytes + 16 * 1024) return undefined;
    const files = await this.read(digest, call);
    const [file] = files;
    return files.length === 1 && file?.path === "." && file.content.length <= limitBytes ? file.content : undefined;
  }

  /** Deletes archives that nobody in `keep` needs, but for young ones: their apply may not have come yet. */
  async collect(keep: ReadonlySet<Digest>, call: Call): Promise<void> {
    for (const name of await readdir(this.#directory)) {
      const digest = `sha256:${name.replace(/\.tar$/, "")}`;
      if (!isDigest(digest) || keep.has(digest)) continue;
      const { mtimeMs } = await stat(this.pathOf(digest));
      if (call.clock.nowMs() - mtimeMs > youthMs) await rm(this.pathOf(digest), { force: true });
    }
  }

  async #walk(
    digest: Digest,
    call: Call,
    visit: (name: string, mode: number, content: AsyncIterable<Uint8Array>) => Promise<void>,
  ): Promise<void> {
    const unpack = extract();
    const source = createReadStream(this.pathOf(digest), { highWaterMark: 1 << 18, signal: call.signal });
    const reading = pipeline(source, unpack);
    // A failure ends the iteration below too; it is awaited at the end.
    reading.catch(() => {});
    try {
      for await (const entry of unpack) {
        if (entry.header.type === "file")
          await visit(entry.header.name, entry.header.mode ?? 0o644, entry as AsyncIterable<Uint8Array>);
        else entry.resume();
      }
      await reading;
    } catch (error) {
      throw hostFault(error, `read the submitted files ${digest}`);
    }
  }
}

/** What was sent this recently may belong to an apply that is still building or pulling. */
const youthMs = 24 * 3600 * 1000;

const temporarySuffix = ".part";

function checkedPath(name: string): string {
  const path = name.replace(/^(\.\/)+/, "").replace(/\/+$/, "");
  if (path === "" || path === ".") return ".";
  if (path.startsWith("/") || path.split("/").includes("..") || path.includes("\0")) {
    throw new Fault("hostile", `a submitted file is named "${name}"`, { hint: "names lie beneath the folder" });
  }
  return path;
}
