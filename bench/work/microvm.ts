import { spawn } from "node:child_process";
import { closeSync, constants, copyFileSync, mkdirSync, openSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { backgroundCall, systemClock } from "../../src/base/call.ts";
import { homeBeneath } from "../../src/base/home.ts";
import { type InstanceId, instanceId, sha256 } from "../../src/base/id.ts";
import { findHierarchies, openCgroups } from "../../src/host/cgroup.ts";
import type { ProgramLaunch } from "../../src/instance/contract.ts";
import { chooseRuntime } from "../../src/instance/crun/probe.ts";
import { findAccelerator } from "../../src/instance/qemu/accelerator.ts";
import { Kits } from "../../src/instance/qemu/guest/kit.ts";
import { launchMessage } from "../../src/instance/qemu/guest/launch.ts";
import { guestSize } from "../../src/instance/qemu/guest/size.ts";
import { Control } from "../../src/instance/qemu/microvm/control.ts";
import { MicrovmEngine } from "../../src/instance/qemu/microvm/engine.ts";
import { machineArgs } from "../../src/instance/qemu/microvm/machine.ts";
import { hostTscKhz } from "../../src/instance/qemu/tsc.ts";
import { OverlayPool } from "../../src/storage/overlay/pool.ts";
import { busybox, type PeerName } from "../contender/contender.ts";
import { processes, programOf, pssKib, runSync, timeMs } from "../process.ts";
import { median, type Row, rowOf } from "../row.ts";
import type { Ground, Work } from "./ground.ts";

/**
 * One program in a microVM. Bare QEMU boots the same kernel and initramfs with the same devices and is handed the same
 * launch, by nobody but itself: no sandbox, no monitor, no log, no disk of its own made and thrown away.
 */
export const microvm: Work = {
  name: "microvm",
  measure: async (ground) => {
    const place = await Place.open(join(ground.folder, "microvm"));
    // What waits for others of this process does not keep it alive, and the daemon's process lives anyway.
    const awake = setInterval(() => {}, 1000);
    try {
      return await rows(place, ground);
    } finally {
      await place.close();
      clearInterval(awake);
    }
  },
};

const atOnce = 10;

/** What each leaves to its daemons and to the kernel when it says that it is done is not the other's. */
const aftermathMs = 500;

/** Ten guests at once on a small machine without KVM take their time. */
const patienceMs = 600_000;

async function rows(place: Place, { contenders, rounds }: Ground): Promise<readonly Row[]> {
  const docker = contenders.find(({ name }) => name === "docker");
  const cold = { croft: [] as number[], bare: [] as number[], answer: [] as number[] };
  const few = Math.max(3, Math.ceil(rounds / 3));
  await place.once(false);
  for (let round = 0; round < few; round += 1) {
    const { answerMs, wholeMs } = await place.once(false);
    cold.croft.push(wholeMs);
    cold.answer.push(answerMs);
    cold.bare.push(await place.bare());
  }
  // The first one makes the memory that the others go on from.
  await place.once(true);
  await place.engine.settled();
  const warm = { answer: [] as number[], program: [] as number[], whole: [] as number[] };
  const container: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await systemClock.sleep(aftermathMs);
    const { answerMs, programMs, wholeMs } = await place.once(true);
    warm.answer.push(answerMs);
    warm.program.push(programMs);
    warm.whole.push(wholeMs);
    await systemClock.sleep(aftermathMs);
    if (docker !== undefined) container.push(timeMs(docker.runOnce(`beside-${round}`, [busybox, "true"])));
  }
  const ten = { croft: [] as number[], bare: [] as number[], ownKib: [] as number[] };
  for (let round = 0; round < few; round += 1) {
    // Who goes first finds the machine as the other left it: they take turns.
    const { croftMs, bareMs, ownKib } = await place.together(round % 2 === 0 ? "croft" : "bare");
    ten.croft.push(croftMs);
    ten.bare.push(bareMs);
    ten.ownKib.push(ownKib);
  }
  return [
    rowOf("microVM: run --rm true, cold", "ms", figures(median(cold.croft), ["qemu", median(cold.bare)]), [
      { sense: "at most", factor: 1.15, of: "qemu" },
    ]),
    rowOf(
      "microVM: warm, to the guest's first answer",
      "ms",
      figures(median(warm.answer), ["cold", median(cold.answer)], ["docker", median(container)]),
      [
        { sense: "at most", factor: 0.15, of: "cold" },
        { sense: "at most", factor: 0.5, of: "docker" },
      ],
    ),
    rowOf(
      "microVM: warm, until its program runs",
      "ms",
      figures(median(warm.program), ["docker", median(container)]),
      [],
    ),
    rowOf(
      "microVM: run --rm true, warm",
      "ms",
      figures(median(warm.whole), ["cold", median(cold.croft)], ["docker", median(container)]),
      [],
    ),
    rowOf(`microVM: ${atOnce} cold at once`, "ms", figures(median(ten.croft), ["qemu", median(ten.bare)]), [
      { sense: "at most", factor: 1.1, of: "qemu" },
    ]),
    rowOf("microVM: own memory per idle one, beyond QEMU's", "KiB PSS", figures(median(ten.ownKib)), [
      { sense: "at most", factor: 1024 },
    ]),
  ];
}

function figures(
  croft: number,
  ...others: readonly (readonly [PeerName, number])[]
): ReadonlyMap<"croft" | PeerName, number> {
  return new Map<"croft" | PeerName, number>([["croft", croft], ...others]);
}

/** A home with an image of busybox alone. */
class Place {
  readonly engine: MicrovmEngine;
  readonly #answers: ReadonlyMap<InstanceId, number>;
  readonly #directory: string;
  readonly #pool: OverlayPool;
  readonly #layer: string;
  #last = 0;

  private constructor(
    directory: string,
    engine: MicrovmEngine,
    answers: ReadonlyMap<InstanceId, number>,
    pool: OverlayPool,
    layer: string,
  ) {
    this.#directory = directory;
    this.engine = engine;
    this.#answers = answers;
    this.#pool = pool;
    this.#layer = layer;
  }

  static async open(directory: string): Promise<Place> {
    const tree = join(directory, "tree");
    for (const name of ["bin", "etc"]) mkdirSync(join(tree, name), { recursive: true });
    copyFileSync("/bin/busybox", join(tree, "bin", "busybox"));
    for (const name of ["true", "sleep"]) symlinkSync("busybox", join(tree, "bin", name));
    writeFileSync(join(tree, "etc", "passwd"), "root:x:0:0:root:/root:/bin/sh\n");
    const layer = join(directory, "layer.erofs");
    runSync({ argv: ["mkfs.erofs", "--quiet", layer, tree] });
    const home = homeBeneath(directory);
    const answers = new Map<InstanceId, number>();
    const onAnswer = (id: InstanceId): void => void answers.set(id, performance.now());
    const runtime = await chooseRuntime(home, call);
    const engine = new MicrovmEngine({ home, runtime, bootTimeoutMs: patienceMs, onAnswer });
    await engine.probe(call);
    return new Place(directory, engine, answers, new OverlayPool(home), layer);
  }

  /** One that runs `true`: until its guest says its first word, until it runs, and until nothing is left of it. */
  async once(
    warmStart: boolean,
  ): Promise<{ readonly answerMs: number; readonly programMs: number; readonly wholeMs: number }> {
    const id = this.#newId();
    const beganMs = performance.now();
    await this.engine.create(await this.#launch(id, ["/bin/true"], warmStart), call);
    const startMs = performance.now();
    await this.engine.start(id, call);
    const programMs = performance.now() - startMs;
    const answerMs = (this.#answers.get(id) ?? Infinity) - startMs;
    await this.#exited(id);
    await this.#remove(id);
    return { answerMs, programMs, wholeMs: performance.now() - beganMs };
  }

  /** The same, without us, until QEMU has ended. */
  async bare(): Promise<number> {
    const id = this.#newId();
    const launch = await this.#launch(id, ["/bin/true"], false);
    const tookMs = await runBare(join(this.#directory, `bare-${id}`), launch, homeBeneath(this.#directory));
    await this.#pool.removeRoot(id);
    return tookMs;
  }

  /** Several at once, by us and by nobody, until the program of the last one runs; and what each of ours costs besides its QEMU. */
  async together(
    first: "croft" | "bare",
  ): Promise<{ readonly croftMs: number; readonly bareMs: number; readonly ownKib: number }> {
    const early = first === "bare" ? await this.#bareTogether() : undefined;
    const { croftMs, ownKib } = await this.#oursTogether();
    await systemClock.sleep(aftermathMs);
    return { croftMs, ownKib, bareMs: early ?? (await this.#bareTogether()) };
  }

  async #oursTogether(): Promise<{ readonly croftMs: number; readonly ownKib: number }> {
    const ids = Array.from({ length: atOnce }, () => this.#newId());
    const before = processes();
    const launches = await Promise.all(ids.map((id) => this.#launch(id, ["/bin/sleep", "3600"], false)));
    const beganMs = performance.now();
    await Promise.all(
      launches.map(async (launch) => {
        await this.engine.create(launch, call);
        await this.engine.start(launch.id, call);
      }),
    );
    const croftMs = performance.now() - beganMs;
    const own = [...processes()].filter((pid) => !before.has(pid) && !programOf(pid).startsWith("qemu"));
    const ownKib = own.map(pssKib).reduce((sum, one) => sum + one, 0) / ids.length;
    for (const id of ids) await this.#remove(id);
    return { croftMs, ownKib };
  }

  async #bareTogether(): Promise<number> {
    const ids = Array.from({ length: atOnce }, () => this.#newId());
    const launches = await Promise.all(ids.map((id) => this.#launch(id, ["/bin/true"], false)));
    const home = homeBeneath(this.#directory);
    const beganMs = performance.now();
    await Promise.all(
      launches.map((launch) => runBare(join(this.#directory, `bare-${launch.id}`), launch, home, "running")),
    );
    const bareMs = performance.now() - beganMs;
    for (const id of ids) await this.#pool.removeRoot(id);
    await systemClock.sleep(aftermathMs);
    return bareMs;
  }

  async close(): Promise<void> {
    await this.engine.settled();
    for (const { id } of await this.engine.list(call)) await this.#remove(id);
    openCgroups(findHierarchies()).remove(`/${homeBeneath(this.#directory).prefix}`);
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #newId(): InstanceId {
    this.#last += 1;
    return instanceId("bench", "box", this.#last, "0123abcd");
  }

  async #exited(id: InstanceId): Promise<void> {
    while ((await this.engine.list(call)).find((facts) => facts.id === id)?.status !== "exited") {
      await systemClock.sleep(1);
    }
  }

  async #remove(id: InstanceId): Promise<void> {
    await this.engine.remove(id, call);
    await this.#pool.removeRoot(id);
  }

  async #launch(id: InstanceId, argv: readonly string[], warmStart: boolean): Promise<ProgramLaunch> {
    const layers = [{ digest: sha256("bench"), path: this.#layer }];
    return {
      id,
      kind: "program",
      root: await this.#pool.attachRoot({ id, kind: "block", layers, readOnly: false }, call),
      attachment: { kind: "tap", taps: [], resolvers: [] },
      hostname: "box",
      argv,
      env: {},
      user: "",
      workdir: "/",
      terminal: false,
      stdin: false,
      readOnlyRoot: false,
      mounts: [],
      capabilities: { add: [], drop: [] },
      limits: { memoryBytes: 128 * 2 ** 20 },
      stopSignal: "SIGTERM",
      log: { maxBytes: 2 ** 20 },
      labels: {},
      warmStart,
    };
  }
}

const call = backgroundCall();

/** Milliseconds until its program runs or until QEMU has ended. */
async function runBare(
  directory: string,
  launch: ProgramLaunch,
  home: ReturnType<typeof homeBeneath>,
  until: "running" | "ended" = "ended",
): Promise<number> {
  mkdirSync(directory);
  const accelerator = await findAccelerator(home, call);
  const kit = await new Kits(home).get(undefined, call);
  const { root } = launch;
  if (root.kind !== "block" || root.writable === undefined) throw new Error("a block root");
  const files = [
    ...root.layers.map(({ path }) => openSync(path, constants.O_RDONLY)),
    openSync(root.writable, constants.O_RDWR),
  ];
  const named = files.map((_, index) => index + 3);
  const tscKhz = hostTscKhz();
  const control = join(directory, "control");
  // A guest waits until somebody hears it, which nobody behind "null" does.
  const heard = "file,path=/dev/null";
  const [program = "", ...args] = machineArgs(
    {
      accelerator,
      size: guestSize(launch.limits),
      kernelPath: kit.kernel.path,
      initramfsPath: kit.initramfs.path,
      ...(tscKhz === undefined ? {} : { tscKhz }),
      layers: named.slice(0, -1),
      writable: named.at(-1) ?? 0,
      taps: [],
      volumes: [],
      ports: {
        control: `socket,path=${control},server=on,wait=off`,
        shell: "null",
        stdout: heard,
        stderr: heard,
        stdin: "null",
        exit: heard,
        console: "null",
        serial: "null",
      },
      qmp: "null",
      memory: { kind: "own" },
    },
    named,
  );
  const beganMs = performance.now();
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "inherit", ...files] });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  for (const file of files) closeSync(file);
  using guest = await connected(control);
  guest.write("\nhello\n");
  for (let line = await guest.line(call); line !== undefined; line = await guest.line(call)) {
    if (line === "ready") guest.write(launchMessage(launch, { nowSeconds: call.clock.nowMs() / 1000 }));
    if (until === "running" && line.startsWith("started")) break;
  }
  if (until === "ended") await ended;
  const tookMs = performance.now() - beganMs;
  child.kill("SIGKILL");
  await ended;
  rmSync(directory, { recursive: true });
  return tookMs;
}

async function connected(path: string): Promise<Control> {
  for (;;) {
    try {
      return Control.connect(path, "bare QEMU");
    } catch {
      await systemClock.sleep(2);
    }
  }
}
