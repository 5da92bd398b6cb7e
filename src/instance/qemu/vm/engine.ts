import { mkdirSync, rmSync } from "node:fs";
import { type Call, throwIfCancelled } from "../../../base/call.ts";
import type { Probe } from "../../../base/driver.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import type { Home } from "../../../base/home.ts";
import { canonicalJson, type InstanceId, sha256 } from "../../../base/id.ts";
import { emptyCgroup, settleFreeze } from "../../../host/cgroup.ts";
import { signalProcess } from "../../../host/proc.ts";
import { run } from "../../../host/process.ts";
import { expectConnection } from "../../../host/seqpacket.ts";
import type {
  ConsoleFacet,
  Engine,
  ExecFacet,
  ExportFacet,
  FreezeFacet,
  GuestFacet,
  HotplugFacet,
  InstanceEvent,
  InstanceFacts,
  KeepsakeFacet,
  Launch,
  LogLine,
  LogRange,
  MachineLaunch,
  Limits,
  ResizeFacet,
  ScreenshotFacet,
  Session,
  SnapshotFacts,
  SnapshotSpec,
  SnapshotsFacet,
  StatsFacet,
  StopPolicy,
  SuspendFacet,
} from "../../contract.ts";
import { attachTo } from "../../monitor/attach.ts";
import { appendLog } from "../../monitor/log-file.ts";
import { isRunning, launchToStart, notRunning } from "../../monitor/monitored.ts";
import { factsOf } from "../../monitor/observe.ts";
import { type LaunchRecord, readRecord, writeRecord } from "../../monitor/record.ts";
import { type RuntimeName } from "../../monitor/runtime.ts";
import { signalNumber } from "../../monitor/signal.ts";
import { findAccelerator, qemuProgram } from "../accelerator.ts";
import { withAgent } from "./agent.ts";
import { checkDisk, closeAll, openChain } from "./chain.ts";
import { consoleLines } from "./console-log.ts";
import { execByAgent } from "./exec.ts";
import { areFilesFrozen } from "./frozen-files.ts";
import { findFirmware } from "./firmware.ts";
import { askGuest } from "./guest.ts";
import { dropRun, keepsakeOf } from "./keepsake.ts";
import { pciNodes, usbNodes } from "./passthrough.ts";
import { type MachinePaths } from "./places.ts";
import { resizeMachine } from "./resize.ts";
import { takeScreenshot } from "./screen.ts";
import { elasticOf, type Shape, shapeOf } from "./shape.ts";
import { connectTo, hostLimits } from "./start.ts";
import {
  dropSuspended,
  readPause,
  readRevertMark,
  readSuspended,
  resumeSuspended,
  revertTo,
  saveSuspended,
  writeExit,
} from "./saved-state.ts";
import { createSnapshot, removeSnapshot, snapshotFacts } from "./snapshots.ts";
import { exportRunning, exportStopped } from "./export.ts";
import { Runs } from "./runs.ts";
import { replugMachine } from "./hotplug.ts";
import { nicCounters } from "./nic-counters.ts";
import { clearTpm } from "./tpm.ts";

/**
 * Full machines: QEMU with firmware, disks and nics, in a sandbox that conmon stays with. Like every engine it holds no
 * state that matters. A machine that its guest switches off has exited with code 0.
 */
export class MachineEngine implements Engine {
  readonly name = "vm";
  readonly takes = { launch: "machine", root: "block", nic: "tap" } as const;
  readonly exec: ExecFacet = {
    exec: async (id, spec, call) => {
      const { paths } = this.#runs.runningOf(id, "run a program in");
      this.#runs.requireThawed(id, "run a program in");
      return await execByAgent(id, paths.agentSocket, spec, call);
    },
  };
  readonly freeze: FreezeFacet = {
    freeze: (id, call) => this.#setFrozen(id, true, call),
    thaw: (id, call) => this.#setFrozen(id, false, call),
  };
  readonly resize: ResizeFacet = { resize: (id, limits, call) => this.#resize(id, limits, call) };
  readonly stats: StatsFacet = { stats: (id, call) => this.#stats(id, call) };
  readonly console: ConsoleFacet = { console: (id, call) => this.#console(id, call) };
  readonly suspend: SuspendFacet = { suspend: (id, call) => this.#suspend(id, call) };
  readonly snapshots: SnapshotsFacet = {
    createSnapshot: (id, spec, call) => this.#createSnapshot(id, spec, call),
    listSnapshots: (id) => this.#listSnapshots(id),
    removeSnapshot: (id, name, call) => this.#removeSnapshot(id, name, call),
    revert: (id, request, call) => this.#revert(id, request, call),
  };
  readonly hotplug: HotplugFacet = { replug: (launch, call) => this.#replug(launch, call) };
  readonly export: ExportFacet = { exportDisks: (id, directory, call) => this.#export(id, directory, call) };
  readonly guest: GuestFacet = {
    guest: async (id, call) => {
      const { paths } = this.#runs.runningOf(id, "ask the guest of");
      this.#runs.requireThawed(id, "ask the guest of");
      return await askGuest(id, paths.agentSocket, call);
    },
  };
  readonly keepsake: KeepsakeFacet;
  readonly screenshot: ScreenshotFacet = { screenshot: (id, call) => this.#screenshot(id, call) };
  readonly #runs: Runs;

  /** `runtime`: what sandboxes are made with, one that works on this host. */
  constructor(options: { readonly home: Home; readonly runtime: RuntimeName }) {
    this.#runs = new Runs({ ...options, facts: (id) => this.#factsOf(id) });
    this.keepsake = keepsakeOf(this.#runs);
  }

  async probe(call: Call): Promise<Probe> {
    try {
      const { stdout } = await run([qemuProgram, "--version"], {}, call);
      await run(["qemu-img", "--version"], {}, call);
      const version = /version ([0-9.]+)/.exec(stdout)?.[1] ?? "?";
      const accelerator = await findAccelerator(this.#runs.home, call);
      return { ok: true, detail: `QEMU ${version}, ${accelerator.detail}` };
    } catch (error) {
      const fault = Fault.from(error, "qemu");
      if (call.signal.aborted) throw fault;
      const mend = isFault(error, "unsupported") ? (fault.hint ?? "") : "apt-get install qemu-system-x86 qemu-utils";
      return { ok: false, detail: fault.message, mend };
    }
  }

  async create(launch: Launch, call: Call): Promise<void> {
    if (launch.kind !== "machine") throw new Fault("bug", `${launch.id}: a machine does not run a program of an image`);
    const paths = this.#runs.ground.layout.of(launch.id);
    await this.#runs.turns.take(launch.id, async () => {
      const seen = this.#runs.observe(paths);
      const next = machineRecord(launch);
      const isSame = seen.record?.fingerprint === next.fingerprint;
      if (seen.main !== undefined && seen.record !== undefined && seen.monitor !== undefined) {
        if (isSame && canonicalJson(seen.record.launch.limits) === canonicalJson(launch.limits)) return;
        throw new Fault("precondition", `change ${launch.id}: it is running`, { hint: "stop it first" });
      }
      if (seen.main !== undefined) await this.#runs.clear(launch.id, call);
      // Tried now, so that whoever creates it hears what is wrong with it.
      shapeOf(launch);
      findFirmware(launch.firmware);
      pciNodes(launch.passthrough.pci);
      usbNodes(launch.passthrough.usb);
      for (const disk of launch.disks) {
        closeAll(openChain(disk));
        if (!isSame) await checkDisk(disk.name, disk.disk, call);
      }
      for (const directory of [paths.dir, paths.logDir, paths.keptDir]) {
        mkdirSync(directory, { recursive: true, mode: 0o700 });
      }
      writeRecord(paths.launchFile, next);
    });
  }

  async start(id: InstanceId, call: Call): Promise<void> {
    const paths = this.#runs.ground.layout.of(id);
    await this.#runs.turns.take(id, async () => {
      const seen = this.#runs.observe(paths);
      const launch = launchToStart(id, seen, isRunning(seen));
      if (launch === undefined) return;
      await this.#runs.clear(id, call);
      const suspended = readSuspended(paths);
      if (suspended !== undefined && (await this.#tryResume(id, launch, suspended, call))) return;
      await this.#runs.run(id, launch, shapeOf(launch), undefined, call);
    });
  }

  async signal(id: InstanceId, signal: string, call: Call): Promise<void> {
    const number = signalNumber(signal);
    const { main } = this.#runs.runningOf(id, `send ${signal} to`);
    const name = Object.entries(meanings).find(([known]) => signalNumber(known) === number)?.[1];
    if (name === undefined) {
      throw new Fault("unsupported", `send ${signal} to ${id}: a machine knows no such signal`, {
        hint: "SIGTERM presses its power button, SIGINT its reset button, SIGKILL pulls the plug",
      });
    }
    if (name === "kill") {
      if (!signalProcess(main, number)) throw notRunning(id, `send ${signal} to`);
      return;
    }
    using qmp = await connectTo(id, this.#runs.ground, call);
    await qmp.execute(name, {}, call);
  }

  async stop(id: InstanceId, policy: StopPolicy, call: Call): Promise<void> {
    const number = signalNumber(policy.signal);
    const { layout, cgroups } = this.#runs.ground;
    const paths = layout.of(id);
    await this.#runs.turns.idle(id);
    const seen = this.#runs.observe(paths);
    if (isRunning(seen) && policy.graceMs > 0 && number !== signalNumber("SIGKILL")) {
      // What is frozen hears nothing.
      if (cgroups.freezeState(paths.cgroup) !== "thawed") await settleFreeze(cgroups, paths.cgroup, false, call);
      void this.#shutDown(id, paths, call).catch(() => {});
      await this.#runs.monitored.exits.until(
        id,
        () => this.#runs.observe(paths).main === undefined,
        policy.graceMs,
        call,
      );
    }
    await emptyCgroup(cgroups, paths.cgroup, call);
    await this.#runs.monitored.settled(id, call);
    await clearTpm(id, layout, cgroups, call);
    if (readSuspended(paths) === undefined) return;
    await this.#runs.turns.take(id, async () => {
      const { record } = this.#runs.observe(paths);
      if (record === undefined) return;
      await dropSuspended(record.launch, paths, call);
      writeExit(paths, 0);
      this.#runs.monitored.exits.notify(id);
    });
  }

  async remove(id: InstanceId, call: Call): Promise<void> {
    const paths = this.#runs.ground.layout.of(id);
    await this.#runs.turns.take(id, async () => {
      await this.#runs.clear(id, call);
      await dropRun(id, this.#runs, call);
      rmSync(paths.logDir, { recursive: true, force: true });
      rmSync(paths.dir, { recursive: true, force: true });
      this.#runs.monitored.exits.notify(id);
    });
  }

  list(call: Call): Promise<readonly InstanceFacts[]> {
    const facts = this.#runs.monitored.list();
    for (const { id } of facts) {
      const paths = this.#runs.ground.layout.of(id);
      if (readPause(paths) !== undefined) this.#runs.goOn(id, call);
      if (areFilesFrozen(paths)) this.#runs.thaw(id, call);
    }
    return Promise.resolve(facts);
  }

  watch(call: Call): AsyncGenerator<InstanceEvent> {
    return this.#runs.monitored.watch(call);
  }

  logs(id: InstanceId, range: LogRange, call: Call): AsyncGenerator<LogLine> {
    return consoleLines((inner) => this.#runs.monitored.logs(id, range, inner), call);
  }

  /** False when the saved memory is of no use: it is thrown away, and the log says why. */
  async #tryResume(
    id: InstanceId,
    launch: MachineLaunch,
    suspended: NonNullable<ReturnType<typeof readSuspended>>,
    call: Call,
  ): Promise<boolean> {
    const paths = this.#runs.ground.layout.of(id);
    try {
      await resumeSuspended(id, launch, suspended, this.#runs, call);
      return true;
    } catch (error) {
      throwIfCancelled(call);
      const why = Fault.from(error, `resume ${id}`).message;
      await this.#runs.clear(id, call);
      await dropSuspended(launch, paths, call).catch(() => {});
      rmSync(paths.suspendedFile, { force: true });
      appendLog(paths.logDir, `its saved memory cannot be resumed, so it boots: ${why}`, call);
      return false;
    }
  }

  async #suspend(id: InstanceId, call: Call): Promise<void> {
    await this.#runs.turns.take(id, async () => {
      const paths = this.#runs.ground.layout.of(id);
      if (readSuspended(paths) !== undefined && !isRunning(this.#runs.observe(paths))) return;
      const { record } = this.#runs.runningOf(id, "suspend");
      this.#runs.requireThawed(id, "suspend");
      const shape = readRecord(paths.shapeFile) as Shape;
      // Its end is not told: it has not exited.
      this.#runs.monitored.releasing.add(id);
      try {
        await saveSuspended(id, record.launch, shape, this.#runs.ground, call);
        await this.#runs.clear(id, call);
      } finally {
        this.#runs.monitored.releasing.delete(id);
      }
      this.#runs.monitored.exits.notify(id);
    });
  }

  async #createSnapshot(id: InstanceId, spec: SnapshotSpec, call: Call): Promise<void> {
    await this.#runs.turns.take(id, async () => {
      const machine = this.#runs.machineOf(id, "make a snapshot of");
      if (machine.isRunning) this.#runs.requireThawed(id, "make a snapshot of");
      await createSnapshot(id, spec, machine, this.#runs.ground, call);
    });
  }

  async #listSnapshots(id: InstanceId): Promise<readonly SnapshotFacts[]> {
    this.#runs.machineOf(id, "list the snapshots of");
    return snapshotFacts(this.#runs.ground.layout.of(id));
  }

  async #removeSnapshot(id: InstanceId, name: string, call: Call): Promise<void> {
    await this.#runs.turns.take(id, async () => {
      const machine = this.#runs.machineOf(id, "remove a snapshot of");
      if (machine.isRunning) this.#runs.requireThawed(id, "remove a snapshot of");
      await removeSnapshot(id, name, machine, this.#runs.ground, call);
    });
  }

  async #revert(id: InstanceId, request: { readonly name: string; readonly mark: string }, call: Call): Promise<void> {
    const { layout } = this.#runs.ground;
    const paths = layout.of(id);
    await this.#runs.turns.take(id, async () => {
      const { launch } = this.#runs.machineOf(id, "revert");
      if (readRevertMark(paths) === request.mark) return;
      const runs = await revertTo(id, launch, request, this.#runs, call);
      this.#runs.monitored.exits.notify(id);
      if (!runs) return;
      // Back to what was said since: what was plugged in, and how large it is.
      await this.#replugNow(id, launch, call);
      await this.#resizeNow(id, launch.limits, call);
    });
  }

  async #replug(launch: MachineLaunch, call: Call): Promise<void> {
    await this.#runs.turns.take(launch.id, async () => {
      this.#runs.runningOf(launch.id, "change the disks and nics of");
      this.#runs.requireThawed(launch.id, "change the disks and nics of");
      await this.#replugNow(launch.id, launch, call);
    });
  }

  async #replugNow(id: InstanceId, launch: MachineLaunch, call: Call): Promise<void> {
    const { paths, record } = this.#runs.runningOf(id, "change the disks and nics of");
    const shape = readRecord(paths.shapeFile) as Shape;
    using qmp = await connectTo(id, this.#runs.ground, call);
    const { disks, attachment } = launch;
    await replugMachine(launch, shape, qmp, (next) => writeRecord(paths.shapeFile, next), call);
    writeRecord(paths.launchFile, machineRecord({ ...record.launch, disks, attachment }));
  }

  async #export(id: InstanceId, directory: string, call: Call): ReturnType<ExportFacet["exportDisks"]> {
    return this.#runs.turns.take(id, async () => {
      const { launch, isRunning: runs } = this.#runs.machineOf(id, "export the disks of");
      if (!runs) return exportStopped(launch, directory, call);
      this.#runs.requireThawed(id, "export the disks of");
      using qmp = await connectTo(id, this.#runs.ground, call);
      return await exportRunning(launch, directory, qmp, call);
    });
  }

  /** By the guest's agent where there is one, and by its power button: whichever it hears. */
  async #shutDown(id: InstanceId, paths: MachinePaths, call: Call): Promise<void> {
    const byAgent = withAgent(paths.agentSocket, call, async (agent) => agent.post("guest-shutdown", {}));
    byAgent.catch(() => {});
    using qmp = await connectTo(id, this.#runs.ground, call);
    await qmp.execute("system_powerdown", {}, call);
    await byAgent;
  }

  async #setFrozen(id: InstanceId, frozen: boolean, call: Call): Promise<void> {
    const { paths } = this.#runs.runningOf(id, frozen ? "freeze" : "thaw");
    await settleFreeze(this.#runs.ground.cgroups, paths.cgroup, frozen, call);
  }

  async #resize(id: InstanceId, limits: Limits, call: Call): Promise<void> {
    await this.#runs.turns.take(id, () => this.#resizeNow(id, limits, call));
  }

  async #resizeNow(id: InstanceId, limits: Limits, call: Call): Promise<void> {
    const { paths, record } = this.#runs.runningOf(id, "resize");
    this.#runs.requireThawed(id, "resize");
    const { cgroups } = this.#runs.ground;
    const shape = readRecord(paths.shapeFile) as Shape;
    using qmp = await connectTo(id, this.#runs.ground, call);
    // Raised before the guest can use more of it, and lowered after it gave some back.
    const most = { ...shape, pluggedMemoryBytes: shape.spareMemoryBytes };
    cgroups.limit(paths.cgroup, hostLimits(most, limits));
    let next = shape;
    try {
      next = await resizeMachine(id, shape, limits, qmp, paths, call);
      writeRecord(paths.shapeFile, next);
      writeRecord(paths.launchFile, { ...record, launch: { ...record.launch, limits } });
    } finally {
      const limitsInForce = next === shape ? record.launch.limits : limits;
      cgroups.limit(paths.cgroup, hostLimits(next, limitsInForce));
    }
  }

  async #stats(id: InstanceId, call: Call): ReturnType<StatsFacet["stats"]> {
    const { paths, record } = this.#runs.runningOf(id, "measure");
    const { memoryLimitBytes: _, ...counters } = this.#runs.ground.cgroups.counters(paths.cgroup);
    const shape = readRecord(paths.shapeFile) as Shape | undefined;
    const limitBytes = record.launch.limits.memoryBytes ?? shape?.memoryBytes;
    return {
      timeMs: call.clock.nowMs(),
      ...counters,
      ...(limitBytes === undefined ? {} : { memoryLimitBytes: limitBytes }),
      ...nicCounters(record.launch),
    };
  }

  async #console(id: InstanceId, call: Call): Promise<Session> {
    expectConnection(call);
    const { paths } = this.#runs.runningOf(id, "attach to the console of");
    const closed = new AbortController();
    const ended = this.#runs.monitored.exits.until(
      id,
      () => closed.signal.aborted || !isRunning(this.#runs.observe(paths)),
      Infinity,
      call,
    );
    const exited = ended.then(() => 0);
    exited.catch(() => {});
    const session = await attachTo(id, paths, { exited, signal: (signal) => this.signal(id, signal, call) }, call);
    return {
      ...session,
      output: onlyStdout(session.output),
      // A serial line does not know how large the terminal at its other end is.
      resize: async () => {},
      // Nor does it end.
      endInput: () => {},
      close: async () => {
        closed.abort();
        this.#runs.monitored.exits.notify(id);
        await session.close();
      },
    };
  }

  async #screenshot(id: InstanceId, call: Call): Promise<Uint8Array> {
    const { paths } = this.#runs.runningOf(id, "take a picture of");
    return this.#runs.turns.take(id, async () => {
      using qmp = await connectTo(id, this.#runs.ground, call);
      return await takeScreenshot(qmp, paths, call);
    });
  }

  #factsOf(id: InstanceId): InstanceFacts {
    const { layout, cgroups } = this.#runs.ground;
    const paths = layout.of(id);
    const seen = this.#runs.observe(paths);
    const mark = readRevertMark(paths);
    const { exit, ...facts } = {
      ...factsOf(id, seen, paths, cgroups),
      ...(mark === undefined ? {} : { revertMark: mark }),
    };
    if (isRunning(seen)) {
      const shape = readRecord(paths.shapeFile) as Shape | undefined;
      return { ...facts, ...(shape === undefined ? {} : { elastic: elasticOf(shape) }) };
    }
    if (readSuspended(paths) !== undefined) return { ...facts, status: "suspended", intact: seen.record !== undefined };
    return { ...facts, ...(exit === undefined ? {} : { exit }) };
  }
}

/** What a signal means to a machine. */
const meanings: Readonly<Record<string, "system_powerdown" | "system_reset" | "kill">> = {
  SIGTERM: "system_powerdown",
  SIGPWR: "system_powerdown",
  SIGQUIT: "system_powerdown",
  SIGINT: "system_reset",
  SIGKILL: "kill",
};

function machineRecord(launch: MachineLaunch): LaunchRecord<MachineLaunch> {
  return { fingerprint: sha256(canonicalJson({ ...launch, limits: undefined })), launch };
}

async function* onlyStdout(output: Session["output"]): AsyncGenerator<{ stream: "stdout"; bytes: Uint8Array }> {
  for await (const { stream, bytes } of output) if (stream === "stdout") yield { stream, bytes };
}
