import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { backgroundCall, type Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { Home } from "../../../base/home.ts";
import type { InstanceId } from "../../../base/id.ts";
import { type Cgroups, settleFreeze } from "../../../host/cgroup.ts";
import type { InstanceEvent, InstanceFacts, ProgramLaunch } from "../../contract.ts";
import type { InstancePaths, Layout } from "../../monitor/layout.ts";
import { appendLog } from "../../monitor/log-file.ts";
import { readRecord, writeRecord } from "../../monitor/record.ts";
import { connectQmp } from "../qmp.ts";
import { sandboxUid } from "../sandbox.ts";
import { ask } from "./control.ts";
import { type MachineObservation, observeMachine } from "./observe.ts";
import { machinePaths, type Started } from "./place.ts";
import type { MadeAs } from "./start.ts";
import {
  forgetSuspended,
  loadMemory,
  readSuspended,
  saveMemory,
  type Suspended,
  type SuspendPlace,
} from "./suspend.ts";
import { volumesOf } from "./volume.ts";

/** What the engine does for those who go to sleep. */
export interface Hands {
  readonly home: Home;
  readonly layout: Layout;
  cgroups(): Cgroups;
  clear(paths: InstancePaths, call: Call): Promise<void>;
  /** Starts QEMU, which waits for its memory. */
  begin(launch: ProgramLaunch, suspended: Suspended, call: Call): Promise<void>;
  emit(event: InstanceEvent): void;
}

/** MicroVMs that sleep. Whoever calls has the instance's turn. */
export class Sleep {
  readonly #hands: Hands;

  constructor(hands: Hands) {
    this.#hands = hands;
  }

  isAsleep(id: InstanceId): boolean {
    return existsSync(this.#placeOf(id).recordFile);
  }

  /** Undefined when it does not sleep. */
  facts(id: InstanceId, seen: MachineObservation): InstanceFacts | undefined {
    const suspended = readSuspended(this.#placeOf(id));
    if (suspended === undefined) return undefined;
    const { startedMs } = suspended;
    const limits = seen.record?.launch.limits ?? {};
    return { id, status: "suspended", startedMs, intact: seen.record !== undefined, limits };
  }

  /** Puts a running one to sleep. */
  async begin(id: InstanceId, launch: ProgramLaunch, call: Call): Promise<void> {
    const what = `suspend ${id}`;
    if (volumesOf(launch).length > 0) {
      throw new Fault("unsupported", `${what}: directories that the host serves cannot be left and found again`, {
        hint: "pause it instead: croft pause",
      });
    }
    const paths = this.#hands.layout.of(id);
    const machine = machinePaths(paths);
    const cgroups = this.#hands.cgroups();
    if (cgroups.freezeState(paths.cgroup) !== "thawed") await settleFreeze(cgroups, paths.cgroup, false, call);
    const { size } = readRecord(machine.madeFile) as MadeAs;
    const startedMs = observeMachine(paths, cgroups).startedMs ?? call.clock.nowMs();
    using qmp = await connectQmp(machine.qmpSocket, what, this.#isUp(paths), call);
    await saveMemory(what, qmp, machine, sandboxUid(id), this.#placeOf(id), { startedMs, size }, call);
    // From the record on it sleeps; what is left of the run only looks as if it ran.
    await this.#hands.clear(paths, call);
  }

  /** Goes on where it was put to sleep. False when that cannot be: then nothing is left of its sleep, and it can boot. */
  async end(id: InstanceId, launch: ProgramLaunch, call: Call): Promise<boolean> {
    const paths = this.#hands.layout.of(id);
    const machine = machinePaths(paths);
    const place = this.#placeOf(id);
    const suspended = readSuspended(place);
    if (suspended === undefined) return false;
    const what = `resume ${id}`;
    try {
      await this.#hands.clear(paths, call);
      await this.#hands.begin(launch, suspended, call);
      using qmp = await connectQmp(machine.qmpSocket, what, this.#isUp(paths), call);
      await loadMemory(what, qmp, machine, place, suspended, call);
      await ask(machine.controlSocket, what, `clock ${Math.round(call.clock.nowMs() / 1000)}`, call);
      const { startedMs } = suspended;
      writeRecord(machine.startedFile, { startedMs } satisfies Started);
      forgetSuspended(place);
      const pid = observeMachine(paths, this.#hands.cgroups()).main?.pid ?? 0;
      this.#hands.emit({ kind: "started", id, pid, startedMs });
      return true;
    } catch (error) {
      await this.#hands.clear(paths, backgroundCall(call.clock));
      // Who called it off may ask again; what cannot be read will not be readable later.
      if (call.signal.aborted) throw error;
      forgetSuspended(place);
      appendLog(
        paths.logDir,
        `its saved memory cannot be resumed, so it boots: ${Fault.from(error, what).message}`,
        call,
      );
      return false;
    }
  }

  /** Throws the saved memory away: to whoever asks it has exited. */
  async stop(id: InstanceId, call: Call): Promise<void> {
    const place = this.#placeOf(id);
    const suspended = readSuspended(place);
    if (suspended === undefined) return;
    const paths = this.#hands.layout.of(id);
    await this.#hands.clear(paths, call);
    const machine = machinePaths(paths);
    for (const path of [machine.dir, this.#hands.layout.exitDir]) mkdirSync(path, { recursive: true, mode: 0o700 });
    writeFileSync(machine.exitFile, "0 0\n");
    writeRecord(machine.startedFile, { startedMs: suspended.startedMs } satisfies Started);
    forgetSuspended(place);
    writeFileSync(paths.exitFile, "0");
  }

  forget(id: InstanceId): void {
    forgetSuspended(this.#placeOf(id));
  }

  #isUp(paths: InstancePaths): () => boolean {
    return () => observeMachine(paths, this.#hands.cgroups()).main !== undefined;
  }

  #placeOf(id: InstanceId): SuspendPlace {
    return {
      recordFile: join(this.#hands.layout.of(id).dir, "suspended.json"),
      memoryFile: join(this.#hands.home.libDir, "guest", "suspended", id),
    };
  }
}
