import { createReadStream, type Stats } from "node:fs";
import { lstat, readdir, readlink, stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { pack, type Header, type Pack } from "tar-stream";
import { Fault } from "../base/fault.ts";

/**
 * The content of a file or folder beside a stack file as a tar stream: a file is one entry named `.`, a folder all that
 * is in it. Equal content gives equal bytes, whoever sends it and when, because the digest of the stream decides whether
 * anything has to be made again: entries are sorted, and owners and times left out.
 *
 * Throws `not-found` when there is nothing at `path`, and from the stream `invalid` for a socket or device.
 */
export async function tarOf(path: string): Promise<AsyncIterable<Uint8Array>> {
  const facts = await stat(path).catch((error: unknown) => {
    throw readFault(error, path);
  });
  const tar = pack();
  const writing = facts.isDirectory() ? addFolder(tar, path, path) : addFile(tar, ".", path, facts);
  writing.then(
    () => tar.finalize(),
    (error: unknown) => tar.destroy(readFault(error, path)),
  );
  return tar as AsyncIterable<Uint8Array>;
}

async function addFolder(tar: Pack, root: string, folder: string): Promise<void> {
  const names = (await readdir(folder)).sort((left, right) => (left < right ? -1 : 1));
  for (const name of names) {
    const path = join(folder, name);
    const facts = await lstat(path);
    const entry = relative(root, path);
    if (facts.isDirectory()) {
      await addEmpty(tar, { name: `${entry}/`, type: "directory", mode: facts.mode & 0o7777 });
      await addFolder(tar, root, path);
    } else if (facts.isSymbolicLink()) {
      await addEmpty(tar, { name: entry, type: "symlink", linkname: await readlink(path), mode: 0o777 });
    } else {
      await addFile(tar, entry, path, facts);
    }
  }
}

async function addFile(tar: Pack, name: string, path: string, facts: Stats): Promise<void> {
  if (!facts.isFile()) {
    throw new Fault("invalid", `${path} is neither a file, a folder nor a symbolic link`, {
      hint: "take it out of the folder that the stack file names",
    });
  }
  const header = { ...anonymous, name, type: "file", mode: facts.mode & 0o7777, size: facts.size } as const;
  if (facts.size === 0) return await addEmpty(tar, header);
  const entry = tar.entry(header);
  // A file that grows while it is read is cut at the size that was announced; one that shrinks fails below.
  const { pipeline } = await import("node:stream/promises");
  await pipeline(createReadStream(path, { end: facts.size - 1, highWaterMark: 1 << 18 }), entry);
}

/** An entry of a file waits for its content, also when that is empty. */
const empty = Buffer.alloc(0);
const anonymous = { uid: 0, gid: 0, mtime: new Date(0) } as const;

function addEmpty(tar: Pack, header: Partial<Header> & { readonly name: string }): Promise<void> {
  return new Promise((resolve, reject) => {
    tar.entry({ ...anonymous, ...header, size: 0 }, empty, (error) => (error ? reject(error) : resolve()));
  });
}

function readFault(error: unknown, path: string): Fault {
  if (error instanceof Fault) return error;
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ENOENT") {
    return new Fault("not-found", `${path} does not exist, but the stack file names it`, {
      hint: "make it, or mend its path in the stack file",
      cause: error,
    });
  }
  return Fault.from(error, `read ${path}`);
}
