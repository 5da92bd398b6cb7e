import { join } from "node:path";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { namePattern, shortHash, type Digest, type InstanceId } from "../base/id.ts";
import type { DiskImage } from "../image/disk/contract.ts";
import { firmwarePart, type MachineFiles, type PackedDisk } from "../image/machine/contract.ts";
import type { Engine, GuestFacts, Session, SnapshotFacts, SnapshotsFacet, SnapshotSpec } from "../instance/contract.ts";
import { defaultNetwork, type InstanceSection, type StackSpec } from "../stack/model.ts";
import { expand } from "../stack/plan/expand.ts";
import type { DiskFacet } from "../storage/contract.ts";
import { subjectOf } from "./actor.ts";
import type { Instances, InstanceView, Machines, RunRequest } from "./contract.ts";
import { cannot, runStack } from "./instances.ts";
import { machineDocument, sectionOf } from "./machine-document.ts";
import { machineOf } from "./machine-launch.ts";
import { marked } from "./mark.ts";
import type { Reconciler } from "./reconciler.ts";
import type { StackLoop } from "./stack-loop.ts";

type Pinned = NonNullable<RunRequest["pinned"]>;

const runNetworks = [`${runStack}/${defaultNetwork}`];

/** What people ask of full machines beyond what all instances can do. */
export class MachineFace implements Machines {
  readonly #reconciler: Reconciler;
  readonly #instances: Instances;

  constructor(reconciler: Reconciler, instances: Instances) {
    this.#reconciler = reconciler;
    this.#instances = instances;
  }

  async snapshot(id: InstanceId, spec: SnapshotSpec, call: Call): Promise<SnapshotFacts> {
    if (!namePattern.test(spec.name)) {
      throw new Fault("invalid", `"${spec.name}" cannot be the name of a snapshot`, {
        hint: "use lower-case letters, digits and -, at most 40",
      });
    }
    const snapshots = this.#snapshotsOf(id);
    await snapshots.createSnapshot(id, spec, call);
    return await this.#snapshot(id, spec.name, call);
  }

  async snapshots(id: InstanceId, call: Call): Promise<readonly SnapshotFacts[]> {
    return await this.#snapshotsOf(id).listSnapshots(id, call);
  }

  async removeSnapshot(id: InstanceId, snapshot: string, call: Call): Promise<void> {
    await this.#snapshot(id, snapshot, call);
    await this.#snapshotsOf(id).removeSnapshot(id, snapshot, call);
  }

  async revert(id: InstanceId, snapshot: string, call: Call): Promise<InstanceView> {
    const { memory } = await this.#snapshot(id, snapshot, call);
    const loop = this.#loopOf(id);
    const known = loop.state.instance(id);
    if (known === undefined) throw new Fault("precondition", `${subjectOf(id)} was not made yet`);
    const mark = shortHash(`${call.clock.nowMs()} ${process.hrtime.bigint()} ${snapshot}`, 16);
    await loop.state.putInstance(id, (record) => ({ ...(record ?? known), revert: { snapshot, mark } }), call);
    // With memory it runs as it did; whoever stopped or suspended it has asked for something else since.
    if (memory) await loop.state.change((record) => marked(record, id, "run"), call);
    loop.forgive(id);
    loop.wake();
    return await loop.until(() => {
      const view = this.#viewOf(id);
      if (loop.state.instance(id)?.revert?.mark === mark) return this.#failing(loop, view);
      const isUp = view.status === "running" || view.status === "paused";
      const mayRest = loop.state.desiredInstance(id)?.running !== true;
      return isUp || mayRest ? view : this.#failing(loop, view);
    }, call);
  }

  async console(id: InstanceId, call: Call): Promise<Session> {
    const engine = this.#engineOf(id);
    const console = engine.console ?? cannot(engine, "connect to a console");
    return await console.console(id, call);
  }

  async screenshot(id: InstanceId, call: Call): Promise<Uint8Array> {
    const engine = this.#engineOf(id);
    const screenshot = engine.screenshot ?? cannot(engine, "show a screen");
    return await screenshot.screenshot(id, call);
  }

  async guest(id: InstanceId, call: Call): Promise<GuestFacts> {
    const engine = this.#engineOf(id);
    const guest = engine.guest ?? cannot(engine, "ask a guest about itself");
    return await guest.guest(id, call);
  }

  async *export(id: InstanceId, call: Call): AsyncGenerator<Uint8Array> {
    const engine = this.#engineOf(id);
    const exporter = engine.export ?? cannot(engine, "export a machine");
    const { section, name } = this.#viewOf(id);
    const description = { name, vm: machineDocument(section) };
    const fill: Parameters<MachineFiles["pack"]>[1] = async (directory, inner) => {
      const disks = await exporter.exportDisks(id, directory, inner);
      const firmware = { name: firmwarePart, path: join(directory, `${firmwarePart}.qcow2`) };
      const isThere = (await engine.keepsake?.exportFirmware(id, firmware.path, inner)) === true;
      return isThere ? [...disks, firmware] : disks;
    };
    yield* this.#reconciler.parts.machineFiles.pack(description, fill, call);
  }

  async import(
    bytes: AsyncIterable<Uint8Array>,
    options: { readonly name: string | undefined; readonly author: string },
    call: Call,
  ): Promise<InstanceView> {
    const { diskImages, machineFiles } = this.#reconciler.parts;
    if (options.name !== undefined) this.#refuseTaken(options.name);
    const images = new Map<string, string>();
    const pinned: Record<string, Digest> = {};
    const brought: Digest[] = [];
    let firmware: DiskImage | undefined;
    const take = async (disk: PackedDisk, head: unknown): Promise<void> => {
      // Before the first byte of a disk: a name that cannot be has to be known now.
      const machine = nameIn(options.name, head);
      if (images.size === 0) this.#refuseTaken(machine);
      const { digest, sizeBytes, bytes } = disk;
      const before = new Set((await diskImages.list(call)).map((image) => image.digest));
      const source = { kind: "bytes", bytes, filename: `${disk.name}.qcow2`, sizeBytes } as const;
      const checksum = { kind: "digest", digest } as const;
      // The library holds it, but nobody asked for it to be there: it has no name, and can go when its machine is gone.
      const image = await diskImages.importNameless({ source, checksum, allowUnverified: false }, call);
      if (!before.has(image.digest)) brought.push(image.digest);
      if (disk.name === firmwarePart) {
        firmware = image;
        return;
      }
      const title = `${machine}-${disk.name}.qcow2`;
      images.set(disk.name, title);
      pinned[title] = image.digest;
    };
    let name: string | undefined;
    try {
      const description = await machineFiles.unpack(bytes, take, call);
      name = nameIn(options.name, description);
      const words =
        typeof description === "object" && description !== null && "vm" in description ? description.vm : {};
      const section = sectionOf(name, words, images, runNetworks);
      const parts = { diskImages: pinned, secrets: {}, files: {} };
      if (firmware !== undefined) await this.#giveFirmware(idOf(name, section, parts), firmware, call);
      return await this.#begin(name, section, options.author, call, parts);
    } catch (error) {
      // What was begun is desired by now, and needs them.
      if (name === undefined || this.#reconciler.find(name) === undefined) {
        for (const digest of brought) await diskImages.discard(digest, call).catch(() => {});
      }
      throw error;
    }
  }

  async #giveFirmware(id: InstanceId, { path, digest }: DiskImage, call: Call): Promise<void> {
    const { keepsake } = this.#reconciler.shared.engines.of("vm");
    await keepsake?.forget(id, call);
    await keepsake?.importFirmware(id, path, call);
    await this.#reconciler.parts.diskImages.discard(digest, call);
  }

  async clone(
    id: InstanceId,
    { name, author }: { readonly name: string; readonly author: string },
    call: Call,
  ): Promise<InstanceView> {
    const { section, status } = this.#viewOf(id);
    const { disks } = machineOf(section);
    this.#refuseTaken(name);
    if (status === "running" || status === "paused" || status === "stopping") {
      throw new Fault("precondition", `clone ${subjectOf(id)}: it is ${status}`, {
        hint: `stop or suspend it first: croft suspend ${this.#viewOf(id).name}`,
      });
    }
    const { hostname: _, ...own } = section;
    const clone: InstanceSection = { ...own, networks: runNetworks, publish: [], needs: [], replicas: 1 };
    const pinned = await this.#pinnedFor(name, id, call);
    const target = idOf(name, clone, pinned);
    const drives = this.#drives();
    for (const { name: disk, from } of disks) {
      if (from.kind === "iso") continue;
      // What an earlier attempt left is not what is to be cloned now.
      await drives.removeDisk(target, disk, call);
      await drives.cloneDisk({ id, name: disk }, { id: target, name: disk }, call);
    }
    const { keepsake } = this.#engineOf(id);
    await keepsake?.forget(target, call);
    await keepsake?.inherit(id, target, call);
    return await this.#begin(name, clone, author, call, pinned);
  }

  async #begin(
    name: string,
    section: InstanceSection,
    author: string,
    call: Call,
    pinned?: Pinned,
  ): Promise<InstanceView> {
    const request = { name, section, pull: "missing", remove: false, attach: false, author } as const;
    return (await this.#instances.run(pinned === undefined ? request : { ...request, pinned }, call)).instance;
  }

  /**
   * What the machine `id` was made of, for one called `name`: the files that came with its stack file, the images of its
   * disks whatever their names mean by now, and its secrets, which every stack has for itself.
   */
  async #pinnedFor(name: string, id: InstanceId, call: Call): Promise<Pinned> {
    const desired = this.#loopOf(id).state.desiredInstance(id);
    if (desired === undefined) {
      throw new Fault("precondition", `clone ${subjectOf(id)}: it is about to go`, { hint: "see: croft ps" });
    }
    const { files, diskImages } = desired;
    const { secrets } = this.#reconciler.parts;
    const versions: Record<string, string> = {};
    for (const [secret, version] of Object.entries(desired.secrets)) {
      const value = await secrets.resolve(this.#viewOf(id).stack, secret, version, call);
      versions[secret] = await secrets.put(name, secret, value.reveal(), call);
    }
    return { files, secrets: versions, ...(diskImages === undefined ? {} : { diskImages }) };
  }

  async #snapshot(id: InstanceId, name: string, call: Call): Promise<SnapshotFacts> {
    const all = await this.#snapshotsOf(id).listSnapshots(id, call);
    const found = all.find((known) => known.name === name);
    if (found !== undefined) return found;
    throw new Fault("not-found", `${subjectOf(id)} has no snapshot ${name}`, {
      hint:
        all.length === 0 ? "make one: croft snapshot create" : `there is: ${all.map((known) => known.name).join(", ")}`,
    });
  }

  #snapshotsOf(id: InstanceId): SnapshotsFacet {
    const engine = this.#engineOf(id);
    return engine.snapshots ?? cannot(engine, "take snapshots");
  }

  #drives(): DiskFacet {
    const { pool } = this.#reconciler.parts;
    if (pool.disks !== undefined) return pool.disks;
    throw new Fault("unsupported", `pool ${pool.name} has no disks for machines`);
  }

  #engineOf(id: InstanceId): Engine {
    return this.#reconciler.shared.engineOf(id);
  }

  #loopOf(id: InstanceId): StackLoop {
    return this.#reconciler.loop(id.slice(0, id.indexOf(".")));
  }

  #viewOf(id: InstanceId): InstanceView {
    return this.#instances.find(id);
  }

  /** Undefined while it may still come right; the failure of a step about it is thrown. */
  #failing(loop: StackLoop, view: InstanceView): undefined {
    const failed = loop.failureOf(view.id);
    if (failed !== undefined) throw failed;
  }

  #refuseTaken(name: string): void {
    if (!namePattern.test(name) || name === runStack) {
      throw new Fault("invalid", `"${name}" cannot be the name of a machine`, {
        hint: "use lower-case letters, digits and -, at most 40",
      });
    }
    if (this.#reconciler.find(name) === undefined) return;
    throw new Fault("already-exists", `the name ${name} is taken`, { hint: "choose another one" });
  }
}

/** The id that a machine of its own will have. */
function idOf(name: string, section: InstanceSection, pinned: Pinned): InstanceId {
  const nothing = { networks: {}, volumes: {}, secrets: {}, images: {} };
  const spec: StackSpec = { stack: name, ...nothing, instances: { [name]: section } };
  const [instance] = expand({ spec, images: {}, ...pinned }, new Set()).instances;
  if (instance === undefined) throw new Fault("bug", `machine ${name} has no instance`);
  return instance.id;
}

function nameIn(asked: string | undefined, description: unknown): string {
  if (asked !== undefined) return asked;
  const isNamed = typeof description === "object" && description !== null && "name" in description;
  if (isNamed && typeof description.name === "string") return description.name;
  throw new Fault("corrupt", "the file does not say what its machine is called", { hint: "say it: --name NAME" });
}
