import { availableParallelism } from "node:os";
import { type Call, throwIfCancelled } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { Home } from "../../../base/home.ts";
import type { InstanceId } from "../../../base/id.ts";
import { findHierarchies, openCgroups } from "../../../host/cgroup.ts";
import type { InstanceEvent, MachineLaunch } from "../../contract.ts";
import { clearRun } from "../../monitor/clear.ts";
import type { MonitorRecord } from "../../monitor/conmon.ts";
import { ExitWatch } from "../../monitor/exit-watch.ts";
import { type Observation, observe } from "../../monitor/observe.ts";
import { type LaunchRecord, readRecord } from "../../monitor/record.ts";
import { type RuntimeName, runtimes } from "../../monitor/runtime.ts";
import { Gate, Turns } from "../../monitor/turn.ts";
import type { Qmp } from "../qmp.ts";
import { machineLayout, type MachinePaths } from "./places.ts";
import { type Hands, readPause, writePause } from "./saved-state.ts";
import type { Shape } from "./shape.ts";
import { connectTo, type Ground, lastWords, startFault, startMachine } from "./start.ts";
import { clearTpm } from "./tpm.ts";

export type Seen = Observation<MachineLaunch>;

/**
 * The runs of machines: starts and ends them, one verb of an instance after the other, and finds what is there. What it
 * knows besides is who listens, and which starts are not told yet.
 */
export class Runs implements Hands {
  readonly home: Home;
  readonly turns = new Turns();
  readonly exits: ExitWatch;
  readonly listeners = new Set<(event: InstanceEvent) => void>();
  /** Started, but not told so yet: an exit that is found meanwhile has to wait for its turn. */
  readonly starting = new Set<InstanceId>();
  readonly #runtime: RuntimeName;
  readonly #gate = new Gate(2 * availableParallelism());
  #ground: Ground | undefined;

  constructor(options: { readonly home: Home; readonly runtime: RuntimeName }) {
    this.home = options.home;
    this.#runtime = options.runtime;
    this.exits = new ExitWatch(machineLayout(options.home).exitDir);
  }

  runLoaded(
    id: InstanceId,
    launch: MachineLaunch,
    shape: Shape,
    load: (qmp: Qmp) => Promise<void>,
    call: Call,
  ): Promise<void> {
    return this.run(id, launch, shape, load, call);
  }

  /**
   * Starts QEMU, sees that it came to life, and tells it. With `load` the machine stands still until that is done. Nothing
   * of it is left when this throws.
   */
  async run(
    id: InstanceId,
    launch: MachineLaunch,
    shape: Shape,
    load: ((qmp: Qmp) => Promise<void>) | undefined,
    call: Call,
  ): Promise<void> {
    const ground = this.ground;
    const paths = ground.layout.of(id);
    this.starting.add(id);
    const begunMs = call.clock.nowMs();
    try {
      writePause(paths, load === undefined ? undefined : "loading");
      const started = await this.#gate.pass(() => startMachine(id, launch, shape, load !== undefined, ground, call));
      void started.monitorEnded.then(() => this.#onMonitorEnd(id, started.monitor));
      await this.#untilAlive(id, paths, begunMs, call);
      if (load !== undefined) await this.#load(id, paths, load, call);
      this.#emit({ kind: "started", id, pid: started.pid, startedMs: started.monitor.startedMs });
    } catch (error) {
      await this.clear(id, call).catch(() => {});
      throw error;
    } finally {
      this.starting.delete(id);
    }
    this.exits.notify(id);
  }

  async #load(id: InstanceId, paths: MachinePaths, load: (qmp: Qmp) => Promise<void>, call: Call): Promise<void> {
    using qmp = await connectTo(id, this.ground, call);
    await load(qmp);
    writePause(paths, "loaded");
    await qmp.execute("cont", {}, call);
    writePause(paths, undefined);
  }

  /** A daemon that died may have left a machine at its first instruction: finishes what it was about to do, or undoes it. */
  goOn(id: InstanceId, call: Call): void {
    if (this.starting.has(id)) return;
    this.starting.add(id);
    const work = this.turns.take(id, async () => {
      const paths = this.ground.layout.of(id);
      const pause = readPause(paths);
      if (pause === "loading") await this.clear(id, call);
      else if (pause === "loaded" && isRunning(this.observe(paths))) {
        using qmp = await connectTo(id, this.ground, call);
        await qmp.execute("cont", {}, call);
      }
      writePause(paths, undefined);
    });
    // What failed is found, and tried again, by the next look.
    void work.catch(() => {}).finally(() => this.starting.delete(id));
  }

  /** QEMU says what it does not like and ends, or it answers. */
  async #untilAlive(id: InstanceId, paths: MachinePaths, begunMs: number, call: Call): Promise<void> {
    try {
      using qmp = await connectTo(id, this.ground, call);
      await qmp.execute("query-status", {}, call);
    } catch (error) {
      throwIfCancelled(call);
      await this.exits.until(id, () => this.observe(paths).exit !== undefined, 5_000, call);
      const { exit } = this.observe(paths);
      // A guest may be as quick as that.
      if (exit?.code === 0) return;
      if (exit === undefined) throw error;
      throw startFault(id, await lastWords(paths, begunMs, call), exit.code);
    }
  }

  /** `not-found` when there is none, or only what is left of one. */
  machineOf(
    id: InstanceId,
    verb: string,
  ): { readonly launch: MachineLaunch; readonly shape?: Shape; readonly isRunning: boolean } {
    const paths = this.ground.layout.of(id);
    const seen = this.observe(paths);
    if (seen.record === undefined) throw new Fault("not-found", `${verb} ${id}: there is no such machine`);
    const { launch } = seen.record;
    if (!isRunning(seen)) return { launch, isRunning: false };
    return { launch, shape: readRecord(paths.shapeFile) as Shape, isRunning: true };
  }

  /** What is frozen answers nobody. */
  requireThawed(id: InstanceId, verb: string): void {
    const { layout, cgroups } = this.ground;
    if (cgroups.freezeState(layout.of(id).cgroup) === "thawed") return;
    throw new Fault("precondition", `${verb} ${id}: it is frozen`, { hint: "thaw it first" });
  }

  /** Ends whatever is left of a run. */
  async clear(id: InstanceId, call: Call): Promise<void> {
    const { layout, cgroups } = this.ground;
    await clearRun(layout.of(id), cgroups, call);
    await clearTpm(id, layout, cgroups, call);
  }

  /** `precondition` when it is not running. */
  runningOf(
    id: InstanceId,
    verb: string,
  ): {
    readonly paths: MachinePaths;
    readonly main: NonNullable<Seen["main"]>;
    readonly record: LaunchRecord<MachineLaunch>;
  } {
    const paths = this.ground.layout.of(id);
    const seen = this.observe(paths);
    if (!isRunning(seen) || seen.record === undefined) throw notRunning(id, verb);
    return { paths, main: seen.main, record: seen.record };
  }

  /** The monitor of a run that is over ends, too. Alone it was killed, and the instance needs repair. */
  #onMonitorEnd(id: InstanceId, monitor: MonitorRecord): void {
    const seen = this.observe(this.ground.layout.of(id));
    if (seen.main === undefined) return;
    if (seen.monitor === undefined || seen.monitor.pid === monitor.pid) this.#emit({ kind: "broken", id });
  }

  observe(paths: MachinePaths): Seen {
    return observe<MachineLaunch>(paths, this.ground.cgroups);
  }

  #emit(event: InstanceEvent): void {
    for (const listener of this.listeners) listener(event);
  }

  get ground(): Ground {
    this.#ground ??= {
      home: this.home,
      layout: machineLayout(this.home),
      cgroups: openCgroups(findHierarchies()),
      runtime: runtimes[this.#runtime],
    };
    return this.#ground;
  }
}

export function isRunning(seen: Seen): seen is Seen & { readonly main: NonNullable<Seen["main"]> } {
  return seen.main !== undefined && !seen.awaitsRelease;
}

export function notRunning(id: InstanceId, verb: string): Fault {
  return new Fault("precondition", `${verb} ${id}: it is not running`, { hint: "start it first" });
}
