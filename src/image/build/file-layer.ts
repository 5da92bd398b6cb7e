import { createReadStream, createWriteStream } from "node:fs";
import { posix } from "node:path";
import { pipeline } from "node:stream/promises";
import { type Header, type Pack, extract, pack } from "tar-stream";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Recipe } from "../contract.ts";
import type { BaseTree } from "./base-tree.ts";
import { buildEpochSec } from "./epoch.ts";

/**
 * Writes the tar of a layer that puts files into an image.
 *
 * Each of `files` is a tar of one file, named `.`, or of a directory's tree; its entries move to the destination and
 * belong to root. Their times stay, as web servers tell by them that a page has changed. Links on the way to a
 * destination are followed within the image; what a tree brings replaces what has the same name.
 */
export async function writeFileTar(files: Recipe["files"], tree: BaseTree, tarPath: string, call: Call): Promise<void> {
  const packer = pack();
  const written = pipeline(packer, createWriteStream(tarPath, { flags: "wx", mode: 0o600 }));
  // It is awaited below; a failure before that must not count as unhandled.
  written.catch(() => {});
  try {
    const layer = new LayerTar(packer, tree);
    for (const file of files.toSorted((left, right) => (left.destination < right.destination ? -1 : 1))) {
      call.report({ topic: "files", state: file.destination });
      await addTree(layer, file, call);
    }
    packer.finalize();
  } catch (error) {
    packer.destroy(error instanceof Error ? error : new Error(String(error)));
    await written.catch(() => {});
    throw error;
  }
  await written;
}

async function addTree(layer: LayerTar, file: Recipe["files"][number], call: Call): Promise<void> {
  const { destination } = file;
  const subject = `files for ${destination}`;
  const place = await layer.place(destination);
  const extractor = extract();
  const read = pipeline(createReadStream(file.tarPath, { highWaterMark: 2 ** 18 }), extractor);
  read.catch(() => {});
  let entries = 0;
  for await (const entry of extractor) {
    throwIfCancelled(call);
    const { header } = entry;
    const inner = innerPath(header.name, subject);
    // The entry is iterable; only its type does not say so.
    const content = entry as typeof entry & AsyncIterable<Uint8Array>;
    if (inner === "" && header.type === "file") {
      await layer.addFile(place, header, content);
    } else if (inner === "") {
      await layer.enter(place, header.mode);
    } else {
      const root = await layer.enter(place, 0o755);
      await layer.add(root, inner, header, content, subject);
    }
    entry.resume();
    entries += 1;
  }
  await read;
  if (entries === 0) throw new Fault("invalid", `${subject}: the archive is empty`);
}

/** Where a destination lies once links are followed: the directory above it, which exists by then, and its name. */
interface Place {
  readonly parent: string;
  readonly name: string;
}

class LayerTar {
  readonly #packer: Pack;
  readonly #tree: BaseTree;
  /** Directories that have their entry. */
  readonly #directories = new Set<string>();

  constructor(packer: Pack, tree: BaseTree) {
    this.#packer = packer;
    this.#tree = tree;
  }

  async place(destination: string): Promise<Place> {
    const path = posix.normalize(destination).replace(/\/$/, "");
    if (!posix.isAbsolute(destination) || destination.includes("\0")) {
      throw new Fault("invalid", `"${destination}" is not an absolute path in the image`);
    }
    if (path === "") return { parent: "/", name: "" };
    return { parent: await this.#makeDirectory(posix.dirname(path)), name: posix.basename(path) };
  }

  /** The directory of a place, made with `mode` unless the image has it; a link to a directory is followed. */
  async enter(place: Place, mode: number): Promise<string> {
    if (place.name === "") return "/";
    return await this.#makeDirectory(posix.join(place.parent, place.name), mode);
  }

  async addFile(place: Place, header: Header, content: AsyncIterable<Uint8Array>): Promise<void> {
    if (place.name === "") throw new Fault("invalid", "a file cannot take the place of the image's root directory");
    await this.#write(ownedByRoot(header, posix.join(place.parent, place.name)), content);
  }

  /** One entry of a tree, beneath the directory `root`. */
  async add(
    root: string,
    inner: string,
    header: Header,
    content: AsyncIterable<Uint8Array>,
    subject: string,
  ): Promise<void> {
    const path = posix.join(root, inner);
    const owned = ownedByRoot(header, path);
    switch (header.type) {
      case "file":
      case "contiguous-file":
        return await this.#write({ ...owned, type: "file" }, content);
      case "directory":
        this.#directories.add(path);
        return await this.#write({ ...owned, size: 0 }, undefined);
      case "symlink":
        return await this.#write({ ...owned, size: 0, linkname: header.linkname }, undefined);
      case "link": {
        const target = posix.join(root, innerPath(header.linkname, subject));
        return await this.#write({ ...owned, size: 0, linkname: target.slice(1) }, undefined);
      }
      default:
        throw new Fault("invalid", `${subject}: "${inner.slice(0, 200)}" is a ${header.type}`, {
          hint: "only files, directories and links can be put into an image",
        });
    }
  }

  /** Sees to the entry of a directory and of those above it. Returns where it really is. */
  async #makeDirectory(path: string, mode = 0o755): Promise<string> {
    if (path === "/") return path;
    const known = this.#tree.resolve(path);
    const real = known ?? posix.join(await this.#makeDirectory(posix.dirname(path)), posix.basename(path));
    if (real === "/" || this.#directories.has(real)) return real;
    if (known !== undefined) await this.#makeDirectory(posix.dirname(real));
    const facts = known === undefined ? undefined : await this.#tree.directory(known);
    if (known !== undefined && facts === undefined) {
      throw new Fault("invalid", `${path} is not a directory in the image beneath`);
    }
    this.#directories.add(real);
    await this.#write(
      {
        name: real.slice(1),
        type: "directory",
        mode: facts?.mode ?? mode & 0o1777,
        uid: facts?.uid ?? 0,
        gid: facts?.gid ?? 0,
        mtime: new Date(facts?.mtimeMs ?? buildEpochSec * 1000),
      },
      undefined,
    );
    return real;
  }

  async #write(
    header: Partial<Header> & { name: string },
    content: AsyncIterable<Uint8Array> | undefined,
  ): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const sink = this.#packer.entry(header, (error) => (error ? reject(error) : resolve()));
    if (content === undefined) sink.end(null);
    else {
      for await (const chunk of content) {
        if (!sink.write(chunk)) await new Promise<void>((drained) => void sink.once("drain", () => drained()));
      }
      sink.end(null);
    }
    await promise;
  }
}

/** The header in its new place: set-user-id bits of somebody's working directory do not become root's. */
function ownedByRoot(header: Header, path: string): Partial<Header> & { name: string } {
  return {
    name: path.slice(1),
    type: header.type,
    size: header.size,
    mode: header.mode & 0o1777,
    uid: 0,
    gid: 0,
    mtime: header.mtime,
  };
}

/** A name in the tar as a relative path without dots; empty for the root of the tree. */
function innerPath(name: string, subject: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (name.startsWith("/") || parts.includes("..") || name.includes("\0")) {
    throw new Fault("hostile", `${subject}: "${name.slice(0, 200)}" leads out of its directory`);
  }
  return parts.join("/");
}
