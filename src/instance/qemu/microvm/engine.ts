import { mkdirSync, rmSync } from "node:fs";
import { basename } from "node:path";
import { availableParallelism } from "node:os";
import { backgroundCall, type Call } from "../../../base/call.ts";
import type { Probe } from "../../../base/driver.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import type { Home } from "../../../base/home.ts";
import type { InstanceId } from "../../../base/id.ts";
import { type Cgroups, emptyCgroup, findHierarchies, openCgroups, settleFreeze } from "../../../host/cgroup.ts";
import { expectConnection } from "../../../host/seqpacket.ts";
import type {
  AttachFacet,
  Engine,
  ExecFacet,
  ExecSpec,
  FreezeFacet,
  InstanceEvent,
  InstanceFacts,
  Launch,
  Limits,
  LogLine,
  LogRange,
  ProcessesFacet,
  ProcessFacts,
  ProgramLaunch,
  ResizeFacet,
  Session,
  Stats,
  StatsFacet,
  StopPolicy,
  SuspendFacet,
} from "../../contract.ts";
import { attachTo } from "../../monitor/attach.ts";
import { clearRun, removeCgroup } from "../../monitor/clear.ts";
import { type InstancePaths, type Layout, layoutOf } from "../../monitor/layout.ts";
import { keepLog, rotateLog } from "../../monitor/log-file.ts";
import { isRunning, isUp, launchToStart, Monitored, notRunning, sameLimits } from "../../monitor/monitored.ts";
import { factsOf } from "../../monitor/observe.ts";
import { launchRecord, type LaunchRecord, readRecord, writeRecord } from "../../monitor/record.ts";
import { type Runtime, type RuntimeName, runtimes } from "../../monitor/runtime.ts";
import { signalNumber } from "../../monitor/signal.ts";
import { Gate, Turns } from "../../monitor/turn.ts";
import { findAccelerator, guestPatience } from "../accelerator.ts";
import { Kits } from "../guest/kit.ts";
import { launchMessage } from "../guest/launch.ts";
import { ask } from "./control.ts";
import { execInGuest, shellPlace } from "./exec.ts";
import { withLastWords } from "./last-words.ts";
import { withFiles, writeFiles } from "./launch-files.ts";
import { elasticOf, resizeGuest } from "./resize.ts";
import { measure, tapCounters } from "./measure.ts";
import { type MachineObservation, observeMachine } from "./observe.ts";
import { type MachinePaths, machinePaths, type Started } from "./place.ts";
import { guestProcesses } from "./process-list.ts";
import { Shells } from "./shell.ts";
import { volumesCgroup } from "./volume.ts";
import { Sleep } from "./sleep.ts";
import type { Suspended } from "./suspend.ts";
import { bootTimeoutMs, handOver, hostLimits, loadMachine, type MadeAs, type Parts, resume } from "./start.ts";
import { type SavedMemory, WarmStarts } from "./warm.ts";

export interface MicrovmOptions {
  readonly home: Home;
  readonly runtime: RuntimeName;
  /** How long a guest may take until its program runs. Default: what its accelerator needs at worst. */
  readonly bootTimeoutMs?: number;
  /** Called when a guest that is being started says its first word, for whoever measures. */
  readonly onAnswer?: (id: InstanceId) => void;
}

/**
 * Programs of OCI images with a kernel of their own: QEMU in a sandbox, conmon beside it, and in the guest a first process
 * that is told what to run. As for containers this class holds no state that matters: what is there is observed anew for
 * each call.
 */
export class MicrovmEngine implements Engine {
  readonly name = "microvm";
  readonly takes = { launch: "program", root: "block", nic: "tap" } as const;
  readonly exec: ExecFacet = { exec: (id, spec, call) => this.#exec(id, spec, call) };
  readonly attach: AttachFacet = { attach: (id, call) => this.#attach(id, call) };
  readonly freeze: FreezeFacet = {
    freeze: (id, call) => this.#setFrozen(id, true, call),
    thaw: (id, call) => this.#setFrozen(id, false, call),
  };
  readonly resize: ResizeFacet = { resize: (id, limits, call) => this.#resize(id, limits, call) };
  readonly stats: StatsFacet = { stats: (id, call) => this.#stats(id, call) };
  readonly processes: ProcessesFacet = { processes: (id, call) => this.#processes(id, call) };
  readonly suspend: SuspendFacet = { suspend: (id, call) => this.#suspend(id, call) };
  readonly #home: Home;
  readonly #bootTimeoutMs: number | undefined;
  readonly #onAnswer: ((id: InstanceId) => void) | undefined;
  readonly #layout: Layout;
  readonly #runtime: Runtime;
  readonly #kits: Kits;
  readonly #turns = new Turns();
  readonly #shells = new Shells();
  readonly #warm: WarmStarts;
  readonly #sleep: Sleep;
  /** Those that are on their way to run, and how to stop that. */
  readonly #starting = new Map<InstanceId, AbortController>();
  readonly #gate = new Gate(2 * availableParallelism());
  readonly #monitored: Monitored;
  #cgroups: Cgroups | undefined;
  /** Once it is known it stays: probes ask for it each time. */
  #patience: number | undefined;

  constructor(options: MicrovmOptions) {
    this.#bootTimeoutMs = options.bootTimeoutMs;
    this.#onAnswer = options.onAnswer;
    this.#home = options.home;
    this.#runtime = runtimes[options.runtime];
    this.#layout = layoutOf(options.home, "microvm");
    this.#kits = new Kits(options.home);
    this.#warm = new WarmStarts(options.home);
    this.#monitored = new Monitored(this.#layout, {
      observe: (paths) => this.#observe(paths),
      facts: (id, paths) => this.#factsOf(id, paths),
    });
    this.#sleep = new Sleep({
      home: options.home,
      layout: this.#layout,
      cgroups: () => this.#on(),
      clear: (paths, call) => this.#clear(paths, call),
      emit: (event) => this.#monitored.emit(event),
      begin: async (launch, suspended, call) => {
        const paths = this.#layout.of(launch.id);
        await this.#load(launch, await this.#parts(launch, call), this.#observe(paths), call, suspended);
        await this.#runtime.release(launch.id, this.#layout, paths, call);
      },
    });
  }

  get patience(): number {
    this.#patience ??= guestPatience(this.#home);
    return this.#patience ?? 1;
  }

  async probe(call: Call): Promise<Probe> {
    try {
      const accelerator = await findAccelerator(this.#home, call);
      const { kernel } = await this.#kits.get(undefined, call);
      return { ok: true, detail: `${accelerator.detail}; Linux ${kernel.version}` };
    } catch (error) {
      const fault = Fault.from(error, "microvm");
      if (call.signal.aborted) throw fault;
      return { ok: false, detail: fault.message, mend: fault.hint ?? "see what QEMU says" };
    }
  }

  async create(launch: Launch, call: Call): Promise<void> {
    if (launch.kind !== "program") throw new Fault("bug", `${launch.id}: a microVM runs a program, not a machine`);
    const paths = this.#layout.of(launch.id);
    await this.#turns.take(launch.id, async () => {
      const seen = this.#observe(paths);
      const next = launchRecord(launch);
      const isSame = seen.record?.fingerprint === next.fingerprint;
      if (isUp(seen) && seen.record !== undefined && seen.monitor !== undefined) {
        if (isSame && sameLimits(seen.record.launch, launch)) return;
        throw new Fault("precondition", `change ${launch.id}: it is running`, { hint: "stop it first" });
      }
      if (isUp(seen)) await this.#clear(paths, call);
      if (!isSame) this.#sleep.forget(launch.id);
      // Tried now, so that whoever creates it hears what is wrong.
      await this.#kits.get(launch.kernelPath, call);
      mkdirSync(paths.dir, { recursive: true, mode: 0o700 });
      mkdirSync(paths.logDir, { recursive: true, mode: 0o700 });
      if (!isSame) {
        rmSync(paths.launchFile, { force: true });
        writeFiles(launch, paths);
      }
      writeRecord(paths.launchFile, next);
    });
  }

  async start(id: InstanceId, call: Call): Promise<void> {
    const paths = this.#layout.of(id);
    await this.#turns.take(id, async () => {
      const seen = this.#observe(paths);
      const isAsleep = this.#sleep.isAsleep(id);
      const launch = launchToStart(id, seen, isRunning(seen) && !isAsleep);
      if (launch === undefined) return;
      const parts = await this.#parts(launch, call);
      const abort = new AbortController();
      const starting = { ...call, signal: AbortSignal.any([call.signal, abort.signal]) };
      this.#starting.set(id, abort);
      try {
        if (!isAsleep || !(await this.#sleep.end(id, launch, starting))) await this.#run(launch, parts, starting);
      } finally {
        this.#starting.delete(id);
        this.#monitored.releasing.delete(id);
      }
      this.#monitored.exits.notify(id);
    });
  }

  /** From whatever is there to where the program runs. Nothing is left when it fails. */
  async #run(launch: ProgramLaunch, parts: Parts, call: Call): Promise<void> {
    const { id } = launch;
    const paths = this.#layout.of(id);
    const machine = machinePaths(paths);
    try {
      const seen = this.#observe(paths);
      if (!isUp(seen) || seen.monitor === undefined) await this.#load(launch, parts, seen, call);
      const isFresh = this.#observe(paths).awaitsMachine;
      if (isFresh) await this.#runtime.release(id, this.#layout, paths, call);
      this.#monitored.releasing.add(id);
      const { key, warm } = readRecord(machine.madeFile) as MadeAs;
      const message = async (): Promise<Buffer> => this.#message(launch, paths, call);
      const isAlive = (): boolean => isUp(this.#observe(paths));
      const fresh = !isFresh ? "unknown" : warm === undefined ? "booting" : "resumed";
      try {
        if (warm !== undefined) await resume(`start ${id}`, machine, warm.state, isAlive, call);
        const limitMs = this.#bootTimeoutMs ?? bootTimeoutMs(parts.accelerator, fresh);
        const onAnswer = (): void => this.#onAnswer?.(id);
        await handOver(`start ${id}`, machine, message, isAlive, { fresh, limitMs, onAnswer }, call);
      } catch (error) {
        if (warm === undefined || call.signal.aborted || isFault(error, "invalid") || isFault(error, "not-found")) {
          throw error;
        }
        // Made by another version of something, or damaged: it boots as if there were none.
        await this.#warm.forget(warm.key);
        await this.#clear(paths, call);
        return await this.#run({ ...launch, warmStart: false }, parts, call);
      }
      const startedMs = call.clock.nowMs();
      writeRecord(machine.startedFile, { startedMs } satisfies Started);
      this.#monitored.emit({ kind: "started", id, pid: this.#observe(paths).main?.pid ?? 0, startedMs });
      if (warm === undefined && key !== undefined) {
        this.#warm.learn(key, launch, parts, backgroundCall(call.clock));
      }
    } catch (error) {
      const fault = await withLastWords(error, paths.logDir);
      await this.#clear(paths, backgroundCall(call.clock));
      throw fault;
    }
  }

  async signal(id: InstanceId, signal: string, call: Call): Promise<void> {
    const number = signalNumber(signal);
    const paths = this.#layout.of(id);
    const seen = this.#observe(paths);
    if (!isRunning(seen)) throw notRunning(id, `send ${signal} to`);
    const [answer] = await ask(machinePaths(paths).controlSocket, `send ${signal} to ${id}`, `kill ${number}`, call);
    if (answer !== "ok") throw notRunning(id, `send ${signal} to`);
  }

  async stop(id: InstanceId, policy: StopPolicy, call: Call): Promise<void> {
    const number = signalNumber(policy.signal);
    const paths = this.#layout.of(id);
    this.#cancelStart(id);
    await this.#turns.idle(id);
    const cgroups = this.#on();
    const seen = this.#observe(paths);
    if (this.#sleep.isAsleep(id)) return await this.#turns.take(id, () => this.#sleep.stop(id, call));
    if (isRunning(seen)) {
      // What is frozen does not hear the signal.
      if (cgroups.freezeState(paths.cgroup) !== "thawed") cgroups.thaw(paths.cgroup);
      await this.#endProgram(id, paths, number, policy.graceMs, call);
      // The guest ends its program itself, so that what was written reaches the disk.
      if (isUp(this.#observe(paths))) await this.#endProgram(id, paths, signalNumber("SIGKILL"), settleMs, call);
    }
    await emptyCgroup(cgroups, paths.cgroup, call);
    await this.#endVolumes(paths, call);
    await this.#monitored.settled(id, call);
  }

  async remove(id: InstanceId, call: Call): Promise<void> {
    const paths = this.#layout.of(id);
    this.#cancelStart(id);
    await this.#turns.take(id, async () => {
      await this.#clear(paths, call);
      this.#sleep.forget(id);
      rmSync(paths.logDir, { recursive: true, force: true });
      rmSync(paths.dir, { recursive: true, force: true });
      this.#monitored.exits.notify(id);
    });
  }

  list(_call: Call): Promise<readonly InstanceFacts[]> {
    return Promise.resolve(this.#monitored.list());
  }

  watch(call: Call): AsyncGenerator<InstanceEvent> {
    return this.#monitored.watch(call);
  }

  logs(id: InstanceId, range: LogRange, call: Call): AsyncGenerator<LogLine> {
    return this.#monitored.logs(id, range, call);
  }

  /** A guest may take long to boot; who wants it gone does not wait for that. */
  #cancelStart(id: InstanceId): void {
    this.#starting.get(id)?.abort(new Fault("cancelled", `start ${id}: it was stopped meanwhile`));
  }

  /** Resolves when no memory is being saved: for whoever measures, or goes away. */
  async settled(): Promise<void> {
    await this.#warm.settled();
  }

  #factsOf(id: InstanceId, paths: InstancePaths): InstanceFacts {
    const seen = this.#observe(paths);
    const asleep = this.#sleep.facts(id, seen);
    if (asleep !== undefined) return asleep;
    const facts = factsOf(id, seen, paths, this.#on());
    const elastic = elasticOf(machinePaths(paths));
    // Whoever waits for a volume that nobody serves waits for ever.
    const intact = facts.intact && (!isUp(seen) || seen.volumesServed);
    return { ...facts, intact, ...(elastic === undefined ? {} : { elastic }) };
  }

  async #parts(launch: ProgramLaunch, call: Call): Promise<Parts> {
    const [accelerator, kit] = await Promise.all([
      findAccelerator(this.#home, call),
      this.#kits.get(launch.kernelPath, call),
    ]);
    return { accelerator, kernelPath: kit.kernel.path, initramfsPath: kit.initramfs.path };
  }

  /** Clears what an earlier run left and puts QEMU in its sandbox, where it waits. */
  async #load(
    launch: ProgramLaunch,
    parts: Parts,
    seen: MachineObservation,
    call: Call,
    suspended?: Suspended,
  ): Promise<void> {
    const paths = this.#layout.of(launch.id);
    if (seen.hasRun) await this.#clear(paths, call);
    rotateLog(paths.logDir, launch.log.maxBytes);
    const key = this.#warm.keyOf(launch, parts);
    const writable = launch.root.kind === "block" ? launch.root.writable : undefined;
    // One that cannot be read is as good as none.
    const warm = (): Promise<SavedMemory | undefined> =>
      key === undefined ? Promise.resolve(undefined) : this.#warm.find(key, writable, call).catch(() => undefined);
    const saved = suspended ?? (await warm());
    try {
      const loading = {
        runtime: this.#runtime,
        layout: this.#layout,
        cgroups: this.#on(),
        key,
        onVolumeEnd: () => this.#onVolumeEnd(launch.id),
      };
      const loaded = await this.#gate.pass(() => loadMachine(launch, parts, saved, loading, call));
      this.#on().adopt(this.#layout.monitorCgroup, loaded.monitor.pid);
      keepLog(paths.logDir);
      void loaded.monitorEnded.then(() => this.#monitored.monitorEnded(launch.id, loaded.monitor));
    } catch (error) {
      await this.#clear(paths, call);
      throw error;
    }
  }

  async #message(launch: ProgramLaunch, paths: InstancePaths, call: Call): Promise<Buffer> {
    const nowSeconds = call.clock.nowMs() / 1000;
    return launchMessage(withFiles(launch, paths), { nowSeconds });
  }

  /** Sends the signal and waits for the end of the guest. One that does not answer is left to who kills it. */
  async #endProgram(id: InstanceId, paths: InstancePaths, number: number, limitMs: number, call: Call): Promise<void> {
    const end = new AbortController();
    const asking = { ...call, signal: AbortSignal.any([call.signal, end.signal]) };
    const asked = ask(machinePaths(paths).controlSocket, `stop ${id}`, `kill ${number}`, asking).catch(() => []);
    await this.#monitored.exits.until(id, () => !isUp(this.#observe(paths)), limitMs, call);
    end.abort();
    await asked;
  }

  async #attach(id: InstanceId, call: Call): Promise<Session> {
    const paths = this.#layout.of(id);
    expectConnection(call);
    await this.#turns.take(id, async () => {
      const seen = this.#observe(paths);
      const launch = launchToStart(id, seen, isUp(seen));
      if (launch === undefined) return;
      // Whoever attaches before the start sees the first byte: the machine is made now and let go by `start`.
      await this.#load(launch, await this.#parts(launch, call), seen, call);
    });
    const code = this.#monitored.exitCode(id, call);
    code.catch(() => {});
    const main = { exited: code, signal: (signal: string) => this.signal(id, signal, call) };
    const session = await attachTo(id, paths, main, call);
    let wanted: string | undefined;
    // The guest's one port is for whoever hands it its launch until its program runs, and nobody waits for a size.
    const applySize = async (): Promise<void> => {
      const isReady = (): boolean => isRunning(this.#observe(paths)) || this.#observe(paths).exit !== undefined;
      await this.#monitored.exits.until(id, isReady, Infinity, call);
      const size = wanted ?? "";
      wanted = undefined;
      await ask(machinePaths(paths).controlSocket, `resize the terminal of ${id}`, `size ${size}`, call);
    };
    const resize = (columns: number, rows: number): Promise<void> => {
      const isAsked = wanted !== undefined;
      wanted = `${rows} ${columns}`;
      if (!isAsked) applySize().catch(() => {});
      return Promise.resolve();
    };
    return { ...session, resize };
  }

  async #exec(id: InstanceId, spec: ExecSpec, call: Call): Promise<Session> {
    const { paths, machine, record } = this.#runningOf(id, "run a program in");
    // It would not answer, which ends the connection that others have.
    if (this.#on().freezeState(paths.cgroup) !== "thawed") {
      throw new Fault("precondition", `run a program in ${id}: it is frozen`, { hint: "thaw it first" });
    }
    const place = shellPlace(`run a program in ${id}`, machine);
    return await execInGuest(place, machine, record.launch, spec, this.#shells, call);
  }

  async #resize(id: InstanceId, limits: Limits, call: Call): Promise<void> {
    await this.#turns.take(id, async () => {
      const { paths, machine, record } = this.#runningOf(id, "resize");
      const size = await resizeGuest(id, limits, machine, call);
      this.#on().limit(paths.cgroup, hostLimits(limits, size));
      writeRecord(paths.launchFile, { ...record, launch: { ...record.launch, limits } });
    });
  }

  async #stats(id: InstanceId, call: Call): Promise<Stats> {
    const { paths, machine, record } = this.#runningOf(id, "measure");
    const host = this.#on().counters(paths.cgroup);
    const { memoryLimitBytes: _, ...counters } = host;
    // A guest that is frozen or busy does not answer: then what it takes of the host is all there is to know.
    const isFrozen = this.#on().freezeState(paths.cgroup) !== "thawed";
    const guest = isFrozen ? {} : await measure(machine, id, call).catch(() => ({}));
    const { memoryBytes } = record.launch.limits;
    return {
      timeMs: call.clock.nowMs(),
      ...counters,
      ...(memoryBytes === undefined ? {} : { memoryLimitBytes: memoryBytes }),
      ...guest,
      ...tapCounters(record.launch),
    };
  }

  async #processes(id: InstanceId, call: Call): Promise<readonly ProcessFacts[]> {
    const { machine } = this.#runningOf(id, "list the processes of");
    return await guestProcesses(machine, id, call);
  }

  /** `precondition` when it is not running. */
  #runningOf(
    id: InstanceId,
    verb: string,
  ): { readonly paths: InstancePaths; readonly machine: MachinePaths; readonly record: LaunchRecord } {
    const paths = this.#layout.of(id);
    const seen = this.#observe(paths);
    if (!isRunning(seen) || seen.record === undefined) throw notRunning(id, verb);
    return { paths, machine: machinePaths(paths), record: seen.record };
  }

  async #suspend(id: InstanceId, call: Call): Promise<void> {
    await this.#turns.take(id, async () => {
      if (this.#sleep.isAsleep(id)) return;
      const { record } = this.#runningOf(id, "suspend");
      await this.#sleep.begin(id, record.launch, call);
    });
  }

  async #setFrozen(id: InstanceId, frozen: boolean, call: Call): Promise<void> {
    const paths = this.#layout.of(id);
    if (!isRunning(this.#observe(paths))) throw notRunning(id, frozen ? "freeze" : "thaw");
    await settleFreeze(this.#on(), paths.cgroup, frozen, call);
  }

  async #clear(paths: InstancePaths, call: Call): Promise<void> {
    const cgroups = this.#on();
    await clearRun(paths, cgroups, call);
    await this.#endVolumes(paths, call);
    rmSync(machinePaths(paths).dir, { recursive: true, force: true });
  }

  async #endVolumes(paths: InstancePaths, call: Call): Promise<void> {
    const cgroups = this.#on();
    const group = volumesCgroup(paths.cgroup);
    if (!cgroups.exists(group)) return;
    await emptyCgroup(cgroups, group, call);
    await removeCgroup(group, cgroups, call);
  }

  #onVolumeEnd(id: InstanceId): void {
    const seen = this.#observe(this.#layout.of(id));
    // With the guest all of them end.
    if (isRunning(seen) && !seen.volumesServed) this.#monitored.emit({ kind: "broken", id });
  }

  #observe(paths: InstancePaths): MachineObservation {
    const id = basename(paths.dir) as InstanceId;
    const seen = observeMachine(paths, this.#on());
    // What was put to sleep did not exit, whatever became of its QEMU.
    return this.#sleep.isAsleep(id) ? { ...seen, exit: undefined } : seen;
  }

  #on(): Cgroups {
    this.#cgroups ??= openCgroups(findHierarchies());
    return this.#cgroups;
  }
}

/** How long a guest may take to end what runs in it and to write what is in its memory to its disk. */
const settleMs = 10_000;
