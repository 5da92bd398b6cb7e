import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { eventually } from "./eventually.ts";
import { runtime } from "./oci-bundle.ts";
import { asSomebody, finish, onTerminal, run, Site } from "./oci-caller.ts";

/** A podman of our own, with the default runtime or with ours. */
class Podman {
  readonly site: Site;
  readonly #argv: readonly string[];
  readonly #options: { readonly env: Readonly<Record<string, string>>; readonly cwd: string };
  readonly #own: readonly string[];

  constructor(site: Site, name: string) {
    this.site = site;
    const folder = join(site.directory, "podman");
    mkdirSync(join(folder, "cni"), { recursive: true });
    const storage = `[storage]\ndriver = "overlay"\ngraphroot = "${folder}/root"\nrunroot = "${folder}/run"\n`;
    const engine = `[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "crun"\n`;
    const runtimes = `[engine.runtimes]\ncroft-oci = ["${runtime}"]\n`;
    const network = `[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["/usr/lib/cni"]\nnetwork_config_dir = "${folder}/cni"\n`;
    // Podman asks for more open files and processes than a confined root may have.
    const containers = `[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n`;
    writeFileSync(join(folder, "storage.conf"), storage);
    writeFileSync(join(folder, "containers.conf"), engine + runtimes + network + containers);
    this.#argv = ["podman", "--runtime", name];
    this.#own = ["--cgroup-parent", site.cgroup, "--network", "none"];
    this.#options = {
      env: {
        CONTAINERS_STORAGE_CONF: join(folder, "storage.conf"),
        CONTAINERS_CONF: join(folder, "containers.conf"),
      },
      // Podman's monitor leaves a file where it stands when the kernel ended something for want of memory.
      cwd: folder,
    };
  }

  /** Its exit code and what it printed. */
  do(...args: readonly string[]): string {
    const { code, stdout } = finish([...this.#argv, ...args], this.#options);
    return `${code}: ${stdout}`;
  }

  run(...args: readonly string[]): string {
    return this.do("run", ...this.#own, ...args);
  }

  create(...args: readonly string[]): string {
    return this.do("create", ...this.#own, ...args);
  }

  ok(...args: readonly string[]): string {
    return run([...this.#argv, ...args], this.#options).stdout;
  }

  terminal(...args: readonly string[]): string {
    return onTerminal([...this.#argv, ...args], this.#options);
  }

  terminalRun(...args: readonly string[]): string {
    return this.terminal("run", ...this.#own, ...args);
  }

  import(tar: Buffer): void {
    run([...this.#argv, "import", "-", "box:1"], { ...this.#options, input: tar });
  }

  /** One field of what inspect says. */
  field(container: string, field: string): string {
    return this.ok("inspect", container, "--format", `{{.${field}}}`).trim();
  }
}

let site: Site;

before(() => {
  site = new Site();
  new Podman(site, "crun").import(site.imageTar());
});

after(async () => {
  new Podman(site, "crun").do("pod", "rm", "--all", "--force", "--time", "0");
  new Podman(site, "crun").do("rm", "--all", "--force", "--time", "0");
  await site[Symbol.asyncDispose]();
});

const forever = ["/bin/sleep", "1000000"];

/**
 * What a person does with podman; what came of it as a text that does not depend on the runtime, and what must be in it,
 * so that two failures are not taken for agreement.
 */
const scenarios: readonly (readonly [string, RegExp, (podman: Podman) => string | Promise<string>])[] = [
  [
    "run: output and exit code",
    /^3: out\n$/,
    (podman) => podman.run("--rm", "box:1", "/bin/sh", "-c", "echo out; exit 3"),
  ],
  ["run: a program that is not there", /^127:/, (podman) => podman.run("--rm", "box:1", "/bin/nothing")],
  ["run: a directory as program", /^126:/, (podman) => podman.run("--rm", "box:1", "/etc")],
  [
    "run: user, directory, environment, hostname",
    /^0: uid=7 gid=8[^]*\/tmp\nb\nname\n$/,
    (podman) => podman.run("--rm", ...asSomebody),
  ],
  [
    "run: a terminal of the size of ours",
    /\/dev\/pts\/0\n37 91\n/,
    // Podman connects to the terminal just before the program runs, and on a busy machine its monitor notices only after it
    // has ended, whatever the runtime: then its words are in the log, and nowhere else.
    (podman) => podman.terminalRun("--rm", "-it", "box:1", "/bin/sh", "-c", "sleep 1; tty; stty size"),
  ],
  [
    "a detached container: exec, logs, state",
    /^0: [^]*started[^]*running true[^]*in it[^]*9\n \/dev\/pts\/\d+\n 5: $/,
    async (podman) => {
      const made = podman
        .run("-d", "--name", "a", "box:1", "/bin/sh", "-c", "echo started; exec sleep 1000")
        .slice(0, 3);
      await eventually("its first words", () => podman.ok("logs", "a").includes("started"));
      const said = [
        made,
        podman.ok("logs", "a"),
        podman.field("a", "State.Status"),
        String(existsSync(`/proc/${podman.field("a", "State.Pid")}`)),
        podman.do("exec", "a", "/bin/echo", "in it"),
        podman.do("exec", "--user", "9", "a", "/bin/id", "-u"),
        podman.terminal("exec", "-it", "a", "/bin/tty"),
        podman.do("exec", "a", "/bin/sh", "-c", "exit 5"),
      ].join(" ");
      podman.ok("rm", "--force", "--time", "0", "a");
      return said;
    },
  ],
  [
    "exec: a program that is not there",
    /^127: $/,
    (podman) => {
      podman.run("-d", "--name", "a", "box:1", ...forever);
      const said = podman.do("exec", "a", "/bin/nothing");
      podman.ok("rm", "--force", "--time", "0", "a");
      return said;
    },
  ],
  [
    "stop, with the signal caught",
    /^exited 4$/,
    (podman) => {
      podman.run("-d", "--name", "a", "box:1", "/bin/sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.1; done");
      podman.ok("stop", "--time", "20", "a");
      const said = `${podman.field("a", "State.Status")} ${podman.field("a", "State.ExitCode")}`;
      podman.ok("rm", "a");
      return said;
    },
  ],
  [
    "stop, with the signal ignored",
    /^exited 137$/,
    (podman) => {
      podman.run("-d", "--name", "a", "box:1", ...forever);
      podman.ok("stop", "--time", "1", "a");
      const said = `${podman.field("a", "State.Status")} ${podman.field("a", "State.ExitCode")}`;
      podman.ok("rm", "a");
      return said;
    },
  ],
  [
    "kill, wait, start again, restart",
    /^0: 137\n running running/,
    (podman) => {
      podman.run("-d", "--name", "a", "box:1", ...forever);
      podman.ok("kill", "a");
      const waited = podman.do("wait", "a");
      podman.ok("start", "a");
      const started = podman.field("a", "State.Status");
      podman.ok("restart", "--time", "0", "a");
      const said = `${waited} ${started} ${podman.field("a", "State.Status")}`;
      podman.ok("rm", "--force", "--time", "0", "a");
      return said;
    },
  ],
  [
    "pause and unpause",
    /^paused running 0: alive\n$/,
    (podman) => {
      podman.run("-d", "--name", "a", "box:1", ...forever);
      podman.ok("pause", "a");
      const paused = podman.field("a", "State.Status");
      podman.ok("unpause", "a");
      const said = `${paused} ${podman.field("a", "State.Status")} ${podman.do("exec", "a", "/bin/echo", "alive")}`;
      podman.ok("rm", "--force", "--time", "0", "a");
      return said;
    },
  ],
  [
    "a healthcheck, good and bad",
    /^0: 1: unhealthy$/,
    (podman) => {
      podman.run(
        "-d",
        "--name",
        "a",
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "disable",
        "--health-retries",
        "1",
        "box:1",
        ...forever,
      );
      podman.ok("exec", "a", "/bin/touch", "/tmp/well");
      const well = podman.do("healthcheck", "run", "a");
      podman.ok("exec", "a", "/bin/busybox", "rm", "/tmp/well");
      const ill = podman.do("healthcheck", "run", "a").slice(0, 3);
      const said = `${well}${ill}${podman.field("a", "State.Health.Status")}`;
      podman.ok("rm", "--force", "--time", "0", "a");
      return said;
    },
  ],
  [
    "volumes and binds, read-only and not",
    /^0: seen\nkept\nread-only\n kept$/,
    (podman) => {
      const shared = join(podman.site.directory, "shared");
      mkdirSync(shared, { recursive: true });
      writeFileSync(join(shared, "file"), "seen\n");
      podman.do("volume", "create", "v");
      const said = podman.run(
        "--rm",
        "--volume",
        `${shared}:/data:ro`,
        "--volume",
        "v:/tmp",
        "--volume",
        `${shared}:/run/rw`,
        "box:1",
        "/bin/sh",
        "-c",
        "cat /data/file; echo kept >/tmp/kept; cat /tmp/kept; cat /tmp/kept >/run/rw/out",
      );
      const refused = podman.run(
        "--rm",
        "--volume",
        `${shared}:/data:ro`,
        "box:1",
        "/bin/sh",
        "-c",
        "touch /data/x 2>/dev/null || echo read-only",
      );
      podman.do("volume", "rm", "v");
      return `${said}${refused.slice(3)} ${readFileSync(join(shared, "out"), "utf8").trim()}`;
    },
  ],
  [
    "limits reach the control group",
    /^67108864 25 true$/,
    (podman) => {
      podman.run("-d", "--name", "a", "--memory", "64m", "--pids-limit", "25", "--cpus", "0.5", "box:1", ...forever);
      const group = (controller: string): string => {
        const groups = readFileSync(`/proc/${podman.field("a", "State.Pid")}/cgroup`, "utf8").split("\n");
        const path = groups.find((line) => line.split(":")[1]?.split(",").includes(controller))?.split(":")[2] ?? "";
        return join("/sys/fs/cgroup", controller, path);
      };
      const said = [
        readFileSync(join(group("memory"), "memory.limit_in_bytes"), "utf8").trim(),
        readFileSync(join(group("pids"), "pids.max"), "utf8").trim(),
        String(
          Number(readFileSync(join(group("cpu"), "cpu.cfs_quota_us"), "utf8")) * 2 ===
            Number(readFileSync(join(group("cpu"), "cpu.cfs_period_us"), "utf8")),
        ),
      ].join(" ");
      podman.ok("rm", "--force", "--time", "0", "a");
      return said;
    },
  ],
  [
    // Whether podman calls it one depends on which its monitor hears of first, the kill or the end, whatever the runtime.
    "an out-of-memory kill ends it",
    /^137: $/,
    (podman) => {
      const limits = ["--memory", "16m", "--memory-swap", "16m"];
      return podman.run("--rm", ...limits, "box:1", "/bin/busybox", "tail", "-c", "200m", "/dev/zero");
    },
  ],
  [
    "capabilities, a read-only root, no-new-privileges",
    /^0: CapEff:\s0000000000000400\nNoNewPrivs:\s1\nread-only\n$/,
    (podman) =>
      podman.run(
        "--rm",
        "--cap-drop",
        "all",
        "--cap-add",
        "net_bind_service",
        "--read-only",
        "--security-opt",
        "no-new-privileges",
        "box:1",
        "/bin/sh",
        "-c",
        "grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /x 2>/dev/null || echo read-only",
      ),
  ],
  [
    "a pod, whose containers share a network",
    /^0: from one\n Running/,
    async (podman) => {
      const infra = ["--infra-image", "box:1", "--infra-command", "/bin/forever", "--network", "none"];
      podman.ok("pod", "create", "--name", "p", "--cgroup-parent", podman.site.cgroup, ...infra);
      const listen = "while :; do echo from one | busybox nc -l -p 7000; done";
      podman.ok("run", "-d", "--pod", "p", "--name", "one", "box:1", "/bin/sh", "-c", listen);
      const ask = ["run", "--rm", "--pod", "p", "box:1", "/bin/busybox", "timeout", "5", "nc", "127.0.0.1", "7000"];
      const heard = await eventually("the other container", () => {
        const said = podman.do(...ask);
        return said.includes("from one") && said;
      });
      const said = `${heard} ${podman.ok("pod", "ps", "--format", "{{.Status}}")}`;
      podman.ok("pod", "rm", "--force", "--time", "0", "p");
      return said;
    },
  ],
  [
    "build runs its steps with the runtime",
    /^0: built 42\n$/,
    (podman) => {
      const context = join(podman.site.directory, "context");
      mkdirSync(context, { recursive: true });
      writeFileSync(
        join(context, "Containerfile"),
        'FROM box:1\nRUN echo "built 42" >/tmp/built\nCMD ["/bin/cat", "/tmp/built"]\n',
      );
      podman.ok("build", "--network", "none", "--no-cache", "-t", "built:1", context);
      const said = podman.run("--rm", "built:1");
      podman.ok("rmi", "built:1");
      return said;
    },
  ],
  [
    "copying in and out, and a commit",
    /^changed\n0: changed\n$/,
    (podman) => {
      const file = join(podman.site.directory, "copied");
      writeFileSync(file, "changed\n");
      podman.run("-d", "--name", "a", "box:1", ...forever);
      podman.ok("cp", file, "a:/tmp/file");
      const inside = podman.ok("exec", "a", "/bin/cat", "/tmp/file");
      podman.ok("commit", "--quiet", "a", "second:1");
      podman.ok("rm", "--force", "--time", "0", "a");
      const said = inside + podman.run("--rm", "second:1", "/bin/cat", "/tmp/file");
      podman.ok("rmi", "second:1");
      return said;
    },
  ],
  [
    "top shows what runs in it",
    /sleep 1000000/,
    (podman) => {
      podman.run("-d", "--name", "a", "box:1", ...forever);
      const said = podman.ok("top", "a", "args");
      podman.ok("rm", "--force", "--time", "0", "a");
      return said;
    },
  ],
];

for (const [what, expected, act] of scenarios) {
  test(`podman: ${what}: the same as with its default runtime`, async () => {
    const wanted = await act(new Podman(site, "crun"));
    assert.match(wanted, expected, "the default runtime itself");
    assert.equal(await act(new Podman(site, "croft-oci")), wanted);
  });
}

test("podman: inspect names our runtime", () => {
  const podman = new Podman(site, "croft-oci");
  podman.create("--name", "a", "box:1", ...forever);
  assert.equal(podman.field("a", "OCIRuntime"), "croft-oci");
  podman.ok("rm", "a");
});
