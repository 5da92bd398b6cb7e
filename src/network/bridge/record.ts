import { mkdirSync, readdirSync, readFileSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { errnoOf, hostFault } from "../../host/errno.ts";

/**
 * What was last asked for, one small file each: so that after a restart the driver can tell what is missing from what is
 * there. The kernel's state is the truth about what is; these files are the truth about what should be.
 *
 * They lie beside the sockets and namespaces in the run directory and go with a reboot, like what they describe. They are
 * written synchronously: on tmpfs that takes less than the detour by the thread pool.
 */
export class Records<Value> {
  readonly #directory: string;
  readonly #values: Map<string, Value>;

  constructor(directory: string) {
    this.#directory = directory;
    this.#values = load<Value>(directory);
  }

  get(id: string): Value | undefined {
    return this.#values.get(id);
  }

  entries(): IterableIterator<[string, Value]> {
    return this.#values.entries();
  }

  values(): IterableIterator<Value> {
    return this.#values.values();
  }

  get size(): number {
    return this.#values.size;
  }

  /** `id` must be usable as a file name. Writing an equal value again does nothing. */
  put(id: string, value: Value): void {
    const text = JSON.stringify(value);
    if (JSON.stringify(this.#values.get(id)) === text) return;
    writeWhole(join(this.#directory, `${id}.json`), text);
    this.#values.set(id, value);
  }

  remove(id: string): void {
    if (!this.#values.delete(id)) return;
    try {
      unlinkSync(join(this.#directory, `${id}.json`));
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw hostFault(error, `forget ${id}`);
    }
  }
}

/** Puts `text` at `path` so that a reader, and we after a crash, see the old content or the new. Readable by all. */
export function writeWhole(path: string, text: string): void {
  const temporary = join(path, "..", `.${path.slice(path.lastIndexOf("/") + 1)}.tmp`);
  try {
    writeFileSync(temporary, text, { mode: 0o644 });
    renameSync(temporary, path);
  } catch (error) {
    throw hostFault(error, `write ${path}`);
  }
}

function load<Value>(directory: string): Map<string, Value> {
  const values = new Map<string, Value>();
  try {
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    for (const name of readdirSync(directory)) {
      if (!name.endsWith(".json") || name.startsWith(".")) continue;
      values.set(name.slice(0, -".json".length), JSON.parse(readFileSync(join(directory, name), "utf8")) as Value);
    }
  } catch (error) {
    throw hostFault(error, `read records in ${directory}`);
  }
  return values;
}
