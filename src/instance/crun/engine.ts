import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import type { Probe } from "../../base/driver.ts";
import { Fault } from "../../base/fault.ts";
import type { Home } from "../../base/home.ts";
import { type InstanceId, parseInstanceId } from "../../base/id.ts";
import { errnoOf, hostFault } from "../../host/errno.ts";
import { signalProcess } from "../../host/proc.ts";
import type { Engine, InstanceEvent, InstanceFacts, Launch, LogLine, LogRange, StopPolicy } from "../contract.ts";
import { type Cgroups, emptyCgroup, findHierarchies, openCgroups } from "./cgroup.ts";
import type { HostFacts } from "./config.ts";
import { ExitWatch } from "./exit-watch.ts";
import { type InstancePaths, type Layout, layoutOf } from "./layout.ts";
import { keepLog, readLog, rotateLog } from "./log-file.ts";
import { load } from "./monitor.ts";
import { factsOf, type Observation, observe } from "./observe.ts";
import { OomWatch } from "./oom-watch.ts";
import { hostFacts, prepare, writeFiles } from "./prepare.ts";
import { launchRecord, writeRecord } from "./record.ts";
import { type Runtime, type RuntimeName, runtimes } from "./runtime.ts";
import { sendSignal, signalNumber } from "./signal.ts";
import { Turns } from "./turn.ts";

/** How often `watch` looks whether conmon began a new log file. */
const logLookMs = 5_000;

/**
 * Containers: an OCI runtime makes them, conmon stays with them, and this class holds no state that matters. What is
 * there is observed anew for each call, so another object, after the daemon was killed, goes on where this one stopped.
 */
export class ContainerEngine implements Engine {
  readonly name: RuntimeName;
  readonly takes = { root: "directory", nic: "netns" } as const;
  readonly #layout: Layout;
  readonly #runtime: Runtime;
  readonly #turns = new Turns();
  readonly #exits: ExitWatch;
  readonly #listeners = new Set<(event: InstanceEvent) => void>();
  #host: { readonly cgroups: Cgroups; readonly facts: HostFacts } | undefined;

  constructor(options: { readonly home: Home; readonly runtime: RuntimeName }) {
    this.name = options.runtime;
    this.#runtime = runtimes[options.runtime];
    this.#layout = layoutOf(options.home, options.runtime);
    this.#exits = new ExitWatch(this.#layout.exitDir);
  }

  async probe(_call: Call): Promise<Probe> {
    return { ok: true, detail: "" };
  }

  async create(launch: Launch, call: Call): Promise<void> {
    const paths = this.#layout.of(launch.id);
    await this.#turns.take(launch.id, async () => {
      const seen = this.#observe(paths);
      const record = launchRecord(launch);
      if (isUp(seen) && seen.record !== undefined && seen.monitor !== undefined) {
        if (seen.record.fingerprint === record.fingerprint) return;
        throw new Fault("precondition", `change ${launch.id}: it is running`, { hint: "stop it first" });
      }
      if (isUp(seen)) await this.#clear(paths, call);
      mkdirSync(paths.dir, { recursive: true, mode: 0o700 });
      mkdirSync(paths.logDir, { recursive: true, mode: 0o700 });
      if (seen.record?.fingerprint !== record.fingerprint) {
        rmSync(paths.launchFile, { force: true });
        writeFiles(launch, paths);
      }
      // Tried now, so that whoever creates it hears what is wrong with the image.
      await prepare(launch, paths, this.#on().facts);
      if (seen.record?.fingerprint !== record.fingerprint) writeRecord(paths.launchFile, record);
    });
  }

  async start(id: InstanceId, call: Call): Promise<void> {
    const paths = this.#layout.of(id);
    await this.#turns.take(id, async () => {
      const seen = this.#observe(paths);
      if (seen.record === undefined) throw notCreated(id, "start");
      if (seen.main !== undefined && !seen.awaitsRelease) {
        if (seen.monitor !== undefined) return;
        throw new Fault("precondition", `start ${id}: it runs, but its monitor was killed`, {
          hint: "remove it and create it again",
        });
      }
      const pid =
        seen.main !== undefined && seen.monitor !== undefined ? seen.main.pid : await this.#load(id, seen, call);
      try {
        await this.#runtime.release(id, this.#layout, paths, call);
      } catch (error) {
        await this.#clear(paths, call);
        throw error;
      }
      this.#emit({ kind: "started", id, pid });
    });
  }

  async signal(id: InstanceId, signal: string, _call: Call): Promise<void> {
    const number = signalNumber(signal);
    const { main, awaitsRelease } = this.#observe(this.#layout.of(id));
    if (main === undefined || awaitsRelease || !sendSignal(main, number)) throw notRunning(id, `send ${signal} to`);
  }

  async stop(id: InstanceId, policy: StopPolicy, call: Call): Promise<void> {
    const number = signalNumber(policy.signal);
    const paths = this.#layout.of(id);
    await this.#turns.idle(id);
    const { cgroups } = this.#on();
    const seen = this.#observe(paths);
    if (seen.main !== undefined && !seen.awaitsRelease) {
      // What is frozen does not hear the signal.
      if (cgroups.isFrozen(paths.cgroup)) cgroups.thaw(paths.cgroup);
      sendSignal(seen.main, number);
      await this.#exits.until(id, () => !isUp(this.#observe(paths)), policy.graceMs, call);
    }
    await emptyCgroup(cgroups, paths.cgroup, call);
    // The exit code is worth a moment, if there is somebody to write it.
    const settled = (): boolean => {
      const now = this.#observe(paths);
      return now.monitor === undefined || now.exit !== undefined || !now.hasRun;
    };
    await this.#exits.until(id, settled, 5_000, call);
  }

  async remove(id: InstanceId, call: Call): Promise<void> {
    const paths = this.#layout.of(id);
    await this.#turns.take(id, async () => {
      await this.#clear(paths, call);
      rmSync(paths.logDir, { recursive: true, force: true });
      rmSync(paths.dir, { recursive: true, force: true });
      this.#exits.notify(id);
    });
  }

  async list(_call: Call): Promise<readonly InstanceFacts[]> {
    const names = new Set([...namesIn(this.#layout.instancesDir), ...namesIn(this.#layout.logsDir)]);
    const { cgroups } = this.#on();
    return [...names]
      .filter((name): name is InstanceId => parseInstanceId(name) !== undefined)
      .map((id) => {
        const paths = this.#layout.of(id);
        return factsOf(id, observe(paths, cgroups), paths, cgroups);
      });
  }

  async *watch(call: Call): AsyncGenerator<InstanceEvent> {
    const queue: InstanceEvent[] = [];
    let wake = (): void => {};
    const push = (event: InstanceEvent): void => {
      queue.push(event);
      wake();
    };
    const oom = new OomWatch(this.#layout, (id) => push({ kind: "oom", id }));
    const onEvent = (event: InstanceEvent): void => {
      if (event.kind === "started") oom.add(event.id);
      push(event);
    };
    const stopListening = this.#exits.listen((name) => {
      if (parseInstanceId(name) === undefined) return;
      const id = name as InstanceId;
      const { exit, main } = this.#observe(this.#layout.of(id));
      if (exit === undefined || main !== undefined) return;
      oom.drop(id);
      push({ kind: "exited", id, exit });
    });
    this.#listeners.add(onEvent);
    const onAbort = (): void => wake();
    call.signal.addEventListener("abort", onAbort, { once: true });
    try {
      for (const facts of await this.list(call)) if (facts.status === "running") oom.add(facts.id);
      let lookedMs = call.clock.monotonicMs();
      while (!call.signal.aborted) {
        const pushed = new Promise<void>((resolve) => (wake = resolve));
        for (let event = queue.shift(); event !== undefined; event = queue.shift()) yield event;
        if (queue.length > 0 || call.signal.aborted) continue;
        const cancelTick = call.clock.after(Math.max(0, lookedMs + logLookMs - call.clock.monotonicMs()), () => wake());
        await pushed;
        cancelTick();
        if (call.clock.monotonicMs() - lookedMs < logLookMs) continue;
        lookedMs = call.clock.monotonicMs();
        for (const name of namesIn(this.#layout.logsDir)) keepLog(join(this.#layout.logsDir, name));
      }
    } finally {
      call.signal.removeEventListener("abort", onAbort);
      this.#listeners.delete(onEvent);
      stopListening();
      oom.close();
    }
  }

  async *logs(id: InstanceId, range: LogRange, call: Call): AsyncGenerator<LogLine> {
    const paths = this.#layout.of(id);
    if (!existsSync(paths.logDir)) throw new Fault("not-found", `read the log of ${id}: there is none`);
    const ended = (): boolean => !existsSync(paths.dir) || this.#observe(paths).exit !== undefined;
    const woken = (look: () => void): (() => void) => {
      return this.#exits.listen((name) => {
        if (name === id) look();
      });
    };
    yield* readLog(paths.logDir, range, ended, woken, call);
  }

  /** Clears what an earlier run left, makes the container anew, and returns the pid of its init, which waits. */
  async #load(id: InstanceId, seen: Observation, call: Call): Promise<number> {
    const paths = this.#layout.of(id);
    if (seen.record === undefined) throw notCreated(id, "start");
    if (seen.hasRun) await this.#clear(paths, call);
    const { cgroups, facts } = this.#on();
    const launch = { ...seen.record.launch, limits: seen.record.limits };
    const config = await prepare(launch, paths, facts);
    rotateLog(paths.logDir, launch.log.maxBytes);
    try {
      const loaded = await load(id, launch, config, this.#runtime, this.#layout, call);
      cgroups.adopt(this.#layout.monitorCgroup, loaded.monitor.pid);
      keepLog(paths.logDir);
      void loaded.monitorEnded.then(() => this.#onMonitorEnd(id, paths));
      return loaded.pid;
    } catch (error) {
      await this.#clear(paths, call);
      throw error;
    }
  }

  /** Ends whatever is left of a run and removes all of it but logs and preparation. From any half-made state. */
  async #clear(paths: InstancePaths, call: Call): Promise<void> {
    const { cgroups } = this.#on();
    const { monitor, main } = observe(paths, cgroups);
    if (monitor !== undefined && main === undefined) signalProcess(monitor, "SIGKILL");
    await emptyCgroup(cgroups, paths.cgroup, call);
    if (monitor !== undefined) signalProcess(monitor, "SIGKILL");
    await this.#removeCgroup(paths.cgroup, call);
    for (const path of [paths.stateDir, paths.socketLink, paths.exitFile, paths.bundleDir]) {
      rmSync(path, { recursive: true, force: true });
    }
  }

  async #removeCgroup(path: string, call: Call): Promise<void> {
    const { cgroups } = this.#on();
    for (let tries = 0; ; tries += 1) {
      try {
        return cgroups.remove(path);
      } catch (error) {
        // A process that was just killed still counts for a moment.
        if (errnoOf(error) !== "EBUSY" || tries === 100) throw error;
        await emptyCgroup(cgroups, path, call);
        await call.clock.sleep(Math.min(1 + tries, 20), call.signal);
      }
    }
  }

  #onMonitorEnd(id: InstanceId, paths: InstancePaths): void {
    if (isUp(this.#observe(paths))) this.#emit({ kind: "broken", id });
  }

  #observe(paths: InstancePaths): Observation {
    return observe(paths, this.#on().cgroups);
  }

  #emit(event: InstanceEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #on(): { readonly cgroups: Cgroups; readonly facts: HostFacts } {
    if (this.#host === undefined) {
      const hierarchies = findHierarchies();
      this.#host = { cgroups: openCgroups(hierarchies), facts: hostFacts(hierarchies) };
    }
    return this.#host;
  }
}

/** A process of it is there, running or waiting to be let go. */
function isUp(seen: Observation): boolean {
  return seen.main !== undefined;
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw hostFault(error, `list ${directory}`);
  }
}

function notCreated(id: InstanceId, verb: string): Fault {
  return new Fault("precondition", `${verb} ${id}: it was not created`, { hint: "create it first" });
}

function notRunning(id: InstanceId, verb: string): Fault {
  return new Fault("precondition", `${verb} ${id}: it is not running`, { hint: "start it first" });
}
