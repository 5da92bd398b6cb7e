import type { Call } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import { canonicalJson, sha256, type InstanceId } from "../base/id.ts";
import { parseInstanceId, shortHash } from "../base/id.ts";
import type {
  Engine,
  ExecSpec,
  FreezeFacet,
  LogLine,
  LogRange,
  ProcessFacts,
  Session,
  Stats,
} from "../instance/contract.ts";
import { defaultNetwork, type Generation, type InstanceSection, type StackSpec } from "../stack/model.ts";
import { expand } from "../stack/plan/expand.ts";
import { subjectOf } from "./actor.ts";
import type { InstanceView, Instances, Run, RunRequest } from "./contract.ts";
import { findInstance, fullName, notFound, selectInstances } from "./instance-name.ts";
import { marked } from "./mark.ts";
import { newRecord, removing, type StackRecord } from "./record.ts";
import type { Reconciler } from "./reconciler.ts";
import { fetchImage, resolveDiskImages } from "./resolve.ts";
import type { StackLoop } from "./stack-loop.ts";
import { viewOf, viewsOf } from "./view.ts";

/** The stack that holds the network which runs join when they name none. */
export const runStack = "run";

/** What people ask of instances: each verb changes desired state, or talks to the engine about what already runs. */
export class InstanceFace implements Instances {
  readonly #reconciler: Reconciler;
  #views: { readonly revision: number; readonly views: readonly InstanceView[] } | undefined;

  constructor(reconciler: Reconciler) {
    this.#reconciler = reconciler;
  }

  revision(): number {
    return this.#reconciler.revision;
  }

  list(): readonly InstanceView[] {
    const revision = this.revision();
    if (this.#views?.revision !== revision) {
      const views: InstanceView[] = [];
      for (const loop of this.#reconciler.loops()) views.push(...viewsOf(loop, this.#reconciler.shared));
      this.#views = { revision, views };
    }
    return this.#views.views;
  }

  find(name: string): InstanceView {
    return findInstance(this.list(), name);
  }

  select(name: string): readonly InstanceView[] {
    const selected = selectInstances(this.list(), name);
    if (selected.length === 0) throw notFound(this.list(), name);
    return selected;
  }

  async run(request: RunRequest, call: Call): Promise<Run> {
    const { parts } = this.#reconciler;
    const { engines } = this.#reconciler.shared;
    if (
      request.pull === "never" &&
      request.section.kind !== "vm" &&
      (await parts.images.find(request.section.image, call)) === undefined
    ) {
      throw new Fault("not-found", `image ${request.section.image} is not here, and --pull=never forbids fetching it`);
    }
    const { section } = request;
    await engines.admit([section.kind]);
    const isMachine = section.kind === "vm";
    const [image] = await Promise.all([
      isMachine ? undefined : fetchImage(section.image, request.pull === "always", parts, call),
      request.section.networks.includes(`${runStack}/${defaultNetwork}`) ? this.#openRunNetwork(call) : undefined,
    ]);
    const name = request.name ?? this.#inventName(call);
    this.#refuseTaken(name);
    this.#requireNetworks(request.section);
    const spec: StackSpec = {
      stack: name,
      networks: {},
      volumes: {},
      secrets: {},
      images: {},
      instances: { [name]: sharingVolumes(request.section) },
    };
    const images = image === undefined ? {} : { [section.image]: image.digest };
    const pinned = request.pinned ?? { ...(await resolveDiskImages(spec, parts, call)), secrets: {}, files: {} };
    const generation: Generation = { spec, images, ...pinned };
    const [instance] = expand(generation, new Set()).instances;
    if (instance === undefined) throw new Fault("bug", `run ${name} has no instance`);
    const attached: { session?: Session } = {};
    const engine = engines.of(section.kind);
    const loop = await this.#establish(name, async (loop) => {
      // Two runs of one name at once: the first has it.
      if (loop.state.record !== undefined) this.#refuseTaken(name);
      // A machine has a console, which is there when it runs.
      if (request.attach && !isMachine) {
        const attach = engine.attach ?? cannot(engine, "attach to an instance");
        loop.beforeStart(instance.id, async () => {
          attached.session ??= await attach.attach(instance.id, call);
        });
      }
      await this.#begin(loop, generation, request, call);
    });
    const view = await this.#awaitBegun(loop, instance.id, request, call);
    const session = request.attach && isMachine ? await this.#console(instance.id, call) : attached.session;
    if (session === undefined) return { instance: view };
    return {
      instance: view,
      session: request.remove ? withExit(session, this.#removed(loop, session.exited, call)) : session,
    };
  }

  async #console(id: InstanceId, call: Call): Promise<Session> {
    const engine = this.#engineOf(id);
    const console = engine.console ?? cannot(engine, "connect to a console");
    return await console.console(id, call);
  }

  /** Also by a stack that is down: a run that ends takes its stack away, and with it that one's volumes and history. */
  #refuseTaken(name: string): void {
    const record = this.#reconciler.find(name)?.state.record;
    if (record === undefined && name !== runStack) return;
    const isRun = name !== runStack && record?.origin === "run";
    const hint = isRun ? `choose another --name, or remove it: croft rm ${name}` : "choose another --name";
    throw new Fault("already-exists", `the name ${name} is taken`, { hint });
  }

  /** A run has no networks of its own: it joins those of stacks that are up. */
  #requireNetworks(section: InstanceSection): void {
    const known = [...this.#reconciler.shared.sight.networks.keys()].map((id) => id.replace(".", "/"));
    const missing = section.networks.find(
      (network) => network !== `${runStack}/${defaultNetwork}` && !known.includes(network),
    );
    if (missing === undefined) return;
    throw new Fault("not-found", `there is no network ${missing}`, {
      hint: `name one of a stack that is up: ${known.join(", ") || "there is none yet"}`,
    });
  }

  /** The exit code, when the instance that was to be removed is removed. */
  async #removed(loop: StackLoop, exited: Promise<number>, call: Call): Promise<number> {
    const code = await exited;
    await loop.until(() => (loop.erased ? true : undefined), call);
    this.#reconciler.forget(loop.state.name);
    return code;
  }

  async start(id: InstanceId, call: Call): Promise<InstanceView> {
    const loop = this.#loopOf(id);
    const status = this.#require(id).status;
    if (status !== "running" && status !== "paused") await this.#endRun(loop, id, call);
    await loop.state.change((record) => marked(record, id, "run"), call);
    loop.graceOf(id, undefined);
    loop.forgive(id);
    loop.wake();
    return await this.#until(loop, id, (view) => view.status === "running" || view.status === "paused", call);
  }

  async stop(id: InstanceId, graceMs: number | undefined, call: Call): Promise<InstanceView> {
    const loop = this.#loopOf(id);
    loop.graceOf(id, graceMs);
    await loop.state.change((record) => marked(record, id, "stop"), call);
    loop.wake();
    return await this.#until(
      loop,
      id,
      (view) => view.status === "exited" || view.status === "created" || view.status === "pending",
      call,
      ["stop-instance"],
    );
  }

  async suspend(id: InstanceId, call: Call): Promise<InstanceView> {
    const engine = this.#engineOf(id);
    if (engine.suspend === undefined) cannot(engine, "suspend to disk");
    const { status } = this.#require(id);
    if (status === "suspended") return this.#require(id);
    if (status !== "running" && status !== "paused") {
      throw new Fault("precondition", `suspend ${subjectOf(id)}: it is ${status}`, { hint: "start it first" });
    }
    const loop = this.#loopOf(id);
    await loop.state.change((record) => marked(record, id, "suspend"), call);
    loop.wake();
    return await this.#until(loop, id, (view) => view.status === "suspended", call, ["suspend-instance"]);
  }

  async restart(id: InstanceId, graceMs: number | undefined, call: Call): Promise<InstanceView> {
    const loop = this.#loopOf(id);
    // The loop leaves alone what is paused.
    if (this.#require(id).status === "paused") await this.unpause(id, call);
    loop.graceOf(id, graceMs);
    await this.#endRun(loop, id, call);
    await loop.state.change((record) => marked(record, id, "run"), call);
    loop.forgive(id);
    loop.wake();
    // The next start takes the mark away.
    const isBack = (view: InstanceView): boolean =>
      view.status === "running" && loop.state.instance(id)?.endedPid === undefined;
    return await this.#until(loop, id, isBack, call);
  }

  async kill(id: InstanceId, signal: string, call: Call): Promise<InstanceView> {
    await this.#ofRunning(id, "send a signal to", () => this.#engineOf(id).signal(id, signal, call));
    return this.#require(id);
  }

  async pause(id: InstanceId, call: Call): Promise<InstanceView> {
    await this.#ofRunning(id, "pause", () => this.#freezer(id).freeze(id, call));
    return this.#frozen(id, "frozen");
  }

  async unpause(id: InstanceId, call: Call): Promise<InstanceView> {
    await this.#ofRunning(id, "unpause", () => this.#freezer(id).thaw(id, call));
    return this.#frozen(id, "running");
  }

  async remove(id: InstanceId, force: boolean, call: Call): Promise<void> {
    const loop = this.#loopOf(id);
    const { state } = loop;
    if (state.record?.origin !== "run") {
      throw new Fault("precondition", `${subjectOf(id)} is declared by stack ${state.name}`, {
        hint: `take it out of the file and run croft up, or take the stack down: croft down ${state.name}`,
      });
    }
    const status = this.#require(id).status;
    if (!force && (status === "running" || status === "paused")) {
      throw new Fault("precondition", `${state.name} is running`, {
        hint: `stop it first (croft stop ${state.name}), or: croft rm --force ${state.name}`,
      });
    }
    // What a run wrote goes with it, the disks of a machine too; its volumes are everybody's.
    await state.change((record) => removing(record, true, call.clock.nowMs()), call);
    loop.wake();
    await loop.until(() => (loop.erased ? true : undefined), call);
    this.#reconciler.forget(state.name);
  }

  async exec(id: InstanceId, spec: ExecSpec, call: Call): Promise<Session> {
    const engine = this.#engineOf(id);
    const exec = engine.exec ?? cannot(engine, "run programs inside an instance");
    const view = this.#require(id);
    if (view.status === "paused") {
      const name = fullName(view);
      throw new Fault("precondition", `${name} is paused`, { hint: `let it go on first: croft unpause ${name}` });
    }
    return await this.#ofRunning(id, "run a program in", () => exec.exec(id, spec, call));
  }

  async attach(id: InstanceId, call: Call): Promise<Session> {
    const engine = this.#engineOf(id);
    const attach = engine.attach ?? cannot(engine, "attach to an instance");
    return await this.#ofRunning(id, "attach to", () => attach.attach(id, call));
  }

  logs(id: InstanceId, range: LogRange, call: Call): AsyncIterable<LogLine> {
    return this.#engineOf(id).logs(id, range, call);
  }

  async processes(id: InstanceId, call: Call): Promise<readonly ProcessFacts[]> {
    const engine = this.#engineOf(id);
    const processes = engine.processes ?? cannot(engine, "list processes");
    return await this.#ofRunning(id, "list the processes of", () => processes.processes(id, call));
  }

  async stats(id: InstanceId, call: Call): Promise<Stats> {
    const engine = this.#engineOf(id);
    const stats = engine.stats ?? cannot(engine, "read counters");
    return await stats.stats(id, call);
  }

  /** The run stack holds nothing but the network that runs share; it is made with the first run and stays. */
  async #openRunNetwork(call: Call): Promise<void> {
    const loop = await this.#establish(runStack, async (loop) => {
      if (loop.state.record?.status === "live") return;
      const spec: StackSpec = {
        stack: runStack,
        networks: { [defaultNetwork]: { internal: false } },
        volumes: {},
        secrets: {},
        images: {},
        instances: {},
      };
      const generation: Generation = { spec, images: {}, secrets: {}, files: {} };
      await this.#begin(loop, generation, { author: "croft", remove: false }, call);
    });
    await loop.until(() => {
      const failed = loop.failure();
      if (failed !== undefined) throw failed;
      return loop.calm || undefined;
    }, call);
  }

  /** The loop of the stack called so, new or not, when `begin` has done its work on it, with nobody else deciding about it. */
  async #establish(name: string, begin: (loop: StackLoop) => Promise<void>): Promise<StackLoop> {
    for (;;) {
      const loop = this.#reconciler.open(name);
      const isDone = await loop.state.exclusively(async () => {
        // The stack of that name went away just now: the next one is another.
        if (loop.erased) return false;
        await begin(loop);
        return true;
      });
      if (isDone) return loop;
    }
  }

  /** A stack made by `run` has one generation and no gate: it is what it is. */
  async #begin(
    loop: StackLoop,
    generation: Generation,
    request: Pick<RunRequest, "author" | "remove">,
    call: Call,
  ): Promise<void> {
    const { state } = loop;
    const number = (state.record?.newest ?? 0) + 1;
    const nowMs = call.clock.nowMs();
    const pointer: StackRecord = {
      ...newRecord(state.name),
      origin: "run",
      current: number,
      newest: number,
      status: "live",
      removeOnExit: request.remove,
      updatedMs: nowMs,
    };
    await state.addGeneration(
      {
        stack: state.name,
        number,
        digest: sha256(canonicalJson(generation)),
        generation,
        createdMs: nowMs,
        author: request.author,
        message: "",
        status: "live",
        changes: [],
      },
      call,
    );
    await state.establish(() => pointer, call);
    loop.beginGate();
    loop.wake();
  }

  async #awaitBegun(loop: StackLoop, id: InstanceId, request: RunRequest, call: Call): Promise<InstanceView> {
    const { sight } = this.#reconciler.shared;
    try {
      // Seen while it is there: what runs for a millisecond with --rm may be gone before it is asked for.
      let view: InstanceView | undefined;
      await loop.until(() => {
        const failed = loop.failure();
        if (failed !== undefined) throw failed;
        view = this.#view(id) ?? view;
        const status = sight.instances.get(id)?.status;
        return status === "running" || status === "exited" || loop.erased ? true : undefined;
      }, call);
      // Ports published by a run are there when it returns.
      if (request.section.publish.length > 0) await this.#awaitPublished(loop, call);
      view = this.#view(id) ?? view;
      if (view === undefined) throw new Fault("bug", `${id} was never seen`);
      return view;
    } catch (thrown) {
      // A run that could not begin leaves nothing behind, also when whoever asked for it has gone away.
      const { call: own } = this.#reconciler.shared;
      await loop.state.change((record) => removing(record, true, own.clock.nowMs()), own).catch(() => {});
      loop.wake();
      throw thrown;
    }
  }

  async #awaitPublished(loop: StackLoop, call: Call): Promise<void> {
    const { routing } = this.#reconciler.shared;
    await loop.until(() => (loop.calm ? true : undefined), call);
    const refused = routing.refusal(`${loop.state.name}/${loop.state.name}`);
    if (refused !== undefined) throw refused;
  }

  /** Notes that the run there is, or was, is over: what should run is then started. */
  async #endRun(loop: StackLoop, id: InstanceId, call: Call): Promise<void> {
    const known = loop.state.instance(id);
    const facts = this.#reconciler.shared.sight.instances.get(id);
    if (known === undefined || facts === undefined) return;
    await loop.state.putInstance(id, (record) => ({ ...(record ?? known), endedPid: facts.pid ?? 0 }), call);
  }

  /** Throws what a step about it fails with, of `kinds` where others do not keep it from what is waited for. */
  async #until(
    loop: StackLoop,
    id: InstanceId,
    done: (view: InstanceView) => boolean,
    call: Call,
    kinds?: Parameters<StackLoop["failureOf"]>[1],
  ): Promise<InstanceView> {
    return await loop.until(() => {
      const view = this.#view(id);
      if (view === undefined) throw new Fault("not-found", `${id} was removed meanwhile`);
      if (done(view)) return view;
      const failed = loop.failureOf(id, kinds);
      if (failed !== undefined) throw failed;
      return undefined;
    }, call);
  }

  #frozen(id: InstanceId, status: "frozen" | "running"): InstanceView {
    const { sight } = this.#reconciler.shared;
    const facts = sight.instances.get(id);
    if (facts !== undefined) sight.sawInstance({ ...facts, status });
    this.#loopOf(id).nudge();
    this.#reconciler.shared.changed();
    return this.#require(id);
  }

  /** Engines speak of ids; people are told by name what is not running, and how to change that. */
  async #ofRunning<Result>(id: InstanceId, attempted: string, work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (thrown) {
      const view = this.#require(id);
      if (!isFault(thrown, "precondition") || view.status === "running" || view.status === "paused") throw thrown;
      const name = fullName(view);
      throw new Fault("precondition", `${attempted} ${name}: it is ${view.status}`, {
        hint: `start it first: croft start ${name}`,
        cause: thrown,
      });
    }
  }

  #freezer(id: InstanceId): FreezeFacet {
    const engine = this.#engineOf(id);
    return engine.freeze ?? cannot(engine, "pause an instance");
  }

  #engineOf(id: InstanceId): Engine {
    return this.#reconciler.shared.engineOf(id);
  }

  #view(id: InstanceId): InstanceView | undefined {
    const loop = this.#reconciler.find(parseInstanceId(id)?.stack ?? "");
    return loop === undefined ? undefined : viewOf(id, loop, this.#reconciler.shared);
  }

  #require(id: InstanceId): InstanceView {
    const view = this.#view(id);
    if (view === undefined) throw new Fault("not-found", `there is no instance ${id}`);
    return view;
  }

  #loopOf(id: InstanceId): StackLoop {
    return this.#reconciler.loop(parseInstanceId(id)?.stack ?? id);
  }

  /** A name nobody has: short, pronounceable enough to type. */
  #inventName(call: Call): string {
    for (let attempt = 0; ; attempt += 1) {
      const name = `run-${shortHash(`${call.clock.nowMs()} ${process.hrtime.bigint()} ${attempt}`, 8)}`;
      if (this.#reconciler.find(name) === undefined) return name;
    }
  }
}

/** What an engine lacks, it lacks: there is no facet for it. */
export function cannot(engine: Engine, what: string): never {
  throw new Fault("unsupported", `engine ${engine.name} cannot ${what}`, {
    hint: "another kind of instance may: container, microvm, vm",
  });
}

/** A volume that a run names belongs to all runs, and outlives each of them; `shop/db` is a stack's. */
function sharingVolumes(section: InstanceSection): InstanceSection {
  const mounts = section.mounts.map((mount) =>
    mount.kind === "volume" && !mount.volume.includes("/")
      ? { ...mount, volume: `${runStack}/${mount.volume}` }
      : mount,
  );
  return { ...section, mounts };
}

/** The same session, whose end is another. */
function withExit(session: Session, exited: Promise<number>): Session {
  return {
    output: session.output,
    write: (bytes) => session.write(bytes),
    endInput: () => session.endInput(),
    resize: (columns, rows) => session.resize(columns, rows),
    signal: (signal) => session.signal(signal),
    exited,
    close: () => session.close(),
  };
}
