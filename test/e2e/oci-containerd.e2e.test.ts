import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { archiveOf } from "./archive.ts";
import { eventually } from "./eventually.ts";
import { runtime } from "./oci-bundle.ts";
import { finish, onTerminal, run, Site, startDaemon } from "./oci-caller.ts";

const image = "docker.io/library/box:1";

/** ctr on a containerd of our own, with containerd's default runtime or with ours. */
class Ctr {
  readonly site: Site;
  readonly #argv: readonly string[];
  readonly #runtime: readonly string[];
  #executions = 0;

  constructor(site: Site, binary?: string) {
    this.site = site;
    // A container's control group lies beneath the name of its namespace.
    this.#argv = ["ctr", "-a", socketOf(site), "-n", site.cgroup.slice(1)];
    this.#runtime = binary === undefined ? [] : ["--runc-binary", binary];
  }

  do(...args: readonly string[]): string {
    const { code, stdout } = finish([...this.#argv, ...args]);
    return `${code}: ${stdout}`;
  }

  ok(...args: readonly string[]): string {
    return run([...this.#argv, ...args]).stdout;
  }

  /** Runs to its end. */
  run(id: string, flags: readonly string[], ...argv: readonly string[]): string {
    return this.do("run", "--rm", ...this.#runtime, ...flags, image, id, ...argv);
  }

  terminalRun(id: string, ...argv: readonly string[]): string {
    return onTerminal([...this.#argv, "run", "--rm", "--tty", ...this.#runtime, image, id, ...argv]);
  }

  detached(id: string, flags: readonly string[], ...argv: readonly string[]): void {
    this.ok("run", "--detach", ...this.#runtime, ...flags, image, id, ...argv);
  }

  exec(id: string, flags: readonly string[], ...argv: readonly string[]): string {
    return this.do("task", "exec", "--exec-id", `e${(this.#executions += 1)}`, ...flags, id, ...argv);
  }

  status(id: string): string {
    const row = this.ok("task", "ls")
      .split("\n")
      .map((line) => line.trim().split(/\s+/))
      .find(([name]) => name === id);
    return row?.[2] ?? "none";
  }

  async remove(id: string): Promise<void> {
    this.do("task", "kill", "--signal", "KILL", id);
    await eventually(`${id} stops`, () => ["STOPPED", "none"].includes(this.status(id)));
    this.do("task", "rm", "--force", id);
    this.ok("container", "rm", id);
  }
}

function socketOf(site: Site): string {
  return join(site.directory, "containerd", "sock");
}

let site: Site;

before(async () => {
  site = new Site();
  const folder = join(site.directory, "containerd");
  mkdirSync(folder);
  const places = `root = "${folder}/root"\nstate = "${folder}/state"\n`;
  const rest = `disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "${socketOf(site)}"\n`;
  writeFileSync(join(folder, "config.toml"), `version = 2\n${places}${rest}`);
  const isReady = (): boolean => finish(["ctr", "-a", socketOf(site), "version"]).code === 0;
  await startDaemon(site, ["containerd", "-c", join(folder, "config.toml")], isReady);
  writeFileSync(join(site.directory, "box.tar"), await archiveOf(image, [site.imageTar()]));
  new Ctr(site).ok("images", "import", join(site.directory, "box.tar"));
});

after(async () => {
  await site?.[Symbol.asyncDispose]();
});

const forever = ["/bin/sleep", "1000000"];

const scenarios: readonly (readonly [string, RegExp, (ctr: Ctr) => string | Promise<string>])[] = [
  ["run: output and exit code", /^3: out\n$/, (ctr) => ctr.run("a", [], "/bin/sh", "-c", "echo out; exit 3")],
  ["run: a program that is not there", /^1: $/, (ctr) => ctr.run("a", [], "/bin/nothing")],
  [
    "run: directory, environment, a bind mount, a read-only root",
    /^0: \/tmp\nb\nseen\nread-only\n$/,
    (ctr) => {
      const file = join(ctr.site.directory, "seen");
      writeFileSync(file, "seen\n");
      const mount = `type=bind,src=${file},dst=/etc/seen,options=rbind:ro`;
      const look = "pwd; echo $A; cat /etc/seen; touch /x 2>/dev/null || echo read-only";
      const flags = ["--cwd", "/tmp", "--env", "A=b", "--mount", mount, "--read-only"];
      return ctr.run("a", flags, "/bin/sh", "-c", look);
    },
  ],
  ["run: a terminal", /\/dev\/pts\/0\n/, (ctr) => ctr.terminalRun("a", "/bin/tty")],
  [
    "a detached task: exec, ps, pause, resume, metrics",
    /^0: in it\n 5:  true RUNNING PAUSED RUNNING pids[^]*memory/,
    async (ctr) => {
      ctr.detached("a", [], ...forever);
      const said = [
        ctr.exec("a", [], "/bin/echo", "in it"),
        ctr.exec("a", ["--cwd", "/tmp"], "/bin/sh", "-c", "exit 5"),
      ];
      const pid = /a\s+(\d+)\s+RUNNING/.exec(ctr.ok("task", "ls"))?.[1] ?? "none";
      said.push(String(ctr.ok("task", "ps", "a").includes(pid)), ctr.status("a"));
      ctr.ok("task", "pause", "a");
      said.push(ctr.status("a"));
      ctr.ok("task", "resume", "a");
      said.push(ctr.status("a"));
      const metrics = ctr.ok("task", "metrics", "a");
      said.push(["pids", "cpuacct", "memory"].filter((name) => metrics.includes(name)).join(" "));
      await ctr.remove("a");
      return said.join(" ");
    },
  ],
  [
    "exec: with a user, and a program that is not there",
    /^0: 7\n 1: $/,
    async (ctr) => {
      ctr.detached("a", [], ...forever);
      const said = `${ctr.exec("a", ["--user", "7:8"], "/bin/id", "-u")} ${ctr.exec("a", [], "/bin/nothing")}`;
      await ctr.remove("a");
      return said;
    },
  ],
  [
    "kill, with a signal that is caught and with one that is not",
    /^caught STOPPED STOPPED$/,
    async (ctr) => {
      const folder = join(ctr.site.directory, "caught");
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, "file"), "");
      const mount = ["--mount", `type=bind,src=${folder},dst=/data,options=rbind:rw`];
      const program = "trap 'echo caught >/data/file; exit 4' TERM; echo set >/data/file; while :; do sleep 0.1; done";
      const word = (): string => readFileSync(join(folder, "file"), "utf8").trim();
      ctr.detached("a", mount, "/bin/sh", "-c", program);
      ctr.detached("b", [], ...forever);
      await eventually("the trap is set", () => word() === "set");
      ctr.ok("task", "kill", "a");
      ctr.ok("task", "kill", "--signal", "KILL", "b");
      await eventually("both stop", () => ["a", "b"].every((id) => ctr.status(id) === "STOPPED"));
      const said = [word(), ctr.status("a"), ctr.status("b")].join(" ");
      for (const id of ["a", "b"]) await ctr.remove(id);
      return said;
    },
  ],
  [
    "limits reach the control group",
    /^67108864 50000$/,
    async (ctr) => {
      ctr.detached("a", ["--memory-limit", String(64 * 2 ** 20), "--cpus", "0.5"], ...forever);
      const pid = /a\s+(\d+)\s+RUNNING/.exec(ctr.ok("task", "ls"))?.[1] ?? "none";
      const groups = readFileSync(`/proc/${pid}/cgroup`, "utf8").split("\n");
      const value = (controller: string, file: string): string => {
        const path = groups.find((line) => line.split(":")[1]?.split(",").includes(controller))?.split(":")[2] ?? "";
        return readFileSync(join("/sys/fs/cgroup", controller, path, file), "utf8").trim();
      };
      const said = `${value("memory", "memory.limit_in_bytes")} ${value("cpu", "cpu.cfs_quota_us")}`;
      await ctr.remove("a");
      return said;
    },
  ],
];

for (const [what, expected, act] of scenarios) {
  test(`containerd: ${what}: the same as with its default runtime`, async () => {
    const wanted = await act(new Ctr(site));
    assert.match(wanted, expected, "the default runtime itself");
    assert.equal(await act(new Ctr(site, runtime)), wanted);
  });
}
