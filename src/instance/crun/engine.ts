import { mkdirSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import type { Call } from "../../base/call.ts";
import type { Probe } from "../../base/driver.ts";
import { Fault } from "../../base/fault.ts";
import type { Home } from "../../base/home.ts";
import type { InstanceId } from "../../base/id.ts";
import type {
  AttachFacet,
  Engine,
  ExecFacet,
  FreezeFacet,
  InstanceEvent,
  InstanceFacts,
  Launch,
  LogLine,
  LogRange,
  ProgramLaunch,
  ProcessesFacet,
  ResizeFacet,
  StatsFacet,
  StopPolicy,
} from "../contract.ts";
import { signalProcess } from "../../host/proc.ts";
import { expectConnection } from "../../host/seqpacket.ts";
import { attachTo } from "../monitor/attach.ts";
import { type Cgroups, emptyCgroup, findHierarchies, openCgroups, settleFreeze } from "../../host/cgroup.ts";
import { clearRun } from "../monitor/clear.ts";
import type { HostFacts } from "./config.ts";
import { execIn } from "./exec.ts";
import { type InstancePaths, type Layout, layoutOf } from "../monitor/layout.ts";
import { keepLog, rotateLog } from "../monitor/log-file.ts";
import { load, type MonitorRecord } from "../monitor/conmon.ts";
import { isRunning, isUp, launchToStart, Monitored, notRunning, sameLimits } from "../monitor/monitored.ts";
import { factsOf, type Observation, observe } from "../monitor/observe.ts";
import { hostFacts, prepare, userNames, writeFiles } from "./prepare.ts";
import { probeRuntime } from "./probe.ts";
import { describeProcesses, parseNetDev } from "../monitor/process-list.ts";
import { launchRecord, type LaunchRecord, readText, writeRecord } from "../monitor/record.ts";
import { type Runtime, type RuntimeName, runtimes } from "../monitor/runtime.ts";
import { SeccompCache } from "./seccomp-cache.ts";
import { shielded } from "../monitor/shield.ts";
import { signalNumber } from "../monitor/signal.ts";
import { Gate, Turns } from "../monitor/turn.ts";

/**
 * Containers: an OCI runtime makes them, conmon stays with them, and this class holds no state that matters. What is
 * there is observed anew for each call, so another object, after the daemon was killed, goes on where this one stopped.
 * Either runtime finds, stops and removes what the other one started.
 */
export class ContainerEngine implements Engine {
  readonly name: RuntimeName;
  readonly takes = { launch: "program", root: "directory", nic: "netns" } as const;
  readonly exec: ExecFacet = { exec: async (id, spec, call) => execIn(this.#placeOf(id), spec, call) };
  readonly attach: AttachFacet = { attach: (id, call) => this.#attach(id, call) };
  readonly freeze: FreezeFacet = {
    freeze: (id, call) => this.#setFrozen(id, true, call),
    thaw: (id, call) => this.#setFrozen(id, false, call),
  };
  readonly resize: ResizeFacet = { resize: (id, limits) => this.#resize(id, limits) };
  readonly stats: StatsFacet = { stats: (id, call) => this.#stats(id, call) };
  readonly processes: ProcessesFacet = { processes: (id) => this.#processes(id) };
  readonly #home: Home;
  readonly #layout: Layout;
  readonly #runtime: Runtime;
  readonly #turns = new Turns();
  /** Starting more at once than the processors can follow only makes each of them, and everybody else, wait longer. */
  readonly #gate = new Gate(2 * availableParallelism());
  readonly #monitored: Monitored;
  readonly #seccomp: SeccompCache;
  #host: { readonly cgroups: Cgroups; readonly facts: HostFacts } | undefined;

  constructor(options: { readonly home: Home; readonly runtime: RuntimeName }) {
    this.name = options.runtime;
    this.#home = options.home;
    this.#runtime = runtimes[options.runtime];
    this.#layout = layoutOf(options.home, "container");
    this.#monitored = new Monitored(this.#layout, {
      observe: (paths) => this.#observe(paths),
      facts: (id, paths) => factsOf(id, this.#observe(paths), paths, this.#on().cgroups),
    });
    this.#seccomp = new SeccompCache(this.#layout);
  }

  probe(call: Call): Promise<Probe> {
    return probeRuntime(this.#runtime, this.#home, call);
  }

  async create(launch: Launch, call: Call): Promise<void> {
    if (launch.kind !== "program") throw new Fault("bug", `${launch.id}: a container runs a program, not a machine`);
    const paths = this.#layout.of(launch.id);
    await this.#turns.take(launch.id, async () => {
      const { cgroups, facts } = this.#on();
      const seen = observe(paths, cgroups);
      const next = launchRecord(launch);
      const isSame = seen.record?.fingerprint === next.fingerprint;
      if (isUp(seen) && seen.record !== undefined && seen.monitor !== undefined) {
        if (isSame && sameLimits(seen.record.launch, launch)) return;
        throw new Fault("precondition", `change ${launch.id}: it is running`, { hint: "stop it first" });
      }
      if (isUp(seen)) await clearRun(paths, cgroups, call);
      mkdirSync(paths.dir, { recursive: true, mode: 0o700 });
      mkdirSync(paths.logDir, { recursive: true, mode: 0o700 });
      if (!isSame) {
        rmSync(paths.launchFile, { force: true });
        writeFiles(launch, paths);
      }
      // Tried now, so that whoever creates it hears what is wrong with the image.
      await prepare(launch, paths, facts);
      writeRecord(paths.launchFile, next);
    });
  }

  async start(id: InstanceId, call: Call): Promise<void> {
    const paths = this.#layout.of(id);
    await this.#turns.take(id, async () => {
      const seen = this.#observe(paths);
      const launch = launchToStart(id, seen, isRunning(seen));
      if (launch === undefined) return;
      const isLoaded = seen.main !== undefined && seen.monitor !== undefined;
      const { pid, startedMs } = isLoaded
        ? { pid: seen.main.pid, startedMs: seen.monitor.startedMs }
        : await this.#load(launch, seen, call);
      this.#monitored.releasing.add(id);
      try {
        await runtimes[seen.monitor?.runtime ?? this.name].release(id, this.#layout, paths, call);
        this.#monitored.emit({ kind: "started", id, pid, startedMs });
      } catch (error) {
        await clearRun(paths, this.#on().cgroups, call);
        throw error;
      } finally {
        this.#monitored.releasing.delete(id);
      }
      this.#monitored.exits.notify(id);
    });
  }

  async signal(id: InstanceId, signal: string, _call: Call): Promise<void> {
    const number = signalNumber(signal);
    const seen = this.#observe(this.#layout.of(id));
    if (!isRunning(seen) || !signalProcess(seen.main, number)) throw notRunning(id, `send ${signal} to`);
  }

  async stop(id: InstanceId, policy: StopPolicy, call: Call): Promise<void> {
    const number = signalNumber(policy.signal);
    const paths = this.#layout.of(id);
    await this.#turns.idle(id);
    const { cgroups } = this.#on();
    const seen = this.#observe(paths);
    if (isRunning(seen)) {
      // What is frozen does not hear the signal.
      if (cgroups.freezeState(paths.cgroup) !== "thawed") cgroups.thaw(paths.cgroup);
      signalProcess(seen.main, number);
      await this.#monitored.exits.until(id, () => !isUp(this.#observe(paths)), policy.graceMs, call);
    }
    await emptyCgroup(cgroups, paths.cgroup, call);
    await this.#monitored.settled(id, call);
  }

  async remove(id: InstanceId, call: Call): Promise<void> {
    const paths = this.#layout.of(id);
    await this.#turns.take(id, async () => {
      await clearRun(paths, this.#on().cgroups, call);
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

  /** Clears what an earlier run left, makes the container anew, and returns the pid of its init, which waits. */
  async #load(
    launch: ProgramLaunch,
    seen: Observation,
    call: Call,
  ): Promise<{ readonly pid: number; readonly startedMs: number }> {
    const { id } = launch;
    const paths = this.#layout.of(id);
    const { cgroups, facts } = this.#on();
    cgroups.announceMove();
    if (seen.hasRun) await clearRun(paths, cgroups, call);
    const config = this.#seccomp.prepared(await prepare(launch, paths, facts), this.#runtime);
    rotateLog(paths.logDir, launch.log.maxBytes);
    try {
      const runtime = await shielded(this.#runtime, this.#layout);
      const loaded = await this.#gate.pass(() => load(id, launch, config, runtime, this.#layout, call));
      // After the runtime: it moved the container into all groups, so the kernel does this one without waiting.
      cgroups.adopt(this.#layout.monitorCgroup, loaded.monitor.pid);
      keepLog(paths.logDir);
      await this.#seccomp.learn(config, this.#runtime, paths);
      void loaded.monitorEnded.then(() => this.#monitored.monitorEnded(id, loaded.monitor));
      return { pid: loaded.pid, startedMs: loaded.monitor.startedMs };
    } catch (error) {
      await clearRun(paths, cgroups, call);
      throw error;
    }
  }

  async #attach(id: InstanceId, call: Call): ReturnType<AttachFacet["attach"]> {
    const paths = this.#layout.of(id);
    // What makes connections starts while the container is made.
    expectConnection(call);
    await this.#turns.take(id, async () => {
      const seen = this.#observe(paths);
      const launch = launchToStart(id, seen, isUp(seen));
      if (launch === undefined) return;
      // Whoever attaches before the start sees the first byte: the container is made now and let go by `start`.
      await this.#load(launch, seen, call);
    });
    const code = this.#monitored.exitCode(id, call);
    // Whoever does not ask for the code need not hear that the call was cancelled.
    code.catch(() => {});
    return attachTo(id, paths, { exited: code, signal: (signal) => this.signal(id, signal, call) }, call);
  }

  async #setFrozen(id: InstanceId, frozen: boolean, call: Call): Promise<void> {
    const { paths } = this.#runningOf(id, frozen ? "freeze" : "thaw");
    await settleFreeze(this.#on().cgroups, paths.cgroup, frozen, call);
  }

  async #resize(id: InstanceId, limits: LaunchRecord["launch"]["limits"]): Promise<void> {
    const { paths, record } = this.#runningOf(id, "resize");
    await this.#turns.take(id, async () => {
      const { cgroups } = this.#on();
      const { memoryBytes } = cgroups.counters(paths.cgroup);
      if (limits.memoryBytes !== undefined && limits.memoryBytes < memoryBytes) {
        throw new Fault(
          "precondition",
          `limit the memory of ${id} to ${limits.memoryBytes} bytes: it uses ${memoryBytes}`,
          {
            hint: "choose a higher limit, or restart it with this one",
          },
        );
      }
      cgroups.limit(paths.cgroup, limits);
      writeRecord(paths.launchFile, { ...record, launch: { ...record.launch, limits } });
    });
  }

  async #stats(id: InstanceId, call: Call): ReturnType<StatsFacet["stats"]> {
    const { paths, main } = this.#runningOf(id, "measure");
    const counters = this.#on().cgroups.counters(paths.cgroup);
    return {
      timeMs: call.clock.nowMs(),
      ...counters,
      ...parseNetDev(readText(`/proc/${main.pid}/net/dev`) ?? ""),
    };
  }

  async #processes(id: InstanceId): ReturnType<ProcessesFacet["processes"]> {
    const { paths, main } = this.#runningOf(id, "list the processes of");
    const names = await userNames(`/proc/${main.pid}/root`);
    return describeProcesses(this.#on().cgroups.pids(paths.cgroup), (uid) => names.get(uid) ?? String(uid));
  }

  #placeOf(id: InstanceId): Parameters<typeof execIn>[0] {
    const { main, record, monitor } = this.#runningOf(id, "run a program in");
    const runtime = runtimes[monitor?.runtime ?? this.name];
    return { id, main, launch: record.launch, runtime, layout: this.#layout, cgroups: this.#on().cgroups };
  }

  /** `precondition` when it is not running. */
  #runningOf(
    id: InstanceId,
    verb: string,
  ): {
    readonly paths: InstancePaths;
    readonly main: NonNullable<Observation["main"]>;
    readonly record: LaunchRecord;
    readonly monitor: MonitorRecord | undefined;
  } {
    const paths = this.#layout.of(id);
    const seen = this.#observe(paths);
    if (!isRunning(seen) || seen.record === undefined) throw notRunning(id, verb);
    return { paths, main: seen.main, record: seen.record, monitor: seen.monitor };
  }

  #observe(paths: InstancePaths): Observation {
    return observe(paths, this.#on().cgroups);
  }

  #on(): { readonly cgroups: Cgroups; readonly facts: HostFacts } {
    if (this.#host === undefined) {
      const hierarchies = findHierarchies();
      this.#host = { cgroups: openCgroups(hierarchies), facts: hostFacts(hierarchies) };
    }
    return this.#host;
  }
}
