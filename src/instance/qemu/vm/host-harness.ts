import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { backgroundCall } from "../../../base/call.ts";
import { type Home, homeBeneath } from "../../../base/home.ts";
import type { InstanceId } from "../../../base/id.ts";
import { shortHash } from "../../../base/id.ts";
import { findHierarchies, openCgroups } from "../../../host/cgroup.ts";
import { listMounts } from "../../../host/mount.ts";
import { run } from "../../../host/process.ts";
import { createTap } from "../../../host/tap.ts";
import type { MachineDisk, MachineLaunch, ProgramLaunch } from "../../contract.ts";
import type { Harness } from "../../contract-suite.ts";
import { namesIn } from "../../monitor/record.ts";
import type { RuntimeName } from "../../monitor/runtime.ts";
import { MachineEngine } from "./engine.ts";
import { machineLayout } from "./places.ts";
import { testCache } from "./test-cache.fixture.ts";
import { makeTinyEfiGuest, makeTinyGuest, writeScriptDisk } from "./tiny-guest.fixture.ts";

/** A home of its own, disks, and taps that lead nowhere: what a test of this driver needs, and the way to be rid of it. */
export class HostHarness implements Harness {
  readonly directory: string;
  readonly home: Home;
  readonly #runtime: RuntimeName;
  readonly #taps = new Set<string>();

  private constructor(directory: string, runtime: RuntimeName) {
    this.directory = directory;
    this.home = homeBeneath(directory);
    this.#runtime = runtime;
  }

  static async open(runtime: RuntimeName = "crun"): Promise<HostHarness> {
    return new HostHarness(mkdtempSync(join(tmpdir(), "machine.")), runtime);
  }

  engine(): MachineEngine {
    return new MachineEngine({ home: this.home, runtime: this.#runtime });
  }

  /** For the contract's suite: the script of its program, in a machine with a balloon. */
  async launch(id: InstanceId, change: Partial<ProgramLaunch> = {}): Promise<MachineLaunch> {
    const script = change.argv?.at(-1) ?? "sleep 1000";
    return this.machine(id, script, {
      balloon: true,
      ...(change.limits === undefined ? {} : { limits: change.limits }),
    });
  }

  /** A machine that runs this script and then switches itself off. Its own disk is a qcow2 child of the tiny guest's. */
  async machine(id: InstanceId, script: string, change: Partial<MachineLaunch> = {}): Promise<MachineLaunch> {
    const directory = join(this.directory, "disk", id);
    mkdirSync(directory, { recursive: true });
    const scriptPath = join(directory, `script-${shortHash(script, 6)}.raw`);
    writeScriptDisk(scriptPath, script);
    const disks: MachineDisk[] = [
      { name: "root", disk: await this.child(id, "root"), readOnly: false, cdrom: false },
      { name: "script", disk: { path: scriptPath, format: "raw", backing: [] }, readOnly: true, cdrom: false },
    ];
    const tap = `${this.home.prefix}-${shortHash(id, 7)}`;
    this.addTap(tap);
    return {
      id,
      kind: "machine",
      disks,
      attachment: {
        kind: "tap",
        taps: [{ name: tap, mac: macOf(tap), address: "10.9.9.2", ...prefix }],
        gateway: "10.9.9.1",
        resolvers: [],
      },
      hostname: "web-1",
      firmware: "bios",
      tpm: false,
      hugepages: false,
      balloon: false,
      passthrough: { pci: [], usb: [] },
      limits: { memoryBytes: 192 * 2 ** 20 },
      log: { maxBytes: 2 ** 20 },
      labels: {},
      ...change,
    };
  }

  /** A copy-on-write child of the tiny guest's disk, made at the first call. */
  async child(id: InstanceId, name: string): Promise<MachineDisk["disk"]> {
    const call = backgroundCall();
    // Shared by all suites of a run: it takes seconds to make.
    const base = await makeTinyGuest(testCache());
    const path = join(this.directory, "disk", id, `${name}.qcow2`);
    mkdirSync(join(this.directory, "disk", id), { recursive: true });
    const argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, path];
    // Kept when it is there, as a pool would.
    await run(["test", "-e", path], { okCodes: [0, 1] }, call).then(({ code }) =>
      code === 0 ? undefined : run(argv, {}, call),
    );
    return { path, format: "qcow2", backing: [base] };
  }

  /** A read-only disk that boots the tiny guest by UEFI. */
  async efiDisk(): Promise<MachineDisk> {
    const path = await makeTinyEfiGuest(testCache());
    return { name: "efi", disk: { path, format: "raw", backing: [] }, readOnly: true, cdrom: false };
  }

  /** An empty disk. */
  async blank(id: InstanceId, name: string, size: string): Promise<MachineDisk> {
    const path = join(this.directory, "disk", id, `${name}.qcow2`);
    mkdirSync(join(this.directory, "disk", id), { recursive: true });
    await run(["qemu-img", "create", "-q", "-f", "qcow2", path, size], {}, backgroundCall());
    return { name, disk: { path, format: "qcow2", backing: [] }, readOnly: false, cdrom: false };
  }

  addTap(name: string): void {
    if (this.#taps.has(name)) return;
    createTap(name, 0);
    this.#taps.add(name);
  }

  /** Ends what the home has left, and throws when anything was. */
  async dispose(): Promise<void> {
    const call = backgroundCall();
    // What outlives machines goes with their disks.
    const { keptDir } = machineLayout(this.home);
    for (const id of namesIn(keptDir)) await this.engine().keepsake.forget(id as InstanceId, call);
    for (const name of this.#taps) await run(["ip", "link", "del", name], {}, call);
    const cgroups = openCgroups(findHierarchies());
    const left = cgroups.pids(`/${this.home.prefix}`);
    const mounts = listMounts(this.directory);
    cgroups.remove(`/${this.home.prefix}`);
    const { stdout: files } = await run(
      ["find", join(this.directory, "lib"), join(this.directory, "run"), "-path", "*suite*"],
      { okCodes: [0, 1] },
      call,
    );
    rmSync(this.directory, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`processes were left: ${left.join(" ")}`);
    if (mounts.length > 0) throw new Error(`mounts were left: ${mounts.map(({ target }) => target).join(" ")}`);
    if (files.trim() !== "") throw new Error(`files were left: ${files}`);
  }
}

/** Of the network that its address is in. */
const prefix = { prefixLength: 24 };

export function macOf(seed: string): string {
  return `02:${shortHash(seed, 10).replaceAll(/(..)(?=.)/g, "$1:")}`;
}
