import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { eventually } from "./eventually.ts";
import { runtime } from "./oci-bundle.ts";
import { asSomebody, finish, onTerminal, run, Site, startDaemon } from "./oci-caller.ts";

/** By its path: a `docker` found earlier on PATH may be another version. */
const client = "/usr/bin/docker";

/** docker on a daemon of our own, with its default runtime or with ours. */
class Docker {
  readonly site: Site;
  readonly #env: Readonly<Record<string, string>>;
  readonly #runtime: readonly string[];

  constructor(site: Site, name?: string) {
    this.site = site;
    this.#env = { DOCKER_HOST: `unix://${join(site.directory, "docker.sock")}`, DOCKER_CONFIG: site.directory };
    this.#runtime = name === undefined ? [] : ["--runtime", name];
  }

  do(...args: readonly string[]): string {
    const { code, stdout } = finish([client, ...args], { env: this.#env });
    return `${code}: ${stdout}`;
  }

  ok(...args: readonly string[]): string {
    return run([client, ...args], { env: this.#env }).stdout;
  }

  run(...args: readonly string[]): string {
    return this.runIn("none", ...args);
  }

  /** Of two networks on a command line this docker takes the first. */
  runIn(network: string, ...args: readonly string[]): string {
    return this.do("run", "--network", network, ...this.#runtime, ...args);
  }

  terminalRun(...args: readonly string[]): string {
    return onTerminal([client, "run", "--network", "none", ...this.#runtime, ...args], { env: this.#env });
  }

  terminal(...args: readonly string[]): string {
    return onTerminal([client, ...args], { env: this.#env });
  }

  /** Takes away what a scenario that failed left behind. */
  clear(): void {
    const ids = this.ok("ps", "--all", "--quiet").split("\n").filter(Boolean);
    if (ids.length > 0) this.ok("rm", "--force", ...ids);
  }

  import(tar: Buffer): void {
    run([client, "import", "-", "box:1"], { env: this.#env, input: tar });
  }

  field(container: string, field: string): string {
    return this.ok("inspect", container, "--format", `{{.${field}}}`).trim();
  }
}

let site: Site;

before(async () => {
  site = new Site();
  const at = (name: string): string => join(site.directory, name);
  const own = ["--data-root", at("data"), "--exec-root", at("exec"), "--pidfile", at("pid")];
  const none = ["--bridge", "none", "--iptables=false", "--cgroup-parent", site.cgroup];
  const daemon = ["dockerd", ...own, ...none, "-H", `unix://${at("docker.sock")}`, "--add-runtime", `croft=${runtime}`];
  const docker = new Docker(site);
  await startDaemon(site, daemon, () => docker.do("version").startsWith("0"));
  docker.import(site.imageTar());
});

after(async () => {
  await site?.[Symbol.asyncDispose]();
});

const forever = ["/bin/sleep", "1000000"];

const scenarios: readonly (readonly [string, RegExp, (docker: Docker) => string | Promise<string>])[] = [
  [
    "run: output and exit code",
    /^3: out\n$/,
    (docker) => docker.run("--rm", "box:1", "/bin/sh", "-c", "echo out; exit 3"),
  ],
  ["run: a program that is not there", /^127: $/, (docker) => docker.run("--rm", "box:1", "/bin/nothing")],
  ["run: a directory as program", /^126: $/, (docker) => docker.run("--rm", "box:1", "/etc")],
  [
    "run: user, directory, environment, hostname",
    /^0: uid=7 gid=8[^]*\/tmp\nb\nname\n$/,
    (docker) => docker.run("--rm", ...asSomebody),
  ],
  [
    "run: a terminal of the size of ours",
    /\/dev\/pts\/0\n37 91\n/,
    (docker) => docker.terminalRun("--rm", "-it", "box:1", "/bin/sh", "-c", "sleep 1; tty; stty size"),
  ],
  [
    "a detached container: exec, logs, top",
    /^started\n running 0: in it\n 0: 9\n \/dev\/pts\/\d+\n 5: [^]*sleep N/,
    async (docker) => {
      docker.run("-d", "--name", "aa", "box:1", "/bin/sh", "-c", "echo started; exec sleep 1000");
      await eventually("its first words", () => docker.ok("logs", "aa").includes("started"));
      const said = [
        docker.ok("logs", "aa"),
        docker.field("aa", "State.Status"),
        docker.do("exec", "aa", "/bin/echo", "in it"),
        docker.do("exec", "--user", "9", "aa", "/bin/id", "-u"),
        docker.terminal("exec", "-it", "aa", "/bin/tty"),
        docker.do("exec", "aa", "/bin/sh", "-c", "exit 5"),
        docker
          .ok("top", "aa", "-o", "pid,args")
          .replaceAll(/\d{2,}/g, "N")
          .replaceAll(/ +/g, " "),
      ].join(" ");
      docker.ok("rm", "--force", "aa");
      return said;
    },
  ],
  [
    "exec: a program that is not there",
    /^12[67]: [^]*126: /,
    (docker) => {
      docker.run("-d", "--name", "aa", "box:1", ...forever);
      const said = [
        docker.do("exec", "aa", "/bin/nothing").slice(0, 5),
        docker.do("exec", "aa", "nothing").slice(0, 5),
      ];
      said.push(docker.do("exec", "aa", "/etc").slice(0, 5));
      docker.ok("rm", "--force", "aa");
      return said.join(" ");
    },
  ],
  [
    "stop, with the signal caught and with the signal ignored",
    /^exited 4 exited 137$/,
    (docker) => {
      docker.run("-d", "--name", "aa", "box:1", "/bin/sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.1; done");
      docker.run("-d", "--name", "bb", "box:1", ...forever);
      docker.ok("stop", "--time", "20", "aa");
      docker.ok("stop", "--time", "1", "bb");
      const said = ["aa", "bb"].map(
        (name) => `${docker.field(name, "State.Status")} ${docker.field(name, "State.ExitCode")}`,
      );
      docker.ok("rm", "aa", "bb");
      return said.join(" ");
    },
  ],
  [
    "kill, start again, restart",
    /^137 running running$/,
    async (docker) => {
      docker.run("-d", "--name", "aa", "box:1", ...forever);
      docker.ok("kill", "aa");
      await eventually("it is dead", () => docker.field("aa", "State.Status") === "exited");
      const code = docker.field("aa", "State.ExitCode");
      docker.ok("start", "aa");
      const started = docker.field("aa", "State.Status");
      docker.ok("restart", "--time", "0", "aa");
      const said = `${code} ${started} ${docker.field("aa", "State.Status")}`;
      docker.ok("rm", "--force", "aa");
      return said;
    },
  ],
  [
    "pause, unpause, update",
    /^paused running 44$/,
    (docker) => {
      docker.run("-d", "--name", "aa", "--pids-limit", "33", "box:1", ...forever);
      docker.ok("pause", "aa");
      const paused = docker.field("aa", "State.Status");
      docker.ok("unpause", "aa");
      docker.ok("update", "--pids-limit", "44", "aa");
      const groups = readFileSync(`/proc/${docker.field("aa", "State.Pid")}/cgroup`, "utf8").split("\n");
      const path = groups.find((line) => line.split(":")[1] === "pids")?.split(":")[2] ?? "";
      const limit = readFileSync(join("/sys/fs/cgroup/pids", path, "pids.max"), "utf8").trim();
      const said = `${paused} ${docker.field("aa", "State.Status")} ${limit}`;
      docker.ok("rm", "--force", "aa");
      return said;
    },
  ],
  [
    "a healthcheck",
    /^healthy$/,
    async (docker) => {
      const check = ["--health-cmd", "test -e /bin/sh", "--health-interval", "1s", "--health-retries", "1"];
      docker.run("-d", "--name", "aa", ...check, "box:1", ...forever);
      const said = await eventually("a verdict", () => {
        const status = docker.field("aa", "State.Health.Status");
        return status !== "starting" && status;
      });
      docker.ok("rm", "--force", "aa");
      return said;
    },
  ],
  [
    "volumes and binds, read-only and not",
    /^0: seen\nkept\nread-only\n kept$/,
    (docker) => {
      const shared = join(docker.site.directory, "shared");
      mkdirSync(shared, { recursive: true });
      writeFileSync(join(shared, "file"), "seen\n");
      const look =
        "cat /data/file; echo kept >/tmp/kept; cat /tmp/kept; cat /tmp/kept >/run/out; touch /data/x 2>/dev/null || echo read-only";
      const said = docker.run(
        "--rm",
        "--volume",
        `${shared}:/data:ro`,
        "--volume",
        "vol:/tmp",
        "--volume",
        `${shared}:/run`,
        "box:1",
        "/bin/sh",
        "-c",
        look,
      );
      docker.ok("volume", "rm", "vol");
      return `${said} ${readFileSync(join(shared, "out"), "utf8").trim()}`;
    },
  ],
  [
    "an out-of-memory kill is told",
    /^5 true$/,
    (docker) => {
      // Not its first process: who is told of the kill and of the end at once may take them in either order.
      const program = "busybox tail -c 200m /dev/zero; sleep 1; exit 5";
      const limits = ["--memory", "16m", "--memory-swap", "16m"];
      docker.run("--name", "aa", ...limits, "box:1", "/bin/sh", "-c", program);
      const said = `${docker.field("aa", "State.ExitCode")} ${docker.field("aa", "State.OOMKilled")}`;
      docker.ok("rm", "aa");
      return said;
    },
  ],
  [
    "a container in another's network",
    /^0: from one\n$/,
    async (docker) => {
      const listen = "while :; do echo from one | busybox nc -l -p 7000; done";
      docker.run("-d", "--name", "one", "box:1", "/bin/sh", "-c", listen);
      const ask = ["--rm", "box:1", "/bin/busybox", "timeout", "5", "nc", "127.0.0.1", "7000"];
      const heard = await eventually("the other container", () => {
        const said = docker.runIn("container:one", ...ask);
        return said.includes("from one") && said;
      });
      docker.ok("rm", "--force", "one");
      return heard;
    },
  ],
  [
    "stats and inspect",
    /^aa true$/,
    (docker) => {
      docker.run("-d", "--name", "aa", "box:1", ...forever);
      const [name, memory] = docker.ok("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "aa").split(" ");
      docker.ok("rm", "--force", "aa");
      return `${name} ${/^[1-9]/.test(memory ?? "") || /^0?\.\d/.test(memory ?? "")}`;
    },
  ],
];

for (const [what, expected, act] of scenarios) {
  test(`docker: ${what}: the same as with its default runtime`, async () => {
    new Docker(site).clear();
    const wanted = await act(new Docker(site));
    assert.match(wanted, expected, "the default runtime itself");
    assert.equal(await act(new Docker(site, "croft")), wanted);
  });
}
