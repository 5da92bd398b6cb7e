import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { backgroundCall, type Call, throwIfCancelled } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { Home } from "../../../base/home.ts";
import type { InstanceId } from "../../../base/id.ts";
import { findHierarchies, openCgroups } from "../../../host/cgroup.ts";
import type { InstanceFacts, MachineLaunch } from "../../contract.ts";
import { clearRun } from "../../monitor/clear.ts";
import type { InstancePaths } from "../../monitor/layout.ts";
import { isRunning, Monitored, notRunning } from "../../monitor/monitored.ts";
import { type Observation, observe } from "../../monitor/observe.ts";
import { type LaunchRecord, namesIn, readRecord } from "../../monitor/record.ts";
import { type RuntimeName, runtimes } from "../../monitor/runtime.ts";
import { Gate, Turns } from "../../monitor/turn.ts";
import type { Qmp } from "../qmp.ts";
import { thawFiles } from "./frozen-files.ts";
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
  readonly monitored: Monitored;
  readonly #runtime: RuntimeName;
  readonly #gate = new Gate(2 * availableParallelism());
  readonly #thawing = new Set<InstanceId>();
  #ground: Ground | undefined;

  constructor(options: {
    readonly home: Home;
    readonly runtime: RuntimeName;
    readonly facts: (id: InstanceId) => InstanceFacts;
  }) {
    this.home = options.home;
    this.#runtime = options.runtime;
    this.monitored = new Monitored(machineLayout(options.home), {
      observe: (paths) => this.observe(paths),
      facts: options.facts,
      names: () => this.#names(),
    });
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
    this.monitored.releasing.add(id);
    const begunMs = call.clock.nowMs();
    try {
      writePause(paths, load === undefined ? undefined : "loading");
      const started = await this.#gate.pass(() => startMachine(id, launch, shape, load !== undefined, ground, call));
      void started.monitorEnded.then(() => this.monitored.monitorEnded(id, started.monitor));
      await this.#untilAlive(id, paths, begunMs, call);
      if (load !== undefined) await this.#load(id, paths, load, call);
      this.monitored.emit({ kind: "started", id, pid: started.pid, startedMs: started.monitor.startedMs });
    } catch (error) {
      await this.clear(id, call).catch(() => {});
      throw error;
    } finally {
      this.monitored.releasing.delete(id);
    }
    this.monitored.exits.notify(id);
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
    if (this.monitored.releasing.has(id)) return;
    this.monitored.releasing.add(id);
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
    void work.catch(() => {}).finally(() => this.monitored.releasing.delete(id));
  }

  /** One that died may also have left the guest's file systems frozen. Whoever freezes them now has the turn. */
  thaw(id: InstanceId, call: Call): void {
    if (this.#thawing.has(id)) return;
    this.#thawing.add(id);
    const paths = this.ground.layout.of(id);
    const inner = backgroundCall(call.clock);
    const work = this.turns.take(id, () => thawFiles(paths, isRunning(this.observe(paths)), inner));
    void work.catch(() => {}).finally(() => this.#thawing.delete(id));
  }

  /** QEMU says what it does not like and ends, or it answers. */
  async #untilAlive(id: InstanceId, paths: MachinePaths, begunMs: number, call: Call): Promise<void> {
    try {
      using qmp = await connectTo(id, this.ground, call);
      await qmp.execute("query-status", {}, call);
    } catch (error) {
      throwIfCancelled(call);
      await this.monitored.exits.until(id, () => this.observe(paths).exit !== undefined, 5_000, call);
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

  /** What is left of a TPM is a part of its machine. What is kept without the machine is none, unless it sleeps. */
  #names(): readonly string[] {
    const { layout } = this.ground;
    const names = [layout.instancesDir, layout.logsDir].flatMap(namesIn).map((name) => name.replace(/\.tpm$/, ""));
    const asleep = namesIn(layout.keptDir).filter((name) => existsSync(layout.of(name as InstanceId).suspendedFile));
    return [...names, ...asleep];
  }

  observe(paths: InstancePaths): Seen {
    return observe<MachineLaunch>(paths, this.ground.cgroups);
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
