import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, linkSync, mkdirSync, unlinkSync } from "node:fs";
import { rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import type { InstanceId } from "../../base/id.ts";
import { formatSize } from "../../base/unit.ts";
import {
  fileExists,
  readSmallFile,
  removeIfEmpty,
  removeTree,
  syncDirectory,
  writeFileAtomic,
} from "../../host/file.ts";
import { run } from "../../host/process.ts";
import type { AttachedDisk, DiskFacet, DiskFacts, DiskKey, DiskSpec } from "../contract.ts";
import { type Chain, chainOn, type Link, newImage, refuseChain, wholeSectors } from "./disk-chain.ts";
import { spaceFaults } from "./disk.ts";
import { removeIfThere } from "./mount-point.ts";
import { type Places, idsIn, madeAt, nameOf, namesIn, removedAt } from "./place.ts";
import { hasContent, type ImageFacts, isImageOpen, readImage, writeEmptyImage } from "./qcow2-file.ts";
import { Turns } from "./turns.ts";

/**
 * Disks of machines: qcow2 files, so that they have snapshots, each in a folder that gets its name when it is whole.
 *
 * What a disk reads beneath its own content is written down beside it, and its header is held against that whenever the
 * disk is handed out or worked on: QEMU is confined, but tools that follow a header run here as root.
 *
 * A clone is made by freezing: the file becomes what both disks read, and each goes on in a new one.
 */
export class MachineDisks implements DiskFacet {
  readonly #places: Places;
  readonly #turns = new Turns<string>();
  #isSwept = false;

  constructor(places: Places) {
    this.#places = places;
  }

  attachDisk(spec: DiskSpec, call: Call): Promise<AttachedDisk> {
    return this.#inTurn("attach", spec, async () => {
      throwIfCancelled(call);
      const own = this.#placeOf(spec);
      if (!(await fileExists(own))) await this.#make(spec, chainOn(spec.base), call);
      const { path, chain, facts, isRecorded } = await this.#whole(spec);
      if (!isRecorded) await record(own, { chain });
      if (spec.sizeBytes !== undefined) await grow(spec, path, facts, call);
      const ownerUid = spec.ownerUid ?? 0;
      if (facts.uid !== ownerUid) chownSync(path, ownerUid, 0);
      if (facts.mode !== writableMode) chmodSync(path, writableMode);
      return { path, format: "qcow2", backing: chain.map(({ path: backing }) => backing) };
    });
  }

  removeDisk(id: InstanceId, name: string): Promise<void> {
    return this.#inTurn("remove", { id, name }, async () => {
      const own = this.#placeOf({ id, name });
      await removeTree(removedAt(own));
      // Renamed first: half of a disk must never be attached again as if it were the whole.
      if (await fileExists(own)) {
        await rename(own, removedAt(own));
        await syncDirectory(dirname(own));
      }
      await removeTree(removedAt(own));
      await removeTree(madeAt(own));
      removeIfEmpty(dirname(own));
      await this.#thaw();
    });
  }

  async listDisks(): Promise<readonly DiskFacts[]> {
    if (!this.#isSwept) await this.#sweep();
    this.#isSwept = true;
    const keys = idsIn([this.#places.libDisks]).flatMap((id) =>
      idsIn([join(this.#places.libDisks, id)]).map((name): DiskKey => ({ id: id as InstanceId, name })),
    );
    return await Promise.all(keys.map((key) => this.#facts(key)));
  }

  cloneDisk(source: DiskKey, target: DiskKey, call: Call): Promise<void> {
    // Both in their turn, always the same one first, so that two clones never wait for each other.
    const [first, second] = [source, target].sort((left, right) => (wordFor(left) < wordFor(right) ? -1 : 1));
    if (first === undefined || second === undefined || wordFor(first) === wordFor(second)) return Promise.resolve();
    return this.#inTurn("clone", first, () =>
      this.#inTurn("clone", second, async () => {
        throwIfCancelled(call);
        if (await fileExists(this.#placeOf(target))) return;
        const { path, chain, facts } = await this.#idle(source, "clone");
        if (facts.snapshots > 0) return await this.#make({ ...target, copyOf: path }, chain, call);
        const beneath = hasContent(path, facts) ? await this.#freeze(source, path, chain, facts) : chain;
        await this.#make({ ...target, sizeBytes: facts.virtualSizeBytes }, beneath, call);
      }),
    );
  }

  exportDisk(source: DiskKey, path: string, call: Call): Promise<void> {
    return this.#inTurn("export", source, async () => {
      throwIfCancelled(call);
      const { path: disk } = await this.#idle(source, "export");
      const making = madeAt(path);
      await removeTree(making);
      try {
        const convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", disk, making];
        const options = { attempted: `export disk ${wordFor(source)}`, timeoutMs: longMs, endsWithUs: true };
        await spaceFaults(run(convert, options, call));
        await rename(making, path);
        await syncDirectory(dirname(path));
      } catch (error) {
        await removeTree(making).catch(() => {});
        throw error;
      }
    });
  }

  /** After it the disk is there, whole, and on the host's disk. */
  async #make(spec: DiskSpec & { readonly copyOf?: string }, chain: Chain, call: Call): Promise<void> {
    const own = this.#placeOf(spec);
    const making = madeAt(own);
    const folder = dirname(own);
    try {
      await removeTree(making);
      mkdirSync(making, { recursive: true, mode: 0o700 });
      await record(making, { chain });
      const path = join(making, diskName);
      if (spec.copyOf === undefined) await writeEmptyImage(path, newImage(spec, chain[0]));
      else await copyImage(spec.copyOf, path, call);
      await rename(making, own);
      await syncDirectory(folder);
      await syncDirectory(dirname(folder));
    } catch (error) {
      await removeTree(making).catch(() => {});
      removeIfEmpty(folder);
      throw error;
    }
  }

  /** The disk and what it is known to read, once its header says the same. */
  async #whole(key: DiskKey): Promise<WholeDisk> {
    const own = this.#placeOf(key);
    const { chain, next } = await readMade(own);
    const path = join(own, diskName);
    const facts = readImage(path);
    // A clone that was interrupted had written down what was to come before it came.
    const known = next !== undefined && facts.backing?.file === next[0]?.path ? next : chain;
    refuseChain(path, facts, known);
    return { path, chain: known, facts, isRecorded: next === undefined };
  }

  async #idle(key: DiskKey, verb: string): Promise<WholeDisk> {
    if (!(await fileExists(this.#placeOf(key)))) throw new Fault("not-found", `there is no disk ${wordFor(key)}`);
    const whole = await this.#whole(key);
    if (!isImageOpen(whole.path)) return whole;
    throw new Fault("precondition", `${verb} disk ${wordFor(key)}: a machine has it open`, {
      hint: "stop the machine first",
    });
  }

  /** Makes the disk's file one that nobody writes to any more, and the disk a new child of it. */
  #freeze(key: DiskKey, path: string, chain: Chain, facts: ImageFacts): Promise<Chain> {
    return this.#turns.run(freezing, `freeze disk ${wordFor(key)}`, async () => {
      const own = this.#placeOf(key);
      mkdirSync(this.#places.libFrozen, { recursive: true, mode: 0o700 });
      const frozen: Link = {
        path: join(this.#places.libFrozen, `${randomBytes(12).toString("hex")}.qcow2`),
        format: "qcow2",
      };
      const next: Chain = [frozen, ...chain];
      const child = madeAt(path);
      try {
        await removeTree(child);
        const { virtualSizeBytes } = facts;
        await writeEmptyImage(child, { virtualSizeBytes, backing: { file: frozen.path, format: frozen.format } });
        chownSync(child, facts.uid, 0);
        await record(own, { chain, next });
        linkSync(path, frozen.path);
        await syncDirectory(this.#places.libFrozen);
        // An interruption here leaves the disk like this, and attaching it gives it back to its owner.
        chownSync(path, 0, 0);
        chmodSync(path, frozenMode);
        await rename(child, path);
        await syncDirectory(own);
      } catch (error) {
        // Whether the last step happened decides which of the two is the disk; the other goes.
        await removeTree(child).catch(() => {});
        if (readImage(path).backing?.file !== frozen.path) removeIfThere(() => unlinkSync(frozen.path));
        throw error;
      }
      await record(own, { chain: next });
      return next;
    });
  }

  /** What a daemon leaves that is killed between two steps, and no list would name: folders that hold no disk, and files. */
  async #sweep(): Promise<void> {
    for (const id of namesIn(this.#places.libDisks)) removeIfEmpty(join(this.#places.libDisks, id));
    await this.#thaw();
  }

  /** Deletes frozen files that no disk reads any more. */
  #thaw(): Promise<void> {
    return this.#turns.run(freezing, "look for what no disk reads any more", () => this.#removeUnread());
  }

  async #removeUnread(): Promise<void> {
    const frozen = namesIn(this.#places.libFrozen).map((name) => join(this.#places.libFrozen, name));
    if (frozen.length === 0) return;
    const read = new Set<string>();
    for (const id of namesIn(this.#places.libDisks)) {
      for (const name of namesIn(join(this.#places.libDisks, id))) {
        const made = await readMade(join(this.#places.libDisks, id, name)).catch(ifMissing<Made>({ chain: [] }));
        for (const { path } of [...made.chain, ...(made.next ?? [])]) read.add(path);
      }
    }
    for (const path of frozen) if (!read.has(path)) removeIfThere(() => unlinkSync(path));
  }

  async #facts(key: DiskKey): Promise<DiskFacts> {
    const own = this.#placeOf(key);
    const made = await readMade(own).catch(ifMissing(undefined));
    const backing = (made?.next ?? made?.chain ?? []).map(({ path }) => path);
    try {
      const { virtualSizeBytes, usedBytes } = readImage(join(own, diskName));
      return { ...keyOf(key), sizeBytes: virtualSizeBytes, usedBytes, backing };
    } catch (error) {
      // Half made, half removed, or broken: there, and nothing to be said about it.
      if (!isFault(error, "not-found") && !isFault(error, "corrupt")) throw error;
      return { ...keyOf(key), sizeBytes: 0, usedBytes: 0, backing };
    }
  }

  #placeOf({ id, name }: DiskKey): string {
    return join(this.#places.libDisks, nameOf(id), nameOf(name));
  }

  #inTurn<Result>(verb: string, key: DiskKey, work: () => Promise<Result>): Promise<Result> {
    return this.#turns.run(wordFor(key), `${verb} disk ${wordFor(key)}`, work);
  }
}

interface WholeDisk {
  readonly path: string;
  readonly chain: Chain;
  readonly facts: ImageFacts;
  /** The record says this and nothing else. */
  readonly isRecorded: boolean;
}

/** What `disk.json` says. */
interface Made {
  readonly chain: Chain;
  /** What comes in its place, when the disk's header says so. */
  readonly next?: Chain;
}

const diskName = "disk.qcow2";
const recordName = "disk.json";
const writableMode = 0o600;
/** The users of all machines read it; the folders above are closed to them but for what their sandbox lets through. */
const frozenMode = 0o444;
const longMs = 24 * 3600_000;
/** The turn of what looks at, or adds to, files that several disks read. No disk has such a name. */
const freezing = "/";

function wordFor({ id, name }: DiskKey): string {
  return `${name} of ${id}`;
}

function keyOf({ id, name }: DiskKey): DiskKey {
  return { id, name };
}

async function readMade(own: string): Promise<Made> {
  return JSON.parse((await readSmallFile(join(own, recordName))).toString("utf8")) as Made;
}

async function record(own: string, made: Made): Promise<void> {
  await writeFileAtomic(join(own, recordName), JSON.stringify(made));
}

async function grow(spec: DiskSpec, path: string, facts: ImageFacts, call: Call): Promise<void> {
  const wantedBytes = wholeSectors(spec.sizeBytes ?? facts.virtualSizeBytes);
  if (wantedBytes === facts.virtualSizeBytes) return;
  const attempted = `grow disk ${wordFor(spec)} to ${formatSize(wantedBytes)}`;
  if (wantedBytes < facts.virtualSizeBytes) {
    const [from, to] = [formatSize(facts.virtualSizeBytes), formatSize(wantedBytes)];
    throw new Fault("precondition", `disk ${wordFor(spec)} has ${from} and cannot shrink to ${to}`, {
      hint: "keep its size, or copy its content to a new disk",
    });
  }
  if (isImageOpen(path)) {
    throw new Fault("precondition", `${attempted}: a machine has it open`, { hint: "stop the machine first" });
  }
  const resize = ["qemu-img", "resize", "-q", "-f", "qcow2", path, String(wantedBytes)];
  await spaceFaults(run(resize, { attempted, endsWithUs: true }, call));
}

/** Block by block, as internal snapshots are part of the file; blocks are shared where the file system can. */
async function copyImage(from: string, to: string, call: Call): Promise<void> {
  const attempted = `copy ${from}`;
  const copy = ["cp", "--sparse=always", "--reflink=auto", "--no-preserve=all", from, to];
  await spaceFaults(run(copy, { attempted, timeoutMs: longMs, endsWithUs: true }, call));
  await run(["sync", to], { attempted, timeoutMs: longMs }, call);
}

/** For `catch`: `value` when there is nothing. */
function ifMissing<Value>(value: Value): (error: unknown) => Value {
  return (error) => {
    if (isFault(error, "not-found")) return value;
    throw error;
  };
}
