import type { Call } from "../../base/call.ts";
import type { Probe } from "../../base/driver.ts";
import { Fault } from "../../base/fault.ts";
import { canonicalJson, type InstanceId } from "../../base/id.ts";
import type {
  AttachFacet,
  Engine,
  ExecFacet,
  Exit,
  FreezeFacet,
  InstanceEvent,
  InstanceFacts,
  InstanceStatus,
  ConsoleFacet,
  ExportFacet,
  GuestFacet,
  HotplugFacet,
  KeepsakeFacet,
  Launch,
  Limits,
  LogLine,
  LogRange,
  ProcessesFacet,
  ResizeFacet,
  ScreenshotFacet,
  Session,
  SnapshotFacts,
  SnapshotsFacet,
  StatsFacet,
  StopPolicy,
  SuspendFacet,
} from "../contract.ts";
import { imitateMachine } from "./machine.ts";
import { ImitatedProcess, ImitatedSession, type Piece } from "./process.ts";

/** What outlives an engine object, as processes outlive the daemon. Hand the same one to the next engine. */
export class MemoryWorld {
  readonly instances = new Map<InstanceId, MemoryInstance>();
  /** What outlives machines, with their disks. */
  readonly keepsakes = new Map<InstanceId, Keepsake>();
  readonly listeners = new Set<(event: InstanceEvent) => void>();
  /** Why the probe of an engine fails. */
  readonly obstacles = new Map<Imitated, string>();
  /** Thrown by the next calls of these verbs, for tests of what happens then. */
  readonly faults = new Map<"create" | "start" | "stop" | "remove", Fault>();
  /** A start goes on until it is called off, as that of a guest that never gets anywhere. */
  startsForEver = false;
  lastPid = 1000;
}

export interface Keepsake {
  readonly snapshots: Map<string, SnapshotFacts>;
  /** What its firmware remembers: whose it was at first. */
  readonly firmware: string;
}

export interface MemoryInstance {
  /** Whose it is: one world has what several engines run. */
  readonly kind: Imitated;
  launch: Launch;
  readonly fingerprint: string;
  status: InstanceStatus;
  /** What it was started with: beyond that a guest cannot grow while it runs. */
  started?: Limits;
  readonly snapshots: Map<string, SnapshotFacts>;
  revertMark?: string;
  pid?: number;
  startedMs?: number;
  exit?: Exit;
  intact: boolean;
  process?: ImitatedProcess;
  readonly log: LogLine[];
  readonly changed: Set<() => void>;
  /** Attached before the start: they wait for the process. */
  readonly waiting: Set<ImitatedSession>;
}

/** What an engine of each kind takes. */
const takes = {
  container: { launch: "program", root: "directory", nic: "netns" },
  microvm: { launch: "program", root: "block", nic: "tap", ownerUid: 990 },
  vm: { launch: "machine", root: "block", nic: "tap", ownerUid: 991 },
} as const satisfies Readonly<Record<string, Engine["takes"]>>;

/** Which engine it stands for. */
export type Imitated = keyof typeof takes;

/**
 * An engine that runs nothing: for tests of what is above it, and for plans of thousands of instances. It can stand for
 * the engine of any kind, with what that one takes and has facets for.
 */
export class MemoryEngine implements Engine {
  readonly name: string;
  readonly takes: Engine["takes"];
  readonly exec?: ExecFacet;
  readonly attach?: AttachFacet;
  readonly suspend?: SuspendFacet;
  readonly snapshots?: SnapshotsFacet;
  readonly hotplug?: HotplugFacet;
  readonly console?: ConsoleFacet;
  readonly screenshot?: ScreenshotFacet;
  readonly guest?: GuestFacet;
  readonly export?: ExportFacet;
  readonly keepsake?: KeepsakeFacet;
  readonly freeze: FreezeFacet = {
    freeze: async (id) => void (this.#running(id, "freeze").status = "frozen"),
    thaw: async (id) => void (this.#running(id, "thaw").status = "running"),
  };
  readonly resize: ResizeFacet = {
    resize: async (id, limits) => {
      const instance = this.#running(id, "resize");
      refuseBeyond(instance, limits);
      if ((limits.memoryBytes ?? Infinity) < usedBytes) {
        throw new Fault("precondition", `limit the memory of ${id}: it uses ${usedBytes} bytes`);
      }
      instance.launch = { ...instance.launch, limits };
    },
  };
  readonly stats: StatsFacet = {
    stats: async (id, call) => {
      const { limits } = this.#running(id, "measure").launch;
      return {
        timeMs: call.clock.nowMs(),
        cpuNs: 0n,
        memoryBytes: usedBytes,
        ...(limits.memoryBytes === undefined ? {} : { memoryLimitBytes: limits.memoryBytes }),
        pids: 1,
        readBytes: 0,
        writtenBytes: 0,
        receivedBytes: 0,
        sentBytes: 0,
        oomKills: 0,
      };
    },
  };
  readonly processes: ProcessesFacet = {
    processes: async (id) => {
      const { pid = 0, startedMs = 0, launch } = this.#running(id, "list the processes of");
      const command = argvOf(launch).join(" ");
      return [{ pid, parentPid: 1, user: "root", cpuMs: 0, memoryBytes: usedBytes, startedMs, command }];
    },
  };
  readonly #kind: Imitated;
  readonly #world: MemoryWorld;

  constructor(world: MemoryWorld = new MemoryWorld(), kind: Imitated = "container") {
    this.#world = world;
    this.#kind = kind;
    this.name = kind === "container" ? "memory" : `memory-${kind}`;
    this.takes = takes[kind];
    if (kind !== "vm") {
      this.exec = { exec: async (id, spec, call) => this.#exec(id, spec, call) };
      this.attach = { attach: async (id) => this.#attach(id) };
    }
    if (kind !== "container") this.suspend = { suspend: async (id) => this.#suspend(id) };
    if (kind !== "vm") return;
    Object.assign(
      this,
      imitateMachine(this, (id) => this.#world.instances.get(id), this.#world.keepsakes),
    );
  }

  async probe(): Promise<Probe> {
    const obstacle = this.#world.obstacles.get(this.#kind);
    if (obstacle !== undefined) return { ok: false, detail: obstacle, mend: "mend it in the test" };
    return { ok: true, detail: "instances are imitated in memory" };
  }

  async create(launch: Launch): Promise<void> {
    const { launch: taken, root, nic } = this.takes;
    const isFit = launch.kind === taken && (launch.kind === "machine" || launch.root.kind === root);
    if (!isFit || launch.attachment.kind !== nic) {
      throw new Fault("bug", `${launch.id}: engine ${this.name} does not take what it was handed`);
    }
    this.#fail("create");
    const before = this.#world.instances.get(launch.id);
    const fingerprint = canonicalJson({ ...launch, limits: undefined });
    if (before !== undefined && isUp(before)) {
      const isSame = before.fingerprint === fingerprint;
      if (isSame && canonicalJson(before.launch.limits) === canonicalJson(launch.limits)) return;
      throw new Fault("precondition", `change ${launch.id}: it is running`, { hint: "stop it first" });
    }
    if (before !== undefined && before.fingerprint === fingerprint && before.intact) {
      before.launch = launch;
      return;
    }
    const { keepsakes } = this.#world;
    const keepsake = keepsakes.get(launch.id) ?? { snapshots: new Map<string, SnapshotFacts>(), firmware: launch.id };
    if (launch.kind === "machine") keepsakes.set(launch.id, keepsake);
    this.#world.instances.set(launch.id, {
      kind: this.#kind,
      launch,
      fingerprint,
      status: "created",
      intact: true,
      snapshots: keepsake.snapshots,
      ...(before?.revertMark === undefined ? {} : { revertMark: before.revertMark }),
      log: before?.log ?? [],
      changed: new Set(),
      waiting: new Set(),
    });
  }

  async start(id: InstanceId, call: Call): Promise<void> {
    this.#fail("start");
    const instance = this.#world.instances.get(id);
    if (instance === undefined) throw new Fault("precondition", `start ${id}: it was not created`);
    if (isUp(instance)) return;
    if (this.#world.startsForEver) await call.clock.sleep(2 ** 31 - 1, call.signal);
    this.#world.lastPid += 1;
    const { launch } = instance;
    const process = new ImitatedProcess(launch.kind === "program" && launch.stdin);
    process.listen((piece) => record(instance, piece, call));
    delete instance.exit;
    const startedMs = call.clock.nowMs();
    const started = launch.limits;
    Object.assign(instance, { status: "running", pid: this.#world.lastPid, startedMs, process, started });
    for (const session of instance.waiting) session.join(process);
    instance.waiting.clear();
    void process.exited.then((code) => this.#end(instance, process, code, call));
    this.#emit({ kind: "started", id, pid: this.#world.lastPid, startedMs });
    process.begin(argvOf(launch), call.clock);
  }

  async signal(id: InstanceId, signal: string): Promise<void> {
    this.#running(id, `send ${signal} to`).process?.signal(signal);
  }

  async stop(id: InstanceId, policy: StopPolicy, call: Call): Promise<void> {
    this.#fail("stop");
    const instance = this.#world.instances.get(id);
    const process = instance?.process;
    if (instance?.status === "suspended") {
      instance.status = "exited";
      instance.exit = { code: 0, oomKilled: false, finishedMs: call.clock.nowMs() };
    }
    if (instance === undefined || process === undefined || !isUp(instance)) return;
    process.signal(policy.signal);
    const given = new AbortController();
    const grace = call.clock.sleep(policy.graceMs, given.signal).catch(() => {});
    await Promise.race([process.exited, grace]);
    given.abort();
    process.signal("SIGKILL");
    await process.exited;
    while (isUp(instance)) await Promise.resolve();
  }

  async remove(id: InstanceId): Promise<void> {
    this.#fail("remove");
    const instance = this.#world.instances.get(id);
    if (instance === undefined) return;
    this.#world.instances.delete(id);
    instance.process?.signal("SIGKILL");
    for (const changed of instance.changed) changed();
  }

  async list(): Promise<readonly InstanceFacts[]> {
    return [...this.#world.instances.values()]
      .filter(({ kind }) => kind === this.#kind)
      .map((instance) => {
        const { launch, status, pid, startedMs, exit, intact, revertMark } = instance;
        const elastic = elasticOf(instance);
        return {
          id: launch.id,
          status,
          ...(pid === undefined ? {} : { pid }),
          ...(startedMs === undefined ? {} : { startedMs }),
          ...(exit === undefined ? {} : { exit }),
          intact,
          limits: launch.limits,
          ...(elastic === undefined ? {} : { elastic }),
          ...(revertMark === undefined ? {} : { revertMark }),
        };
      });
  }

  async *watch(call: Call): AsyncGenerator<InstanceEvent> {
    const queue: InstanceEvent[] = [];
    let wake: (() => void) | undefined;
    const hear = (event: InstanceEvent): void => {
      if (this.#world.instances.get(event.id)?.kind !== this.#kind) return;
      queue.push(event);
      wake?.();
    };
    const onAbort = (): void => wake?.();
    this.#world.listeners.add(hear);
    call.signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!call.signal.aborted) {
        for (let event = queue.shift(); event !== undefined; event = queue.shift()) yield event;
        if (queue.length === 0 && !call.signal.aborted) await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      this.#world.listeners.delete(hear);
      call.signal.removeEventListener("abort", onAbort);
    }
  }

  async *logs(id: InstanceId, range: LogRange, call: Call): AsyncGenerator<LogLine> {
    const instance = this.#world.instances.get(id);
    if (instance === undefined) throw new Fault("not-found", `read the log of ${id}: there is none`);
    const { log } = instance;
    let next = range.tail === undefined ? 0 : Math.max(0, log.length - range.tail);
    let run = instance.startedMs;
    for (;;) {
      run ??= instance.startedMs;
      const isOver = instance.status === "exited" || instance.startedMs !== run;
      const hasEnded = isOver || !this.#world.instances.has(id);
      for (let line = log[next]; line !== undefined; line = log[next]) {
        next += 1;
        if (range.sinceMs === undefined || line.timeMs >= range.sinceMs) yield line;
      }
      if (!range.follow || hasEnded || call.signal.aborted) return;
      await changeOf(instance, call.signal);
    }
  }

  #attach(id: InstanceId): Session {
    const instance = this.#world.instances.get(id);
    if (instance === undefined) throw new Fault("precondition", `attach to ${id}: it was not created`);
    const session = new ImitatedSession({ endsProcess: false });
    if (instance.process !== undefined && isUp(instance)) session.join(instance.process);
    else instance.waiting.add(session);
    return session;
  }

  #exec(id: InstanceId, spec: Parameters<ExecFacet["exec"]>[1], call: Call): Session {
    this.#running(id, "run a program in");
    const known = ["sh", "/bin/sh", "sleep", "echo", "cat", "true", "exit", "printf"];
    if (!known.includes(spec.argv[0] ?? ""))
      throw new Fault("not-found", `"${spec.argv[0]}" is not a program of the instance`);
    const process = new ImitatedProcess(spec.stdin);
    const session = new ImitatedSession({ endsProcess: true });
    session.join(process);
    process.begin(spec.argv, call.clock);
    return session;
  }

  #suspend(id: InstanceId): void {
    if (this.#world.instances.get(id)?.status === "suspended") return;
    const instance = this.#running(id, "suspend");
    const { process } = instance;
    // Nobody is told of an exit: it did not end.
    delete instance.process;
    delete instance.pid;
    instance.status = "suspended";
    process?.signal("SIGKILL");
  }

  #end(instance: MemoryInstance, process: ImitatedProcess, code: number, call: Call): void {
    if (instance.process !== process) return;
    const signal = code === 137 ? { signal: "SIGKILL" } : code === 143 ? { signal: "SIGTERM" } : {};
    instance.status = "exited";
    instance.exit = { code, ...signal, oomKilled: false, finishedMs: call.clock.nowMs() };
    delete instance.pid;
    for (const changed of instance.changed) changed();
    if (this.#world.instances.get(instance.launch.id) !== instance) return;
    this.#emit({ kind: "exited", id: instance.launch.id, exit: instance.exit });
  }

  #running(id: InstanceId, verb: string): MemoryInstance {
    const instance = this.#world.instances.get(id);
    if (instance !== undefined && isUp(instance)) return instance;
    throw new Fault("precondition", `${verb} ${id}: it is not running`, { hint: "start it first" });
  }

  #emit(event: InstanceEvent): void {
    for (const listener of this.#world.listeners) listener(event);
  }

  #fail(verb: "create" | "start" | "stop" | "remove"): void {
    const fault = this.#world.faults.get(verb);
    if (fault !== undefined) throw fault;
  }
}

/** What every imitated instance claims to use. */
const usedBytes = 2 ** 20;

/** A machine runs until it is ended. */
function argvOf(launch: Launch): readonly string[] {
  return launch.kind === "program" ? launch.argv : ["sleep", "1000000"];
}

/** A guest has the processors and the memory that it was started with, and can be given less. */
function elasticOf({ kind, started }: MemoryInstance): InstanceFacts["elastic"] {
  if (kind === "container") return undefined;
  const { cpus, memoryBytes } = started ?? {};
  return {
    ...(cpus === undefined ? {} : { cpus: { min: 0.01, max: cpus } }),
    ...(memoryBytes === undefined ? {} : { memoryBytes: { min: usedBytes, max: memoryBytes } }),
  };
}

function refuseBeyond(instance: MemoryInstance, limits: Limits): void {
  const elastic = elasticOf(instance);
  if (elastic === undefined) return;
  for (const name of ["cpus", "memoryBytes", "pids"] as const) {
    const [wanted, range] = [limits[name], elastic[name]];
    if (wanted === instance.launch.limits[name]) continue;
    if (wanted !== undefined && range !== undefined && wanted >= range.min && wanted <= range.max) continue;
    throw new Fault("precondition", `change ${name} of ${instance.launch.id}: not while it runs`);
  }
}

function isUp(instance: MemoryInstance): boolean {
  return instance.status === "running" || instance.status === "frozen";
}

function record(instance: MemoryInstance, { stream, bytes }: Piece, call: Call): void {
  const text = Buffer.from(bytes).toString("utf8");
  const partial = !text.endsWith("\n");
  const lines = partial ? text.split("\n") : text.slice(0, -1).split("\n");
  for (const [index, line] of lines.entries()) {
    const isLast = index === lines.length - 1;
    instance.log.push({ timeMs: call.clock.nowMs(), stream, bytes: Buffer.from(line), partial: partial && isLast });
  }
  for (const changed of instance.changed) changed();
}

function changeOf(instance: MemoryInstance, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      instance.changed.delete(settle);
      signal.removeEventListener("abort", settle);
      resolve();
    };
    instance.changed.add(settle);
    signal.addEventListener("abort", settle, { once: true });
  });
}

/** As if the monitor of the instance had died: for tests of repair. */
export function breakInstance(world: MemoryWorld, id: InstanceId): void {
  const instance = world.instances.get(id);
  if (instance === undefined) throw new Fault("not-found", `${id} does not exist`);
  instance.intact = false;
  for (const listener of world.listeners) listener({ kind: "broken", id });
}
