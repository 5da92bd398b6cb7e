import { open, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Call } from "../../base/call.ts";
import { hostFault } from "../../host/errno.ts";
import { fileExists, removeTree, syncDirectory } from "../../host/file.ts";
import { run } from "../../host/process.ts";
import { readSparse, type SparseContent, writeSparse } from "../../host/sparse.ts";
import { spaceFaults } from "./disk.ts";
import { madeAt } from "./place.ts";

/**
 * Empty ext4 file systems in sparse files, as many as one likes within a millisecond each: `mkfs.ext4` runs once on a
 * host, and what it wrote, some 300 KiB of 64 GiB, is written again for each.
 *
 * All of them have the same UUID, which nothing here goes by: a guest sees one of them.
 */

/** What a guest may write; of the host's disk it takes what is really written. */
const sizeBytes = 64 * 2 ** 30;
/** Part of the name: a template that was made another way is not used. */
const version = 1;
/** More than this is no empty file system. */
const maxDataBytes = 16 * 2 ** 20;

export class BlankDisks {
  readonly #path: string;
  #content: Promise<SparseContent> | undefined;

  constructor(lib: string) {
    this.#path = join(lib, `blank-${version}.ext4`);
  }

  /** Makes the file at `path`, which must not be there, in one go. It is whole when this returns, but not yet on the disk. */
  async write(path: string, ownerUid: number, call: Call): Promise<void> {
    writeSparse(path, await this.#known(call), ownerUid);
  }

  /** Read once; several who need it at once wait for the same. */
  async #known(call: Call): Promise<SparseContent> {
    if (this.#content === undefined) {
      const content = this.#read(call);
      this.#content = content;
      // Whoever comes after a failure tries anew.
      content.catch(() => (this.#content = undefined));
    }
    return await this.#content;
  }

  async #read(call: Call): Promise<SparseContent> {
    try {
      if (!(await fileExists(this.#path))) await makeTemplate(this.#path, call);
      return readSparse(this.#path, maxDataBytes);
    } catch (error) {
      throw hostFault(error, "make an empty file system");
    }
  }
}

/** Under another name until it is whole and on the disk: an interrupted one is made anew. */
async function makeTemplate(path: string, call: Call): Promise<void> {
  const making = madeAt(path);
  await removeTree(making);
  try {
    const file = await open(making, "wx", 0o600);
    try {
      await file.truncate(sizeBytes);
      await spaceFaults(run(["mkfs.ext4", ...templateOptions, making], { endsWithUs: true }, call));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(making, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await removeTree(making).catch(() => {});
    throw error;
  }
}

/**
 * Discarding a sparse file costs nothing and lets mkfs mark all tables as zeroed; otherwise the guest's kernel would
 * write a gigabyte of zeros behind our back. No room for growth, few copies of the superblock, and metadata side by side
 * keep what has to be written small.
 */
const templateOptions =
  "-q -F -m 0 -J size=64 -G 256 -O ^resize_inode,sparse_super2 -E lazy_itable_init=1,lazy_journal_init=1,discard".split(
    " ",
  );
