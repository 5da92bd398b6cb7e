import {
  chownSync,
  closeSync,
  fstatSync,
  fsync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Call, type Clock, systemClock, throwIfCancelled } from "../../base/call.ts";
import type { InstanceId } from "../../base/id.ts";
import { errnoOf } from "../../host/errno.ts";
import { removeTree } from "../../host/file.ts";
import { readBootId } from "../../host/proc.ts";
import { run } from "../../host/process.ts";
import type { PoolFacts, Root, RootSpec } from "../contract.ts";
import { BlankDisks } from "./blank.ts";
import { removeIfThere } from "./mount-point.ts";
import { type Places, idsIn, madeAt, nameOf } from "./place.ts";

/**
 * Roots for guests with a kernel of their own: the layers as they are, and a file system in a sparse file.
 *
 * Making one waits for no disk, so a power cut within seconds may leave a file that looks whole and is not. Once it is
 * known to be on the disk, a file beside it says so, by the inode's number: whoever uses a root may put another file in its
 * place that was on no disk yet. One without that, found after a reboot, is checked. A broken one is set aside and made
 * anew: nothing that a guest was promised to be kept can be in it, as its first such promise would have put all of the file
 * on the disk.
 */
export class BlockRoots {
  readonly #places: Places;
  readonly #blank: BlankDisks;
  readonly #bootId = readBootId();
  /** What cancels putting a file on the disk, for those that are not known to be there. */
  readonly #waiting = new Map<InstanceId, () => void>();

  constructor(places: Places) {
    this.#places = places;
    this.#blank = new BlankDisks(places.lib);
  }

  async attach(spec: RootSpec, call: Call): Promise<Root> {
    throwIfCancelled(call);
    const { id, layers } = spec;
    const own = join(this.#places.libRoots, nameOf(id));
    const path = join(own, writableName);
    if (!spec.readOnly) {
      if (isThere(path) && !this.isAttached(id) && !isDurable(own, path)) await this.#recheck(own, path, call);
      if (!isThere(path)) await this.#make(own, path, spec.ownerUid ?? 0, call);
      else if (statSync(path).uid !== (spec.ownerUid ?? 0)) chownSync(path, spec.ownerUid ?? 0, 0);
    }
    mkdirSync(this.#places.runBlocks, { recursive: true, mode: 0o700 });
    writeFileSync(join(this.#places.runBlocks, nameOf(id)), this.#bootId);
    if (!spec.readOnly) this.#settleLater(id, own, call.clock);
    return spec.readOnly ? { kind: "block", layers } : { kind: "block", layers, writable: path };
  }

  /** Returns when what was written is on the disk. */
  async detach(id: InstanceId): Promise<void> {
    await settle(join(this.#places.libRoots, nameOf(id)));
    this.abandon(id);
  }

  /** The file itself goes with the instance's folder. */
  abandon(id: InstanceId): void {
    this.#waiting.get(id)?.();
    this.#waiting.delete(id);
    removeIfThere(() => unlinkSync(join(this.#places.runBlocks, nameOf(id))));
  }

  /** Whether it was handed out since the machine started. */
  isAttached(id: InstanceId): boolean {
    try {
      return readFileSync(join(this.#places.runBlocks, nameOf(id)), "utf8") === this.#bootId;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return false;
      throw error;
    }
  }

  /** Also takes up what an earlier daemon meant to put on the disk. */
  list(): PoolFacts["roots"] {
    const ids = idsIn([this.#places.runBlocks]) as InstanceId[];
    return ids.map((id) => {
      const attached = this.isAttached(id);
      const own = join(this.#places.libRoots, nameOf(id));
      const path = join(own, writableName);
      if (attached && isThere(path) && !isDurable(own, path)) this.#settleLater(id, own, systemClock);
      return { id, attached };
    });
  }

  usedBytes(id: InstanceId): number | undefined {
    const facts = statSync(join(this.#places.libRoots, nameOf(id), writableName), { throwIfNoEntry: false });
    return facts === undefined ? undefined : facts.blocks * statBlockBytes;
  }

  async #make(own: string, path: string, ownerUid: number, call: Call): Promise<void> {
    const isNew = !isThere(own);
    try {
      mkdirSync(own, { recursive: true, mode: 0o700 });
      removeIfThere(() => unlinkSync(madeAt(path)));
      removeIfThere(() => unlinkSync(durableMark(own)));
      await this.#blank.write(madeAt(path), ownerUid, call);
      renameSync(madeAt(path), path);
    } catch (error) {
      await removeTree(isNew ? own : madeAt(path)).catch(() => {});
      throw error;
    }
  }

  /** Not at once: most of what runs for seconds only never needs it. Until it is known to be there, however long that takes. */
  #settleLater(id: InstanceId, own: string, clock: Clock): void {
    if (this.#waiting.has(id)) return;
    const again = (): void => {
      this.#waiting.delete(id);
      this.#settleLater(id, own, clock);
    };
    const begin = (): void => {
      const cancel = this.#waiting.get(id);
      const isWanted = (): boolean => this.#waiting.get(id) === cancel;
      settle(own).then(
        () => isWanted() && this.#waiting.delete(id),
        () => isWanted() && again(),
      );
    };
    this.#waiting.set(id, clock.after(settleAfterMs, begin));
  }

  /** What a power cut left. Nothing runs on it. */
  async #recheck(own: string, path: string, call: Call): Promise<void> {
    const attempted = `check ${path}`;
    // 1 and 2: mended. Its journal is played back first.
    const check = { attempted, okCodes: [0, 1, 2, 4, 8, 12], timeoutMs: 600_000, endsWithUs: true };
    const { code } = await run(["e2fsck", "-f", "-p", path], check, call);
    if (code > 2) renameSync(path, join(own, brokenName));
    else await settle(own);
  }
}

const writableName = "writable.ext4";
/** What could not be mended, until the root goes or the next one breaks: somebody may still want to look into it. */
const brokenName = "writable.broken.ext4";
const statBlockBytes = 512;
const settleAfterMs = 10_000;

function durableMark(own: string): string {
  return join(own, "writable.durable");
}

/** Puts the file on the disk, if it is not known to be there, and says so beside it. */
async function settle(own: string): Promise<void> {
  const path = join(own, writableName);
  if (!isThere(path) || isDurable(own, path)) return;
  const fd = openSync(path, "r");
  try {
    await promisify(fsync)(fd);
    // Meanwhile the root may have been removed and made again.
    if (statSync(path, { throwIfNoEntry: false })?.ino !== fstatSync(fd).ino) return;
    writeFileSync(durableMark(own), String(fstatSync(fd).ino));
  } finally {
    closeSync(fd);
  }
}

function isDurable(own: string, path: string): boolean {
  const mark = durableMark(own);
  return isThere(mark) && readFileSync(mark, "utf8") === String(statSync(path).ino);
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
