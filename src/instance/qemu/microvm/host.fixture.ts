import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { backgroundCall } from "../../../base/call.ts";
import { type Home, homeBeneath, linkName } from "../../../base/home.ts";
import { type InstanceId, sha256 } from "../../../base/id.ts";
import { findHierarchies, openCgroups } from "../../../host/cgroup.ts";
import { listMounts } from "../../../host/mount.ts";
import { run } from "../../../host/process.ts";
import { createTap } from "../../../host/tap.ts";
import { OverlayPool } from "../../../storage/overlay/pool.ts";
import type { LayerFile } from "../../../storage/contract.ts";
import { chooseRuntime } from "../../crun/probe.ts";
import type { ProgramLaunch } from "../../contract.ts";
import { plainProgram } from "../../launch.fixture.ts";
import type { Harness } from "../../contract-suite.ts";
import type { RuntimeName } from "../../monitor/runtime.ts";
import { MicrovmEngine } from "./engine.ts";

/** A home of its own, a layer with busybox, a pool and taps: what a test of this driver needs, and the way to be rid of it. */
export class HostHarness implements Harness {
  readonly directory: string;
  readonly home: Home;
  readonly pool: OverlayPool;
  readonly runtime: RuntimeName;
  /** Layers above the one with busybox, of every root that is made from now on. */
  more: readonly LayerFile[] = [];
  readonly #layer: LayerFile;
  readonly #engines: MicrovmEngine[] = [];
  readonly #taps = new Set<string>();

  private constructor(directory: string, home: Home, runtime: RuntimeName, layer: LayerFile) {
    this.directory = directory;
    this.home = home;
    this.pool = new OverlayPool(home);
    this.runtime = runtime;
    this.#layer = layer;
  }

  static async open(): Promise<HostHarness> {
    const directory = mkdtempSync(join(tmpdir(), "microvm."));
    const home = homeBeneath(directory);
    const call = backgroundCall();
    const tree = join(directory, "tree");
    for (const name of ["bin", "etc"]) mkdirSync(join(tree, name), { recursive: true });
    copyFileSync("/bin/busybox", join(tree, "bin", "busybox"));
    for (const name of programs) symlinkSync("busybox", join(tree, "bin", name));
    writeFileSync(join(tree, "etc", "passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv:/bin/sh\n");
    writeFileSync(join(tree, "etc", "group"), "root:x:0:\nweb:x:102:\nlogs:x:103:web\n");
    const path = join(directory, "layer.erofs");
    await run(["mkfs.erofs", "--quiet", path, tree], {}, call);
    const runtime = await chooseRuntime(home, call);
    return new HostHarness(directory, home, runtime, { digest: sha256("layer"), path });
  }

  /** A layer of files with these texts. */
  async layer(name: string, files: Readonly<Record<string, string>>): Promise<LayerFile> {
    const tree = join(this.directory, name);
    mkdirSync(tree);
    for (const [path, text] of Object.entries(files)) writeFileSync(join(tree, path), text);
    const path = join(this.directory, `${name}.erofs`);
    await run(["mkfs.erofs", "--quiet", path, tree], {}, backgroundCall());
    return { digest: sha256(name), path };
  }

  engine(options: { readonly bootTimeoutMs?: number } = {}): MicrovmEngine {
    const engine = new MicrovmEngine({ home: this.home, runtime: this.runtime, ...options });
    this.#engines.push(engine);
    return engine;
  }

  async launch(id: InstanceId, change: Partial<ProgramLaunch> = {}): Promise<ProgramLaunch> {
    const call = backgroundCall();
    const readOnly = change.readOnlyRoot === true;
    const layers = [this.#layer, ...this.more];
    const root = await this.pool.attachRoot({ id, kind: "block", layers, readOnly }, call);
    const tap = linkName(this.home, id);
    // One that a machine has open cannot be made again.
    if (!this.#taps.has(tap)) createTap(tap, 0);
    this.#taps.add(tap);
    return {
      id,
      ...plainProgram,
      root,
      attachment: {
        kind: "tap",
        taps: [{ name: tap, mac: "02:00:00:00:00:07", address: "10.86.9.7", prefixLength: 24 }],
        gateway: "10.86.9.1",
        resolvers: ["10.86.9.1"],
      },
      ...change,
    };
  }

  /** Ends what the home has left, and throws when anything was. */
  async dispose(): Promise<void> {
    const call = backgroundCall();
    // What saves a memory ends with us, but is not waited for by anything that keeps this process alive.
    const awake = setInterval(() => {}, 1000);
    for (const engine of this.#engines) await engine.settled();
    clearInterval(awake);
    for (const tap of this.#taps) await run(["ip", "link", "del", tap], {}, call);
    for (const { id } of (await this.pool.list()).roots) await this.pool.removeRoot(id);
    const cgroups = openCgroups(findHierarchies());
    const left = cgroups.pids(`/${this.home.prefix}`);
    const mounts = listMounts(this.directory);
    cgroups.remove(`/${this.home.prefix}`);
    rmSync(this.directory, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`processes were left: ${left.join(" ")}`);
    if (mounts.length > 0) throw new Error(`mounts were left: ${mounts.map(({ target }) => target).join(" ")}`);
  }
}

/** The names by which busybox is called in a root. */
const programs =
  "sh sleep cat echo true id ls mount unshare stat mkdir dd wc yes env hostname stty ln rm head tail kill touch grep date ip ping".split(
    " ",
  );
