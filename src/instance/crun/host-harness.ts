import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { backgroundCall } from "../../base/call.ts";
import { type Home, homeBeneath } from "../../base/home.ts";
import type { InstanceId } from "../../base/id.ts";
import { listMounts, unmount } from "../../host/mount.ts";
import { run } from "../../host/process.ts";
import type { ProgramLaunch } from "../contract.ts";
import { plainProgram } from "../launch.fixture.ts";
import type { Harness } from "../contract-suite.ts";
import { findHierarchies, openCgroups } from "../../host/cgroup.ts";
import { ContainerEngine } from "./engine.ts";
import { layoutOf } from "../monitor/layout.ts";
import { shieldPath } from "../monitor/shield.ts";
import type { RuntimeName } from "../monitor/runtime.ts";

/** A home of its own, busybox roots and a network namespace: what a test of this driver needs, and the way to be rid of it. */
export class HostHarness implements Harness {
  readonly directory: string;
  readonly home: Home;
  readonly #runtime: RuntimeName;
  readonly #netns: string;

  private constructor(directory: string, runtime: RuntimeName) {
    this.directory = directory;
    this.home = homeBeneath(directory);
    this.#runtime = runtime;
    this.#netns = `${this.home.prefix}-test`;
  }

  static async open(runtime: RuntimeName): Promise<HostHarness> {
    const harness = new HostHarness(mkdtempSync(join(tmpdir(), "instance.")), runtime);
    await run(["ip", "netns", "add", harness.#netns], {}, backgroundCall());
    return harness;
  }

  engine(): ContainerEngine {
    return new ContainerEngine({ home: this.home, runtime: this.#runtime });
  }

  /** The directory that is the root of this instance, made at the first call: writable, of busybox alone. */
  root(id: InstanceId): string {
    const root = join(this.directory, "root", id);
    if (existsSync(root)) return root;
    mkdirSync(join(root, "bin"), { recursive: true });
    mkdirSync(join(root, "etc"), { recursive: true });
    copyFileSync("/bin/busybox", join(root, "bin", "busybox"));
    for (const name of programs) symlinkSync("busybox", join(root, "bin", name));
    writeFileSync(join(root, "etc", "passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv:/bin/sh\n");
    writeFileSync(join(root, "etc", "group"), "root:x:0:\nweb:x:102:\nlogs:x:103:web\n");
    return root;
  }

  async launch(id: InstanceId, change: Partial<ProgramLaunch> = {}): Promise<ProgramLaunch> {
    return {
      id,
      ...plainProgram,
      root: { kind: "directory", path: this.root(id) },
      attachment: { kind: "netns", path: `/var/run/netns/${this.#netns}`, resolvers: ["10.0.0.1"] },
      ...change,
    };
  }

  /** Ends what the home has left, and throws when anything was. */
  async dispose(): Promise<void> {
    const call = backgroundCall();
    await run(["ip", "netns", "del", this.#netns], {}, call);
    await unmount(shieldPath(layoutOf(this.home, "container")));
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
  "sh sleep cat echo true id ls mount unshare stat mkdir dd wc yes env hostname stty ln rm head tail kill touch grep".split(
    " ",
  );
