import type { Call, Progress } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { canonicalJson, sha256, type Digest, type VolumeId } from "../base/id.ts";
import type { Operation } from "../operation/contract.ts";
import { describeChange, diffGenerations } from "../stack/plan/diff.ts";
import { expand } from "../stack/plan/expand.ts";
import { plan } from "../stack/plan/plan.ts";
import type { Observed, Plan } from "../stack/plan/step.ts";
import type { Generation, InstanceKind, StackSpec } from "../stack/model.ts";
import type {
  ApplyOptions,
  Comparison,
  GenerationView,
  NetworkView,
  Preview,
  StackView,
  Stacks,
  Submission,
  VolumeView,
} from "./contract.ts";
import { subjectOf } from "./actor.ts";
import type { Unfit } from "./engines.ts";
import { displayName } from "./launch.ts";
import { volumeIdOf } from "./parts.ts";
import { newRecord, protectedBy, removing, type StackRecord } from "./record.ts";
import type { Reconciler } from "./reconciler.ts";
import { buildImages, resolve, resolvePreview } from "./resolve.ts";
import { stackOf } from "./sight.ts";
import type { StackLoop } from "./stack-loop.ts";
import { occupied } from "./tenant.ts";

/** How long whoever applied is kept waiting for the way back to end. The loop goes on with it. */
const wayBackMs = 60_000;

const emptySpec = { networks: {}, volumes: {}, secrets: {}, images: {}, instances: {} };
const nothing = (stack: string): Generation => ({ spec: { stack, ...emptySpec }, images: {}, secrets: {}, files: {} });
const nothingObserved: Observed = { networks: [], volumes: [], disks: [], instances: [] };

/** What people ask of stacks: each verb moves a pointer and waits for the loop. */
export class StackFace implements Stacks {
  readonly #reconciler: Reconciler;
  #views: { readonly revision: number; readonly views: readonly StackView[] } | undefined;

  constructor(reconciler: Reconciler) {
    this.#reconciler = reconciler;
  }

  async preview(submission: Submission, options: { readonly pruneVolumes: boolean }, call: Call): Promise<Preview> {
    const { spec } = submission;
    const loop = this.#reconciler.find(spec.stack);
    const before = currentOf(loop);
    const { generation, missingImages } = await resolvePreview(submission, before, this.#reconciler.parts, call);
    const unfit = await this.#reconciler.shared.engines.unfit(kindsOf(spec));
    const planned = this.#plan(loop, generation, options.pruneVolumes);
    return {
      stack: spec.stack,
      baseGeneration: loop?.state.record?.current ?? 0,
      ...(before === undefined ? {} : { before }),
      after: generation,
      plan: { ...planned, refusals: [...planned.refusals, ...unfit.map((kind) => refusalOf(kind, spec))] },
      missingImages,
    };
  }

  async apply(submission: Submission, options: ApplyOptions, call: Call): Promise<Operation> {
    const { stack } = submission.spec;
    const loop = this.#reconciler.find(stack);
    // What can be refused at once is refused before anything long begins.
    this.#checkBase(loop, stack, options);
    await this.#reconciler.shared.engines.admit(kindsOf(submission.spec));
    const preview = await this.preview(submission, options, call);
    refuse(preview.plan, stack);
    return await this.#reconciler.parts.operations.begin("stack.apply", stack, (work) =>
      this.#apply(submission, options, work),
    );
  }

  async build(submission: Submission, names: readonly string[], fresh: boolean, _call: Call): Promise<Operation> {
    const { spec } = submission;
    const wanted = names.length === 0 ? Object.keys(spec.images) : names;
    return await this.#reconciler.parts.operations.begin("image.build", spec.stack, async (work) => {
      const built = await buildImages(submission, wanted, fresh, this.#reconciler.parts, work);
      return { images: Object.fromEntries([...built].map(([name, image]) => [name, image.digest])) };
    });
  }

  async remove(stack: string, options: { readonly volumes: boolean }, _call: Call): Promise<Operation> {
    const loop = this.#reconciler.loop(stack);
    const held = options.volumes ? (loop.state.record?.protectedVolumes ?? []).map((name) => `volume ${name}`) : [];
    const instances = Object.entries(currentOf(loop)?.spec.instances ?? {}).flatMap(([name, section]) =>
      section.protect ? [name] : [],
    );
    if (held.length > 0 || instances.length > 0) {
      throw new Fault("protected", `stack ${stack} has what is protected: ${[...instances, ...held].join(", ")}`, {
        hint: "set protect = false on it, run croft up, and try again",
      });
    }
    const planned = this.#plan(loop, nothing(stack), options.volumes);
    const [tenanted] = occupied(planned, stack, this.#reconciler.loops());
    if (tenanted !== undefined) {
      const { subject, why, hint } = tenanted;
      throw new Fault("precondition", `stack ${stack} cannot be removed: ${subject}: ${why}`, { hint });
    }
    // What an update to protect = false has not reached yet is protected all the same.
    refuse(planned, stack);
    return await this.#reconciler.parts.operations.begin("stack.remove", stack, async (work) => {
      const stopListening = loop.listen((progress) => work.report(progress));
      try {
        await loop.state.exclusively(() =>
          loop.state.change((record) => removing(record, options.volumes, work.clock.nowMs()), work),
        );
        loop.beginGate();
        loop.wake();
        const end = await loop.until(() => {
          const status = loop.erased ? "erased" : loop.state.record?.status;
          if (status === "removing") this.#refuseStuck(loop, `stack ${stack} is not gone yet`);
          return status === "removing" ? undefined : (status ?? "erased");
        }, work);
        this.#reconciler.forget(stack);
        if (end === "erased" || end === "down") return { removed: true };
        throw new Fault("conflict", `the removal of ${stack} was overtaken: generation ${loop.state.record?.current}`);
      } finally {
        stopListening();
      }
    });
  }

  async rollback(stack: string, to: number | undefined, _author: string, call: Call): Promise<Operation> {
    const loop = this.#reconciler.loop(stack);
    const target = to ?? (await this.#lastLive(loop, call));
    const record = await loop.state.generation(target, call);
    if (target === loop.state.record?.current && loop.state.record.status !== "down") {
      throw new Fault("precondition", `stack ${stack} already is at generation ${target}`, {
        hint: `see: croft history ${stack}`,
      });
    }
    await this.#reconciler.shared.engines.admit(kindsOf(record.generation.spec));
    refuse(this.#plan(loop, record.generation, false), stack);
    return await this.#reconciler.parts.operations.begin("stack.rollback", stack, (work) =>
      this.#watching(loop, work, async () => {
        await loop.state.exclusively(() => this.#point(loop, target, { pruneVolumes: false }, work));
        return await this.#outcome(loop, target, work);
      }),
    );
  }

  list(): readonly StackView[] {
    const { revision } = this.#reconciler;
    if (this.#views?.revision !== revision) {
      const views: StackView[] = [];
      for (const loop of this.#reconciler.loops()) {
        if (loop.state.record !== undefined && loop.state.record.status !== "down") views.push(this.#view(loop));
      }
      views.sort((left, right) => (left.name < right.name ? -1 : 1));
      this.#views = { revision, views };
    }
    return this.#views.views;
  }

  get(stack: string): StackView {
    return this.#view(this.#reconciler.loop(stack));
  }

  async generations(stack: string, call: Call): Promise<readonly GenerationView[]> {
    const loop = this.#reconciler.loop(stack);
    const { record } = loop.state;
    return (await loop.state.generations(call)).map((generation) => ({
      number: generation.number,
      digest: generation.digest as Digest,
      createdMs: generation.createdMs,
      status: generation.status,
      current: generation.number === record?.current && record.status !== "down",
      author: generation.author,
      message: generation.message,
      changes: generation.changes,
      ...(generation.failure === undefined ? {} : { failure: generation.failure }),
    }));
  }

  async compare(stack: string, from: number, to: number, call: Call): Promise<Comparison> {
    const { state } = this.#reconciler.loop(stack);
    const last = to === 0 ? (state.record?.current ?? 0) : to;
    const first = from === 0 ? last - 1 : from;
    const after = await state.generation(last, call);
    const before = first < 1 ? undefined : await state.generation(first, call);
    return { from: first, to: last, before: before?.generation, after: after.generation };
  }

  async imagesInUse(call: Call): Promise<ReadonlyMap<Digest, readonly string[]>> {
    const users = new Map<Digest, Set<string>>();
    for (const loop of this.#reconciler.loops()) {
      for (const record of await loop.state.generations(call)) {
        const { images, diskImages = {} } = record.generation;
        for (const digest of [...Object.values(images), ...Object.values(diskImages)]) {
          const names = users.get(digest) ?? new Set<string>();
          users.set(digest, names.add(loop.state.name));
        }
      }
    }
    return new Map([...users].map(([digest, names]) => [digest, [...names]]));
  }

  async collect(call: Call): Promise<void> {
    const { files, secrets } = this.#reconciler.parts;
    const keptFiles = new Set<Digest>();
    for (const loop of this.#reconciler.loops()) {
      const keptVersions = new Map<string, Set<string>>();
      for (const { generation } of await loop.state.generations(call)) {
        for (const digest of Object.values(generation.files)) keptFiles.add(digest);
        for (const [name, version] of Object.entries(generation.secrets)) {
          keptVersions.set(name, (keptVersions.get(name) ?? new Set()).add(version));
        }
      }
      await secrets.prune(loop.state.name, keptVersions, call);
    }
    await files.collect(keptFiles, call);
  }

  networks(): readonly NetworkView[] {
    const { sight, book } = this.#reconciler.shared;
    const views: NetworkView[] = [];
    for (const [id, facts] of sight.networks) {
      const stack = stackOf(id);
      const name = id.slice(stack.length + 1);
      const members = [...book.members(id)].flatMap(([instance, address]) =>
        sight.instances.has(instance) ? [{ instance: subjectOf(instance), address }] : [],
      );
      views.push({ id, stack, name, subnet: facts.subnet, internal: facts.internal, members });
    }
    return views.sort((left, right) => (left.id < right.id ? -1 : 1));
  }

  async volumes(call: Call): Promise<readonly VolumeView[]> {
    const { volumes } = await this.#reconciler.parts.pool.list(call);
    return volumes.map((volume) => {
      const stack = stackOf(volume.id);
      const name = volume.id.slice(stack.length + 1);
      return {
        id: volume.id,
        stack,
        name,
        ...(volume.sizeBytes === undefined ? {} : { sizeBytes: volume.sizeBytes }),
        ...(volume.usedBytes === undefined ? {} : { usedBytes: volume.usedBytes }),
        protect: this.#reconciler.find(stack)?.state.record?.protectedVolumes.includes(name) ?? false,
        path: volume.path,
        usedBy: this.#usersOf(volume.id),
      };
    });
  }

  async removeVolume(id: VolumeId, call: Call): Promise<void> {
    const volume = (await this.volumes(call)).find((known) => known.id === id);
    if (volume === undefined)
      throw new Fault("not-found", `there is no volume ${volumeName(id)}`, { hint: "see: croft volume ls" });
    if (volume.protect) {
      throw new Fault("protected", `volume ${volumeName(id)} is protected`, {
        hint: "set protect = false on it, run croft up, and try again",
      });
    }
    if (volume.usedBy.length > 0) {
      throw new Fault("precondition", `volume ${volumeName(id)} is used by ${volume.usedBy.join(", ")}`, {
        hint: "take the stack down first",
      });
    }
    await this.#reconciler.parts.pool.removeVolume(id, call);
    this.#reconciler.shared.sight.lostVolume(id);
  }

  #usersOf(id: VolumeId): readonly string[] {
    const users: string[] = [];
    for (const loop of this.#reconciler.loops()) {
      for (const instance of loop.state.instanceIds()) {
        const mounts = loop.state.instance(instance)?.section.mounts ?? [];
        const uses = mounts.some(
          (mount) => mount.kind === "volume" && volumeIdOf(loop.state.name, mount.volume) === id,
        );
        if (uses) users.push(subjectOf(instance));
      }
    }
    return users;
  }

  async #apply(submission: Submission, options: ApplyOptions, call: Call): Promise<unknown> {
    const { spec } = submission;
    const before = currentOf(this.#reconciler.find(spec.stack));
    const generation = await resolve(submission, options, before, this.#reconciler.parts, call);
    for (;;) {
      const loop = this.#reconciler.open(spec.stack);
      const number = await loop.state.exclusively(async () =>
        loop.erased ? undefined : await this.#advance(loop, generation, options, "file", call),
      );
      // The stack of that name went away just now: the next one is another.
      if (number === undefined) continue;
      return await this.#watching(loop, call, async () => await this.#outcome(loop, number, call));
    }
  }

  /** Makes the generation the current one; the one that is current already when it says the same. */
  async #advance(
    loop: StackLoop,
    generation: Generation,
    options: ApplyOptions,
    origin: StackRecord["origin"],
    call: Call,
  ): Promise<number> {
    const { state } = loop;
    const { record, current } = state;
    this.#checkBase(loop, state.name, options);
    refuse(this.#plan(loop, generation, options.pruneVolumes), state.name);
    const digest = sha256(canonicalJson(generation));
    if (current?.digest === digest && (record?.status === "live" || record?.status === "applying")) {
      const { number } = current;
      const planned = this.#plan(loop, generation, options.pruneVolumes);
      const isWell = planned.steps.length === 0 && record.stopped.length === 0 && !record.suspended?.length;
      if (isWell && options.pruneVolumes === record.pruneVolumes) return number;
      // Not all is as this generation says: its gate opens again, so that whoever waits hears how it ends.
      const { pruneVolumes } = options;
      await state.change((known) => ({ ...known, pruneVolumes, stopped: [], suspended: [], status: "applying" }), call);
      if (record.status === "live") loop.beginGate();
      loop.wake();
      return number;
    }
    const number = (record?.newest ?? 0) + 1;
    await state.addGeneration(
      {
        stack: state.name,
        number,
        digest,
        generation,
        createdMs: call.clock.nowMs(),
        author: options.author,
        message: options.message,
        status: "applying",
        changes: describe(current?.generation ?? nothing(state.name), generation),
      },
      call,
    );
    await this.#point(loop, number, { pruneVolumes: options.pruneVolumes, origin, newest: number }, call);
    return number;
  }

  async #point(
    loop: StackLoop,
    number: number,
    more: { readonly pruneVolumes: boolean; readonly origin?: StackRecord["origin"]; readonly newest?: number },
    call: Call,
  ): Promise<void> {
    const { state } = loop;
    if (loop.erased) throw new Fault("not-found", `stack ${state.name} was removed meanwhile`);
    const { spec } = (await state.generation(number, call)).generation;
    const overtaken = state.record?.status === "applying" ? state.current : undefined;
    await state.establish((record) => {
      const { removal: _, removeOnExit: __, ...kept } = record ?? newRecord(state.name);
      const wasLive = record?.status === "live" ? { fallback: record.current } : {};
      return {
        ...kept,
        ...more,
        ...wasLive,
        current: number,
        status: "applying",
        stopped: [],
        suspended: [],
        protectedVolumes: protectedBy(spec, kept.protectedVolumes),
        updatedMs: call.clock.nowMs(),
      };
    }, call);
    loop.beginGate();
    loop.wake();
    if (overtaken?.status !== "applying" || overtaken.number === number) return;
    const failure = `overtaken by generation ${number} before it was healthy`;
    // Only history would know: that it cannot be written now takes nothing back.
    await state.mark(overtaken.number, { status: "failed", failure }, call).catch(() => {});
  }

  /** Waits until the gate has decided about a generation. Throws `unhealthy` when it went back, `conflict` when it was overtaken. */
  async #outcome(loop: StackLoop, number: number, call: Call): Promise<unknown> {
    const { state } = loop;
    let backSinceMs: number | undefined;
    const decided = await loop.until(() => {
      const { record } = state;
      if (record === undefined || loop.erased || record.status === "removing" || record.status === "down")
        return "removed";
      if (record.current === number && record.status === "live") {
        if (loop.calm) return "live";
        this.#refuseStuck(loop, `generation ${number} of ${state.name} is live, but not all is as it says`);
        return undefined;
      }
      if (record.current === number && record.status === "failed") return "failed";
      if (record.current === number) return undefined;
      if (loop.wentBackFrom !== number) return "overtaken";
      // It went back: that is done when what it went back to is there again. Should that be sick too, nobody waits for ever.
      backSinceMs ??= call.clock.monotonicMs();
      return loop.calm || call.clock.monotonicMs() - backSinceMs > wayBackMs ? "failed" : undefined;
    }, call);
    if (decided === "live") return { stack: state.name, generation: number };
    if (decided !== "failed") {
      throw new Fault(
        "conflict",
        `generation ${number} of ${state.name} was overtaken by ${decided === "removed" ? "its removal" : "another one"}`,
      );
    }
    const failed = await state.generation(number, call);
    const backTo = state.record?.current === number ? undefined : state.record?.current;
    const then =
      backTo === undefined
        ? "it is left as it is, for you to look at"
        : `${state.name} is back at generation ${backTo}`;
    throw new Fault(
      "unhealthy",
      `generation ${number} of ${state.name} did not become healthy; ${then}\n${failed.failure ?? ""}`.trimEnd(),
      {
        hint: `mend the file and run croft up again; see croft logs ${state.name}/ and croft history ${state.name}`,
      },
    );
  }

  /** Nobody is kept waiting for a network or volume that cannot be had or removed; the loop goes on trying. */
  #refuseStuck(loop: StackLoop, what: string): void {
    const stuck = loop.stuck();
    if (stuck === undefined) return;
    const { key, fault } = stuck;
    throw new Fault(fault.reason, `${what}: ${key}: ${fault.message}`, {
      hint: fault.hint ?? "it is tried again now and then; mend what is in its way, and give the command again",
      cause: fault,
    });
  }

  async #watching<Value>(loop: StackLoop, call: Call, work: () => Promise<Value>): Promise<Value> {
    const stopListening = loop.listen((progress: Progress) => call.report(progress));
    try {
      return await work();
    } finally {
      stopListening();
    }
  }

  #plan(loop: StackLoop | undefined, generation: Generation, removeVolumes: boolean): Plan {
    const planned = plan(expand(generation, new Set()), loop?.observed() ?? nothingObserved, { removeVolumes });
    const clashes = portClashes(generation.spec, this.#reconciler);
    const tenanted = occupied(planned, generation.spec.stack, this.#reconciler.loops());
    return { ...planned, refusals: [...planned.refusals, ...clashes, ...tenanted] };
  }

  #checkBase(loop: StackLoop | undefined, stack: string, options: ApplyOptions): void {
    const current = loop?.state.record?.current ?? 0;
    if (options.baseGeneration === undefined || options.baseGeneration === current) return;
    throw new Fault("conflict", `stack ${stack} moved to generation ${current} since the plan was made`, {
      hint: "look at the plan again: croft plan",
    });
  }

  async #lastLive(loop: StackLoop, call: Call): Promise<number> {
    const { record } = loop.state;
    const current = record?.current ?? 0;
    const last = record?.status === "down" ? current : current - 1;
    const good = (await loop.state.generations(call)).find(
      (known) => known.number <= last && (known.status === "superseded" || known.status === "live"),
    );
    if (good !== undefined) return good.number;
    throw new Fault("precondition", `stack ${loop.state.name} has no earlier healthy generation to go back to`, {
      hint: `see: croft history ${loop.state.name}`,
    });
  }

  #view(loop: StackLoop): StackView {
    const record = loop.state.record ?? newRecord(loop.state.name);
    const desired = loop.state.desired().instances;
    const { sight, health } = this.#reconciler.shared;
    let running = 0;
    let well = 0;
    for (const instance of desired) {
      const facts = sight.instances.get(instance.id);
      if (facts?.status === "running" || facts?.status === "frozen") running += 1;
      const healthy = instance.section.health === undefined || health.health(instance.id).health === "healthy";
      const ended = facts?.status === "exited" && instance.section.restart !== "always" && facts.exit?.code === 0;
      if (!instance.running || ended || (facts?.status === "running" && healthy)) well += 1;
    }
    const settled = well === desired.length ? "healthy" : "degraded";
    return {
      name: record.name,
      origin: record.origin,
      status: record.status === "live" ? settled : record.status === "down" ? "removing" : record.status,
      generation: record.current,
      wanted: desired.filter((instance) => instance.running).length,
      running,
      updatedMs: record.updatedMs,
    };
  }
}

function currentOf(loop: StackLoop | undefined): Generation | undefined {
  const down = loop?.state.record?.status === "down" || loop?.state.record?.status === "removing";
  return down ? undefined : loop?.state.current?.generation;
}

function describe(before: Generation, after: Generation): readonly string[] {
  return diffGenerations(before, after).flatMap(({ subject, kind, changes }) =>
    kind === "changed" ? changes.map((change) => `${subject}: ${describeChange(change)}`) : [`${subject} ${kind}`],
  );
}

function refuse({ refusals }: Plan, stack: string): void {
  const [first] = refusals;
  if (first === undefined) return;
  const rest = refusals.length > 1 ? ` (and ${refusals.length - 1} more)` : "";
  throw new Fault("protected", `the change to ${stack} is refused: ${first.subject}: ${first.why}${rest}`, {
    hint: first.hint,
  });
}

function kindsOf(spec: StackSpec): ReadonlySet<InstanceKind> {
  return new Set(Object.values(spec.instances).map(({ kind }) => kind));
}

/** Why the sections of a kind cannot be, as a plan tells it. */
function refusalOf({ kind, why, hint }: Unfit, spec: StackSpec): Plan["refusals"][number] {
  const names = Object.entries(spec.instances).flatMap(([name, section]) => (section.kind === kind ? [name] : []));
  return { subject: `${kind} ${names.join(", ")}`, why, hint };
}

/** Ports of this stack that another stack publishes. */
function portClashes(spec: StackSpec, reconciler: Reconciler): Plan["refusals"] {
  return Object.entries(spec.instances).flatMap(([name, section]) =>
    section.publish.flatMap((port) => {
      const holder = reconciler.shared.routing.holderOf(port, spec.stack);
      if (holder === undefined) return [];
      return [
        {
          subject: `${section.kind} ${displayName({ name, ordinal: 1, section })}`,
          why: `port ${port.hostPort}/${port.protocol} is published by ${holder}`,
          hint: `publish another port, or take ${holder} down first`,
        },
      ];
    }),
  );
}

/** `shop/db`: how people name a volume. */
function volumeName(id: VolumeId): string {
  return id.replace(".", "/");
}
