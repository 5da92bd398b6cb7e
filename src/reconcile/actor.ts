import type { Call } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import type { InstanceId, NetworkId, VolumeId } from "../base/id.ts";
import type { Engine, InstanceFacts, MachineLaunch, ProgramLaunch } from "../instance/contract.ts";
import type { NewEvent } from "../event/contract.ts";
import type { PortSpec } from "../network/contract.ts";
import type { AttachedVolume, Root, RootSpec, VolumeSpec } from "../storage/contract.ts";
import { changeOf } from "../stack/change.ts";
import type { InstanceSection } from "../stack/model.ts";
import { same } from "../stack/plan/diff.ts";
import type { Action, DesiredInstance } from "../stack/plan/step.ts";
import type { AddressBook } from "./address-book.ts";
import type { Engines } from "./engines.ts";
import { displayName, launchOf, limitsOf, namesOf } from "./launch.ts";
import { attachDisks } from "./machine-disk.ts";
import { machineLaunchOf } from "./machine-launch.ts";
import { networkIdOf, volumeIdOf, type Parts } from "./parts.ts";
import type { InstanceRecord } from "./record.ts";
import type { RoutingTable } from "./routing.ts";
import type { Sight } from "./sight.ts";
import type { StackState } from "./stack-state.ts";

/**
 * Carries out one step of a plan. Every action is safe to repeat and safe to interrupt: it asks drivers for what should
 * be so, never assumes that the last attempt did nothing, and tells `Sight` what it then knows.
 */
export class Actor {
  readonly #parts: Parts;
  readonly #engines: Engines;
  readonly #engineOf: (id: InstanceId) => Engine;
  readonly #sight: Sight;
  readonly #book: AddressBook;
  readonly #routing: RoutingTable;
  readonly #tell: (event: NewEvent) => void;
  readonly #state: StackState;
  /** Volumes that an instance was taken off. */
  readonly #idle = new Set<VolumeId>();
  /** Grace for the next stop of this run only, where somebody asked for another than the section's. */
  readonly graces = new Map<InstanceId, number>();
  /** Called once, between preparing an instance and starting it: whoever wants to see its first byte attaches here. */
  readonly beforeStart = new Map<InstanceId, () => Promise<void>>();

  constructor(
    parts: Parts,
    shared: {
      readonly engines: Engines;
      readonly engineOf: (id: InstanceId) => Engine;
      readonly sight: Sight;
      readonly book: AddressBook;
      readonly routing: RoutingTable;
      readonly tell: (event: NewEvent) => void;
    },
    state: StackState,
  ) {
    this.#parts = parts;
    this.#engines = shared.engines;
    this.#engineOf = shared.engineOf;
    this.#sight = shared.sight;
    this.#book = shared.book;
    this.#routing = shared.routing;
    this.#tell = shared.tell;
    this.#state = state;
  }

  async act(action: Action, call: Call): Promise<void> {
    switch (action.kind) {
      case "create-network":
      case "update-network":
        return await this.#convergeNetwork(action.network, call);
      case "remove-network":
        return await this.#removeNetwork(action.network, call);
      case "create-volume":
        return await this.#createVolume(action.volume, call);
      case "resize-volume":
        return void (await this.#attachVolume({ id: action.volume }, call));
      case "remove-volume":
        await this.#parts.pool.removeVolume(action.volume, call);
        return this.#sight.lostVolume(action.volume);
      case "create-instance":
        return await this.#createInstance(this.#desired(action.instance), call);
      case "start-instance":
        return await this.#startInstance(this.#desired(action.instance), call);
      case "update-instance":
        return await this.#updateInstance(this.#desired(action.instance), action.fields, call);
      case "repair-instance":
        return await this.#repairInstance(this.#desired(action.instance), call);
      case "stop-instance":
        return await this.#stopInstance(action.instance, call);
      case "suspend-instance":
        return await this.#suspendInstance(action.instance, call);
      case "revert-instance":
        return await this.#revertInstance(action.instance, call);
      case "remove-instance":
        return await this.#removeInstance(action.instance, call);
      case "remove-disk":
        return await this.#removeDisk(action.instance, action.disk, call);
      case "await-healthy":
        return;
    }
  }

  async #convergeNetwork(id: NetworkId, call: Call): Promise<void> {
    const section = this.#state.desired().networks.find((network) => network.id === id)?.section;
    if (section === undefined) throw new Fault("cancelled", `network ${id} is not wanted any more`);
    const subnet = await this.#book.subnet(id, section.subnet, this.#membersOf(id), call);
    await this.#parts.network.converge({ id, subnet, internal: section.internal }, call);
    this.#sight.sawNetwork(id, subnet, section.internal);
  }

  /** How many instances a network is made for. That of all runs stands alone, and nobody knows how many will come. */
  #membersOf(id: NetworkId): number {
    const { instances } = this.#state.desired();
    if (instances.length === 0) return sharedMembers;
    const name = id.slice(this.#state.name.length + 1);
    return instances.filter(({ section }) => section.networks.includes(name)).length;
  }

  async #removeNetwork(id: NetworkId, call: Call): Promise<void> {
    await this.#parts.network.remove(id, call);
    this.#sight.lostNetwork(id);
    await this.#book.forget(id, call);
  }

  /**
   * A new volume takes over what the image of its first user has at that place, so that user's root is attached for it,
   * as a directory, also where the engine takes another kind: making the instance replaces it.
   */
  async #createVolume(id: VolumeId, call: Call): Promise<void> {
    for (const instance of this.#state.desired().instances) {
      const mount = instance.section.mounts.find(
        (known) => known.kind === "volume" && volumeIdOf(this.#state.name, known.volume) === id,
      );
      if (mount === undefined || instance.image === undefined) continue;
      const { layers } = await this.#parts.images.get(instance.image, call);
      const root = await this.#attachRoot(instance, "directory", layers, call);
      return void (await this.#attachVolume({ id, ...seedOf(root, mount.destination) }, call));
    }
    await this.#attachVolume({ id }, call);
  }

  async #attachRoot(
    { id, section }: DesiredInstance,
    kind: Root["kind"],
    layers: RootSpec["layers"],
    call: Call,
  ): Promise<Root> {
    const { ownerUid } = this.#engines.of(section.kind).takes;
    const owner = ownerUid === undefined ? {} : { ownerUid };
    const root = await this.#parts.pool.attachRoot({ id, kind, layers, readOnly: section.readOnly, ...owner }, call);
    this.#sight.sawRoot(id, true);
    return root;
  }

  /** With the size that the stack says. */
  async #attachVolume(spec: Omit<VolumeSpec, "sizeBytes">, call: Call): Promise<AttachedVolume> {
    const { id } = spec;
    const sizeBytes = this.#state.desired().volumes.find((volume) => volume.id === id)?.section.sizeBytes;
    const size = sizeBytes === undefined ? {} : { sizeBytes };
    const volume = await this.#parts.pool.attachVolume({ ...spec, ...size }, call);
    this.#sight.sawVolume({ id, attached: true, path: volume.path, ...size });
    return volume;
  }

  /** Those that are there already cost next to nothing. */
  async #attachVolumesOf({ mounts }: DesiredInstance["section"], call: Call): Promise<void> {
    for (const mount of mounts) {
      if (mount.kind !== "volume") continue;
      await this.#attachVolume({ id: volumeIdOf(this.#state.name, mount.volume) }, call);
    }
  }

  /** Attaches all it stands on, and has its engine prepare it. Also of what is there already: it is brought up to date. */
  async #createInstance(instance: DesiredInstance, call: Call): Promise<void> {
    const { id, section } = instance;
    const engine = this.#engines.of(section.kind);
    const launch = section.kind === "vm" ? await this.#machine(instance, call) : await this.#program(instance, call);
    await engine.create(launch, call);
    const before = this.#sight.instances.get(id);
    // Preparing what has ended anew does not make it something that never ran: its restart policy still decides.
    const isKept = before?.intact === true && (before.status === "exited" || before.status === "suspended");
    const facts: InstanceFacts = isKept ? before : { id, status: "created", intact: true, limits: {} };
    this.#sight.sawInstance({ ...facts, limits: launch.limits }, engine);
    await this.#noteMade(instance, call);
  }

  /** Before anything of a new instance is on the host. One that is there has its record until it is changed. */
  async #noteBegun(instance: DesiredInstance, call: Call): Promise<void> {
    const nowMs = call.clock.nowMs();
    await this.#state.putInstance(
      instance.id,
      (known) => known ?? { restarts: 0, createdMs: nowMs, ...askedOf(instance) },
      call,
    );
  }

  /** It is what it was asked to be. Not before it is: a change that failed is a change still to be made. */
  async #noteMade(instance: DesiredInstance, call: Call): Promise<void> {
    const nowMs = call.clock.nowMs();
    const asked = askedOf(instance);
    const isNoted = (known: InstanceRecord): boolean =>
      known.section === asked.section && same(known.pinned, asked.pinned);
    await this.#state.putInstance(
      instance.id,
      (known) =>
        known !== undefined && isNoted(known) ? known : { restarts: 0, createdMs: nowMs, ...known, ...asked },
      call,
    );
  }

  /** A full machine: its disks, each a child of what it begins as, made once and then its own. */
  async #machine(instance: DesiredInstance, call: Call): Promise<MachineLaunch> {
    const { section } = instance;
    const [disks, attachment] = await Promise.all([
      attachDisks(instance, this.#engines.of(section.kind).takes.ownerUid, this.#parts, this.#sight, call),
      this.#attachNetwork(instance, call),
      this.#noteBegun(instance, call),
    ]);
    const routed = section.networks.findIndex((name) => !this.#isInternal(name));
    return await machineLaunchOf(this.#state.name, instance, { attachment, disks, routed }, this.#parts, call);
  }

  /** A program of an image: its root and its volumes. */
  async #program(instance: DesiredInstance, call: Call): Promise<ProgramLaunch> {
    const { id, section } = instance;
    const engine = this.#engines.of(section.kind);
    if (instance.image === undefined) throw new Fault("bug", `${id} has no image digest`);
    const image = await this.#parts.images.get(instance.image, call);
    const mounts = section.mounts.filter((mount) => mount.kind === "volume");
    const isNew = (volume: string): boolean => !this.#sight.volumes.has(volumeIdOf(this.#state.name, volume));
    // A new volume takes over what is in the image, which only a directory shows.
    const looksInside = engine.takes.root === "block" && mounts.some(({ volume }) => isNew(volume));
    const [first, attachment] = await Promise.all([
      this.#attachRoot(instance, looksInside ? "directory" : engine.takes.root, image.layers, call),
      this.#attachNetwork(instance, call),
      this.#noteBegun(instance, call),
    ]);
    const volumes = new Map<string, AttachedVolume>();
    for (const mount of mounts) {
      const spec = { id: volumeIdOf(this.#state.name, mount.volume), ...seedOf(first, mount.destination) };
      volumes.set(mount.volume, await this.#attachVolume(spec, call));
    }
    const root = looksInside ? await this.#attachRoot(instance, engine.takes.root, image.layers, call) : first;
    return await launchOf(this.#state.name, instance, image, { root, attachment, volumes }, this.#parts, call);
  }

  async #attachNetwork(instance: DesiredInstance, call: Call): ReturnType<Parts["network"]["attach"]> {
    const { id, section } = instance;
    const { network } = this.#parts;
    const { nic: kind, ownerUid } = this.#engines.of(section.kind).takes;
    const nics: PortSpec["nics"][number][] = [];
    for (const name of section.networks) {
      const networkId = networkIdOf(this.#state.name, name);
      const address = await this.#book.lease(id, networkId, call);
      nics.push({ network: networkId, address, names: namesOf(this.#state.name, instance) });
    }
    const hostname = section.hostname ?? displayName(instance);
    const owner = ownerUid === undefined ? {} : { tapOwnerUid: ownerUid };
    const attachment = await network.attach({ id, kind, hostname, nics, ...owner }, call);
    this.#sight.sawPort(id);
    return attachment;
  }

  async #startInstance({ id, section }: DesiredInstance, call: Call): Promise<void> {
    // Asked for when nothing ran that could be stopped: the next run is none of its business.
    this.graces.delete(id);
    const engine = this.#engineOf(id);
    const before = this.#sight.instances.get(id);
    // What was just made is on its volumes; since it was, somebody may have taken them off the host.
    if (before?.status === "exited") await this.#attachVolumesOf(section, call);
    await this.beforeStart.get(id)?.();
    this.beforeStart.delete(id);
    await engine.start(id, call);
    // Whether it can be looked at or not, it was started.
    await this.#lookAt(id, engine, call).catch(() => {});
    const facts = this.#sight.instances.get(id);
    // The engine's own event usually came first and knows the pid; a process that ended already stays ended.
    if (facts?.status !== "running" && facts?.exit?.finishedMs === before?.exit?.finishedMs) {
      this.#sight.sawInstance({
        id,
        status: "running",
        startedMs: call.clock.nowMs(),
        intact: true,
        limits: facts?.limits ?? {},
      });
    }
    if (this.#state.instance(id) !== undefined) {
      await this.#state.putInstance(
        id,
        (record) => {
          if (record === undefined) throw new Fault("cancelled", `${id} was removed meanwhile`);
          const { endedPid, ...rest } = record;
          if (endedPid !== undefined) return rest;
          return before?.status === "exited" ? { ...rest, restarts: rest.restarts + 1 } : record;
        },
        call,
      );
    }
    this.#tell({ kind: "instance.started", subject: subjectOf(id), message: `${subjectOf(id)} started` });
  }

  /** What a guest can become while it runs is known when it does. Of a container there is nothing to look for. */
  async #lookAt(id: InstanceId, engine: Engine, call: Call): Promise<void> {
    if (engine.takes.root !== "block") return;
    const facts = (await engine.list(call)).find((known) => known.id === id);
    if (facts !== undefined) this.#sight.sawInstance(facts, engine);
  }

  async #updateInstance(
    instance: DesiredInstance,
    fields: readonly (keyof InstanceSection)[],
    call: Call,
  ): Promise<void> {
    const { id, section } = instance;
    const limits = limitsOf(instance);
    const status = this.#sight.instances.get(id)?.status;
    const isUp = status === "running" || status === "frozen";
    const isPrepared = fields.some((field) => limitFields.has(field) || changeOf(section.kind, field) !== "hot");
    // What does not run gets all that its engine knows with its preparation.
    if (isPrepared && !isUp) return await this.#createInstance(instance, call);
    if (fields.includes("disks") || (section.kind === "vm" && fields.includes("networks"))) {
      const { name, hotplug } = this.#engineOf(id);
      if (hotplug === undefined) throw new Fault("unsupported", `engine ${name} cannot change disks and nics in place`);
      await hotplug.replug(await this.#machine(instance, call), call);
    }
    if (fields.some((field) => limitFields.has(field))) {
      const { name, resize } = this.#engineOf(id);
      if (resize === undefined) throw new Fault("unsupported", `engine ${name} cannot change limits in place`);
      await resize.resize(id, limits, call);
      const facts = this.#sight.instances.get(id);
      if (facts !== undefined) this.#sight.sawInstance({ ...facts, limits });
    }
    await this.#noteMade(instance, call);
  }

  /** Attaches again what went missing under it. A process keeps what it had, so it is started anew when that was lost. */
  async #repairInstance(instance: DesiredInstance, call: Call): Promise<void> {
    // A memory on disk goes on from where it was, on links that are made again.
    if (this.#sight.instances.get(instance.id)?.status !== "suspended") await this.#stopInstance(instance.id, call);
    await this.#createInstance(instance, call);
    this.#routing.invalidate();
  }

  /** Nothing new is sent to it, then it may finish what it has. */
  async #stopInstance(id: InstanceId, call: Call): Promise<void> {
    if (this.#sight.instances.get(id) === undefined) return;
    this.#routing.drop(id);
    // Where names and ports cannot be changed now, that is told and tried again elsewhere: nobody has to run on for it.
    await this.#routing.flush().catch(() => {});
    // Whoever was on the way here when others took over is still let in.
    if (this.#routing.isRelieved(id)) await call.clock.sleep(relievedMs, call.signal);
    await this.#noteEnd(id, call);
    const section = this.#state.instance(id)?.section ?? this.#state.desiredInstance(id)?.section;
    const graceMs = this.graces.get(id) ?? section?.stopGraceMs ?? defaultGraceMs;
    this.graces.delete(id);
    await this.#engineOf(id).stop(id, { signal: await this.#stopSignal(id, call), graceMs }, call);
    const facts = this.#sight.instances.get(id);
    if (facts?.status === "running" || facts?.status === "frozen" || facts?.status === "suspended") {
      const { pid: _, ...rest } = facts;
      const exit = facts.exit ?? { code: 0, oomKilled: false, finishedMs: call.clock.nowMs() };
      this.#sight.sawInstance({ ...rest, status: "exited", exit });
    }
  }

  async #suspendInstance(id: InstanceId, call: Call): Promise<void> {
    const { name, suspend } = this.#engineOf(id);
    if (suspend === undefined) throw new Fault("unsupported", `engine ${name} cannot suspend to disk`);
    this.#routing.drop(id);
    await this.#routing.flush().catch(() => {});
    await suspend.suspend(id, call);
    const facts = this.#sight.instances.get(id);
    if (facts === undefined) return;
    const { pid: _, ...rest } = facts;
    this.#sight.sawInstance({ ...rest, status: "suspended" });
  }

  /** The engine writes the mark down with the disks, so that a revert that was done is not done again. */
  async #revertInstance(id: InstanceId, call: Call): Promise<void> {
    const engine = this.#engineOf(id);
    if (engine.snapshots === undefined) throw new Fault("unsupported", `engine ${engine.name} has no snapshots`);
    const asked = this.#state.instance(id)?.revert;
    if (asked === undefined) return;
    this.#routing.drop(id);
    await this.#routing.flush().catch(() => {});
    await this.#noteEnd(id, call);
    const request = { name: asked.snapshot, mark: asked.mark };
    try {
      await engine.snapshots.revert(id, request, call);
    } catch (thrown) {
      // What is not there cannot be gone back to, however often it is tried.
      if (isFault(thrown, "not-found")) await this.#forgetRevert(id, asked.mark, call);
      throw thrown;
    }
    await this.#lookAt(id, engine, call);
    await this.#forgetRevert(id, asked.mark, call);
  }

  async #forgetRevert(id: InstanceId, mark: string, call: Call): Promise<void> {
    const isRunning = this.#sight.instances.get(id)?.status === "running";
    await this.#state.putInstance(
      id,
      (record) => {
        if (record === undefined) throw new Fault("cancelled", `${id} was removed meanwhile`);
        const { revert, endedPid, ...rest } = record;
        if (revert?.mark !== mark) return record;
        // The run that was ended for it is over; one that came with the snapshot's memory is a run of its own.
        return endedPid === undefined || isRunning ? rest : { ...rest, endedPid };
      },
      call,
    );
  }

  async #removeDisk(id: InstanceId, name: string, call: Call): Promise<void> {
    // The first disk goes with its machine, never before. While the disk is there, this is tried again.
    if (name === "root") for (const engine of this.#engines.all()) await engine.keepsake?.forget(id, call);
    await this.#parts.pool.disks?.removeDisk(id, name, call);
    this.#sight.lostDisk(id, name);
  }

  /** That we ended it is written first: who comes after a crash in between must not take it for an end of its own. */
  async #noteEnd(id: InstanceId, call: Call): Promise<void> {
    const desired = this.#state.desiredInstance(id);
    const known = this.#state.instance(id);
    if (desired === undefined || known === undefined || desired.section.restart === "always") return;
    const endedPid = this.#sight.instances.get(id)?.pid ?? 0;
    await this.#state.putInstance(id, (record) => ({ ...(record ?? known), endedPid }), call);
  }

  async #stopSignal(id: InstanceId, call: Call): Promise<string> {
    const said = this.#state.instance(id)?.section.stopSignal;
    if (said !== undefined) return said;
    const digest = this.#state.desiredInstance(id)?.image;
    const image = digest === undefined ? undefined : await this.#parts.images.get(digest, call).catch(() => undefined);
    return image?.config.stopSignal ?? "SIGTERM";
  }

  async #removeInstance(id: InstanceId, call: Call): Promise<void> {
    const { network, pool } = this.#parts;
    this.#routing.drop(id);
    for (const mount of this.#state.instance(id)?.section.mounts ?? []) {
      if (mount.kind === "volume") this.#idle.add(volumeIdOf(this.#state.name, mount.volume));
    }
    // Of what no engine tells of, each may still hold something that is half made.
    const known = this.#sight.engineOf(id);
    const engines = known === undefined ? this.#engines.all() : [known];
    await Promise.all(engines.map((engine) => engine.remove(id, call)));
    await Promise.all([network.detach(id, call), pool.removeRoot(id, call)]);
    this.#sight.lostInstance(id);
    this.graces.delete(id);
    this.beforeStart.delete(id);
    this.#book.release(id, this.#state.record?.origin === "run");
    await this.#state.removeInstance(id, call);
  }

  /** Detaches volumes that no instance of this stack is on any more; another stack's instances attach them again if need be. */
  async detachIdleVolumes(call: Call): Promise<void> {
    if (this.#idle.size === 0) return;
    for (const id of this.#state.instanceIds()) {
      for (const mount of this.#state.instance(id)?.section.mounts ?? []) {
        if (mount.kind === "volume") this.#idle.delete(volumeIdOf(this.#state.name, mount.volume));
      }
    }
    for (const id of this.#idle) {
      if (id.startsWith(`${this.#state.name}.`)) await this.#parts.pool.detachVolume(id, call);
      this.#idle.delete(id);
    }
  }

  #isInternal(network: string): boolean {
    const id = networkIdOf(this.#state.name, network);
    return this.#sight.networks.get(id)?.internal ?? false;
  }

  #desired(id: InstanceId): DesiredInstance {
    const instance = this.#state.desiredInstance(id);
    // The generation moved on between planning and acting: the next plan will not ask for this.
    if (instance === undefined) throw new Fault("cancelled", `${id} is not wanted any more`);
    return instance;
  }
}

/** What the record of an instance says of it. */
function askedOf({ id, section, secrets, files, diskImages }: DesiredInstance) {
  return { id, section, pinned: { secrets, files, ...(diskImages === undefined ? {} : { diskImages }) } };
}

function seedOf(root: Root, path: string): Pick<VolumeSpec, "seed"> {
  return root.kind === "directory" ? { seed: { rootPath: root.path, path } } : {};
}

const defaultGraceMs = 10_000;
/** A connection that the host has let through is accepted by then, unless its program is in trouble anyway. */
const relievedMs = 100;
/** Room for this many runs in the network that they share. */
const sharedMembers = 2000;
const limitFields: ReadonlySet<keyof InstanceSection> = new Set(["cpus", "memoryBytes", "pids"]);

/** `shop/web-1`, from the id alone: how events and errors name an instance. */
export function subjectOf(id: InstanceId): string {
  const [stack = "", name = "", ordinal = ""] = id.split(".");
  return `${stack}/${name}-${ordinal}`;
}
