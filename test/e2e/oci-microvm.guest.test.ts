import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { archiveOf } from "./archive.ts";
import { eventually } from "./eventually.ts";
import { Ground, runtime } from "./oci-bundle.ts";
import { finish, onTerminal, run, Site, startDaemon } from "./oci-caller.ts";

/** A guest without KVM takes seconds to boot, on a busy machine many. */
const patienceMs = 180_000;

let site: Site;
/** The runtime as callers are told of it: with rules by which everything becomes a microVM. */
let asMicrovm: string;
/** The same with rules by which a container becomes one when its annotation says so. */
let byAnnotation: string;
let rules: string;

before(() => {
  site = new Site();
  rules = join(site.directory, "oci.toml");
  const cache = `cache = "${site.directory}/cache"\nrun = "${site.directory}/cache/run"\n`;
  writeFileSync(rules, `default = "microvm"\n[microvm]\n${cache}`);
  const rulesOfHost = join(site.directory, "annotation.toml");
  const rule = `[[rule]]\nengine = "microvm"\nannotation = { "croft.engine" = "microvm" }\n`;
  writeFileSync(rulesOfHost, `default = "container"\n${rule}[microvm]\n${cache}`);
  const wrapper = (name: string, file: string): string => {
    const path = join(site.directory, name);
    writeFileSync(path, `#!/bin/sh\nexec ${runtime} --rules ${file} "$@"\n`);
    chmodSync(path, 0o755);
    return path;
  };
  asMicrovm = wrapper("croft-oci", rules);
  byAnnotation = wrapper("croft-oci-annotated", rulesOfHost);
});

after(async () => {
  await site?.[Symbol.asyncDispose]();
});

const kernel = readdirSync("/boot").find((name) => name.startsWith("vmlinuz-") && name.includes("cloud"));
const kernelVersion = kernel?.slice("vmlinuz-".length) ?? "a kernel for guests is not installed";
const sayKernel = "echo kernel $(busybox uname -r)";
const podman = (...args: readonly string[]): readonly string[] => ["podman", "--runtime", "croft-oci", ...args];
/** By its path: a `docker` found earlier on PATH may be another version. */
const docker = (...args: readonly string[]): readonly string[] => ["/usr/bin/docker", ...args];
const ourGround = (): Ground => new Ground(["--rules", rules], patienceMs);
const word = (file: string): string => readFileSync(file, "utf8");

test("a bundle as a microVM: its life, its exit code, its directories", { timeout: 3 * patienceMs }, async () => {
  using on = ourGround();
  const data = join(on.directory, "data");
  mkdirSync(data);
  writeFileSync(join(data, "in"), "from outside\n");
  const note = join(on.directory, "note");
  writeFileSync(note, "");
  chmodSync(note, 0o666);
  const program = `${sayKernel} >/data/kernel; id >/data/id; cat /data/in >/data/out; echo noted >/note; echo own >/tmp/own; ulimit -Sn >/data/limits; ulimit -Hn >>/data/limits; umask >>/data/limits; cat /proc/sys/net/ipv4/ip_forward >>/data/limits; trap 'exit 4' TERM; echo >/data/ready; while :; do sleep 0.1; done`;
  const bundle = on.bundle("a", ["/bin/sh", "-c", program], (config) => {
    (config["mounts"] as object[]).push({ destination: "/data", type: "bind", source: data, options: ["rbind"] });
    (config["mounts"] as object[]).push({ destination: "/note", type: "bind", source: note, options: ["bind"] });
    config.process["user"] = { uid: 7, gid: 8, additionalGids: [9], umask: 0o27 };
    config.process["rlimits"] = [{ type: "RLIMIT_NOFILE", soft: 100, hard: 200 }];
    config.linux["sysctl"] = { "net.ipv4.ip_forward": "1" };
    // As Docker sends them, whoever asked for what.
    config.linux["resources"] = {
      devices: [{ allow: false, access: "rwm" }],
      memory: { swap: -1, reservation: 0, disableOOMKiller: false },
      cpu: { shares: 512, quota: 0, period: 0, cpus: "0" },
      blockIO: { weight: 0, weightDevice: [] },
      hugepageLimits: [{ pageSize: "2MB", limit: 0 }],
    };
    spawnSync("chown", ["7:8", data, join(on.directory, "bundle", "a", "rootfs", "tmp")]);
    config["annotations"] = { mine: "yes" };
    config["hooks"] = {
      prestart: [{ path: "/bin/sh", args: ["sh", "-c", `cat >${data}/prestart`] }],
      poststart: [{ path: "/bin/sh", args: ["sh", "-c", `cat >${data}/poststart`] }],
      poststop: [{ path: "/bin/sh", args: ["sh", "-c", `cat >${data}/poststop`] }],
    };
  });
  const pidFile = join(on.directory, "pid");
  on.ok(["create", "--bundle", bundle, "--pid-file", pidFile, "a"]);
  const created = on.state("a");
  assert.equal(created.status, "created");
  assert.equal(created.pid, Number(word(pidFile)));
  assert.equal(created.bundle, bundle);
  assert.deepEqual(created.annotations, { mine: "yes" });
  const limit = (tree: string, file: string): string => word(join("/sys/fs/cgroup", tree, on.cgroup, "a", file)).trim();
  assert.deepEqual([limit("cpu", "cpu.shares"), limit("cpuset", "cpuset.cpus")], ["512", "0"]);
  assert.ok(existsSync(join(data, "prestart")) && !existsSync(join(data, "poststart")));
  assert.match(on.oci(["create", "--bundle", bundle, "a"]).stderr, /already exists/);

  on.ok(["start", "a"]);
  assert.equal(on.state("a").status, "running");
  assert.equal(on.state("a").pid, created.pid);
  assert.ok(existsSync(join(data, "poststart")));
  await eventually("the program says so", () => existsSync(join(data, "ready")));
  assert.equal(word(join(data, "kernel")), `kernel ${kernelVersion}\n`);
  assert.equal(word(join(data, "id")), "uid=7 gid=8 groups=9\n");
  assert.equal(word(join(data, "limits")), "100\n200\n0027\n1\n");
  assert.equal(word(join(data, "out")), "from outside\n");
  assert.equal(word(note), "noted\n");
  assert.equal(word(join(bundle, "rootfs", "tmp", "own")), "own\n");
  assert.match(on.oci(["start", "a"]).stderr, /not in the state "created"/);
  assert.notEqual(on.oci(["delete", "a"]).code, 0);

  assert.equal(on.ok(["exec", "--env", "A=b", "--cwd", "/tmp", "a", "/bin/sh", "-c", "echo $A $PWD"]), "b /tmp\n");
  assert.equal(on.oci(["exec", "a", "/bin/sh", "-c", "exit 7"]).code, 7);
  assert.equal(on.ok(["exec", "a", "/bin/sh", "-c", "ulimit -Hn"]), "200\n");
  const file = join(on.directory, "process.json");
  const rlimits = [{ type: "RLIMIT_NOFILE", soft: 50, hard: 50 }];
  const process = { cwd: "/", args: ["/bin/sh", "-c", "id; ulimit -Hn; exit 5"], env: ["PATH=/bin"], rlimits };
  writeFileSync(file, JSON.stringify({ ...process, user: { uid: 0, gid: 0 } }));
  const other = on.oci(["exec", "--process", file, "a"]);
  assert.deepEqual([other.code, other.stdout], [5, "uid=0 gid=0\n50\n"], other.stderr);
  writeFileSync(file, JSON.stringify({ ...process, ioPriority: { class: "IOPRIO_CLASS_BE" } }));
  assert.match(on.oci(["exec", "--process", file, "a"]).stderr, /process\.ioPriority: a microVM cannot do it/);
  const pidOfOther = join(on.directory, "pid-of-other");
  on.ok(["exec", "--detach", "--pid-file", pidOfOther, "a", "/bin/sleep", "1000"]);
  const commandLine = (): string => word(`/proc/${word(pidOfOther)}/cmdline`);
  await eventually("its relay stands for it", () => commandLine().includes("--relay-program"));
  assert.equal(on.oci(["exec", "a", "/bin/nothing"]).code, 127);
  assert.equal(on.ok(["exec", "a", "/bin/cat"], { input: "through\n" }), "through\n");
  assert.match(on.ok(["list"]), /a +\d+ +running/);
  assert.ok(on.ok(["ps", "a"]).includes(String(created.pid)));
  assert.match(on.ok(["events", "--stats", "a"]), /"type":"stats"/);
  on.ok(["pause", "a"]);
  assert.equal(on.state("a").status, "paused");
  on.ok(["resume", "a"]);
  on.ok(["update", "--pids-limit", "20", "a"]);
  const quota = JSON.stringify({ cpu: { quota: 90_000, period: 100_000 } });
  on.ok(["update", "--resources", "-", "a"], { input: quota });
  assert.equal(limit("cpu", "cpu.cfs_quota_us"), "90000");
  on.ok(["update", "--memory", "100M", "--cpu-share", "256", "--cpu-quota=-1", "--memory-reservation=-1", "a"]);
  assert.deepEqual([limit("cpu", "cpu.shares"), limit("cpu", "cpu.cfs_quota_us")], ["256", "-1"]);
  const limits = (): object =>
    (JSON.parse(word(join(on.root, "machine", "a", "launch.json"))) as { launch: { limits: object } }).launch.limits;
  assert.deepEqual(limits(), { memoryBytes: 100 * 2 ** 20, pids: 20 });
  on.ok(["update", "--memory=-1", "a"]);
  assert.deepEqual(limits(), { pids: 20 });
  assert.match(on.oci(["update", "--memory", "much", "a"]).stderr, /--memory much: expected a number/);
  assert.match(on.oci(["update", "--blkio-weight", "100", "a"]).stderr, /blockIO\.weight/);
  const tooMuch = on.oci(["update", "--memory", String(2 ** 40), "a"]);
  assert.match(tooMuch.stderr, /memory\.limit/);

  on.ok(["kill", "a", "TERM"]);
  await eventually("it is stopped", () => on.state("a").status === "stopped");
  assert.notEqual(on.oci(["kill", "a", "TERM"]).code, 0);
  on.ok(["delete", "a"]);
  assert.ok(existsSync(join(data, "poststop")));
  assert.deepEqual(on.traces(), []);
  assert.equal(existsSync(join(on.root, "machine", "a")), false);
});

test("run gives the program's code and passes its output", { timeout: patienceMs }, () => {
  using on = ourGround();
  const bundle = on.bundle("a", ["/bin/sh", "-c", `${sayKernel}; echo wrong >&2; exit 9`]);
  const argv = [runtime, ...on.args(["run", "--bundle", bundle, "a"])];
  const { code, stdout, stderr } = finish(argv, { timeoutMs: patienceMs });
  assert.equal(code, 9, stderr);
  assert.equal(stdout, `kernel ${kernelVersion}\n`);
  assert.match(stderr, /wrong/);
  assert.deepEqual(on.traces(), []);
});

test("a microVM that cannot be created leaves nothing, and its name is free", { timeout: patienceMs }, () => {
  using on = ourGround();
  const bundle = on.bundle("a", ["/bin/true"], (config) => {
    config["hooks"] = { prestart: [{ path: "/bin/sh", args: ["sh", "-c", "exit 3"] }] };
  });
  for (const command of ["create", "run"]) {
    assert.notEqual(on.oci([command, "--bundle", bundle, "a"]).code, 0);
    assert.deepEqual(on.traces(), []);
  }
});

test(
  "run whose start fails, or that is interrupted while it boots, leaves nothing",
  { timeout: patienceMs },
  async () => {
    using on = ourGround();
    const failing = on.bundle("failing", ["/bin/true"], (config) => (config.linux["sysctl"] = { "net.nothing": "1" }));
    assert.equal(on.oci(["run", "--bundle", failing, "failing"]).code, 1);
    assert.deepEqual(on.traces(), []);
    const argv = on.args(["run", "--bundle", on.bundle("a", ["/bin/sleep", "1000000"]), "a"]);
    const running = spawn(runtime, argv, { stdio: "ignore" });
    const ended = once(running, "exit");
    await eventually("its machine boots", () => existsSync(join(on.root, "machine", "a", "shared", "plan.json")));
    running.kill("SIGINT");
    const [code] = (await ended) as [number | null];
    assert.notEqual(code, 0);
    assert.deepEqual(on.traces(), []);
  },
);

test("of several starts at once one starts it, and the others do it no harm", { timeout: 2 * patienceMs }, async () => {
  using on = ourGround();
  on.ok(["create", "--bundle", on.bundle("a", ["/bin/sleep", "1000000"]), "a"]);
  const codes = await Promise.all([1, 2, 3].map(() => on.start(["start", "a"])));
  assert.deepEqual(
    codes.toSorted((a, b) => a - b),
    [0, 1, 1],
  );
  assert.equal(on.state("a").status, "running");
  assert.equal(on.ok(["exec", "a", "/bin/echo", "well"]), "well\n");
  on.ok(["delete", "--force", "a"]);
  assert.deepEqual(on.traces(), []);
});

test("what a microVM cannot do is refused by its field before anything is there", () => {
  using on = ourGround();
  const refused = (name: string, message: RegExp, change: Parameters<Ground["bundle"]>[2]): void => {
    const { code, stderr } = on.oci(["create", "--bundle", on.bundle(name, ["/bin/true"], change), "a"]);
    assert.equal(code, 1);
    assert.match(stderr, message);
    assert.deepEqual(on.traces(), []);
    assert.equal(existsSync(join(on.root, "machine", "a")), false);
  };
  refused("device", /linux\.devices\[0\]: a microVM has no \/dev\/fuse/, (config) => {
    config.linux["devices"] = [{ type: "c", path: "/dev/fuse", major: 10, minor: 229 }];
  });
  refused("host-network", /linux\.namespaces: a microVM cannot have the host's network/, (config) => {
    config.linux["namespaces"] = ["pid", "mount", "ipc", "uts"].map((type) => ({ type }));
  });
  refused("user", /linux\.namespaces\[\d\]: a microVM has users of its own/, (config) => {
    (config.linux["namespaces"] as object[]).push({ type: "user" });
  });
  refused("hook", /hooks\.startContainer/, (config) => {
    config["hooks"] = { startContainer: [{ path: "/bin/true" }] };
  });
  refused("scheduler", /process\.scheduler: a microVM cannot do it/, (config) => {
    config.process["scheduler"] = { policy: "SCHED_BATCH" };
  });
});

test("a microVM whose start is killed is taken away by delete --force", { timeout: 2 * patienceMs }, async () => {
  using on = ourGround();
  const bundle = on.bundle("a", ["/bin/sleep", "1000000"]);
  for (const afterMs of [200, 900, 2500]) {
    on.ok(["create", "--bundle", bundle, "a"]);
    const argv = ["-c", '"$@" >/dev/null 2>&1', "sh", "timeout", "-s", "KILL", String(afterMs / 1000)];
    spawnSync("sh", [...argv, runtime, ...on.args(["start", "a"])], { stdio: "ignore" });
    on.ok(["delete", "--force", "a"]);
    await eventually(`nothing is left: ${on.traces().join(", ")}`, () => on.traces().length === 0);
    assert.equal(existsSync(join(on.root, "machine", "a")), false);
  }
});

test("a microVM whose create is killed is taken away by delete --force", { timeout: patienceMs }, async () => {
  using on = ourGround();
  const bundle = on.bundle("a", ["/bin/sleep", "1000000"]);
  for (let afterMs = 50; afterMs <= 800; afterMs += 50) {
    const argv = ["-c", '"$@" >/dev/null 2>&1', "sh", "timeout", "-s", "KILL", String(afterMs / 1000)];
    spawnSync("sh", [...argv, runtime, ...on.args(["create", "--bundle", bundle, "a"])], { stdio: "ignore" });
    on.ok(["delete", "--force", "a"]);
    await eventually(`nothing is left: ${on.traces().join(", ")}`, () => on.traces().length === 0);
  }
});

test("podman: a container as a microVM, on podman's own bridge", { timeout: 3 * patienceMs }, async () => {
  const folder = join(site.directory, "podman");
  mkdirSync(join(folder, "cni"), { recursive: true });
  const ipam = { type: "host-local", ranges: [[{ subnet: "10.88.0.0/16" }]], routes: [{ dst: "0.0.0.0/0" }] };
  const plugin = { type: "bridge", bridge: "cni-podman0", isGateway: true, ipMasq: true, hairpinMode: true, ipam };
  const list = { cniVersion: "0.4.0", name: "podman", plugins: [plugin] };
  writeFileSync(join(folder, "cni", "87-podman.conflist"), JSON.stringify(list));
  writeFileSync(
    join(folder, "storage.conf"),
    `[storage]\ndriver = "overlay"\ngraphroot = "${folder}/root"\nrunroot = "${folder}/run"\n`,
  );
  const network = `[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["/usr/lib/cni"]\nnetwork_config_dir = "${folder}/cni"\n`;
  const engine = `[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n[engine.runtimes]\ncroft-oci = ["${byAnnotation}"]\n`;
  const limits = `[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n`;
  writeFileSync(join(folder, "containers.conf"), network + engine + limits);
  const env = {
    CONTAINERS_STORAGE_CONF: join(folder, "storage.conf"),
    CONTAINERS_CONF: join(folder, "containers.conf"),
  };
  const options = { env, timeoutMs: patienceMs };
  const ok = (...args: readonly string[]): string => run(podman(...args), options).stdout;
  const inNamespaces = ["--cgroup-parent", site.cgroup];
  const own = [...inNamespaces, "--annotation", "croft.engine=microvm"];
  run(["podman", "import", "-", "box:1"], { env, input: site.imageTar() });
  const host = run(["uname", "-r"]).stdout;
  assert.equal(ok("run", "--rm", ...inNamespaces, "box:1", "/bin/sh", "-c", sayKernel), `kernel ${host}`);

  const once = finish(podman("run", "--rm", ...own, "box:1", "/bin/sh", "-c", `${sayKernel}; exit 3`), options);
  assert.deepEqual([once.code, once.stdout], [3, `kernel ${kernelVersion}\n`], once.stderr);

  const shared = join(site.directory, "shared");
  mkdirSync(shared, { recursive: true });
  writeFileSync(join(shared, "file"), "seen\n");
  const program = "cat /data/file; hostname; while :; do echo from the guest | busybox nc -l -p 7000; done";
  ok(
    "run",
    "-d",
    ...own,
    "--name",
    "vm",
    "--hostname",
    "box",
    "-v",
    `${shared}:/data`,
    "box:1",
    "/bin/sh",
    "-c",
    program,
  );
  await eventually("its first words", () => ok("logs", "vm").includes("seen\nbox\n"));
  const pid = Number(ok("inspect", "vm", "--format", "{{.State.Pid}}"));
  assert.match(word(`/proc/${pid}/cmdline`), /--watch-machine/);
  ok("exec", "-d", "vm", "/bin/sleep", "1000000");
  assert.equal(ok("exec", "vm", "/bin/echo", "beside it"), "beside it\n");
  assert.match(
    onTerminal(podman("exec", "-it", "vm", "/bin/sh", "-c", "sleep 1; tty; stty size"), options),
    /\/dev\/pts\/\d+\n37 91/,
  );
  const address = ok("inspect", "vm", "--format", "{{.NetworkSettings.IPAddress}}").trim();
  const heard = await eventually("an answer over the bridge", () => {
    const { stdout } = finish(["busybox", "timeout", "5", "busybox", "nc", address, "7000"]);
    return stdout !== "" && stdout;
  });
  assert.equal(heard, "from the guest\n");
  ok("pause", "vm");
  assert.equal(ok("inspect", "vm", "--format", "{{.State.Status}}").trim(), "paused");
  ok("unpause", "vm");
  ok("stop", "--time", "10", "vm");
  assert.equal(ok("inspect", "vm", "--format", "{{.State.ExitCode}}").trim(), "143");
  ok("rm", "vm");

  const terminal = onTerminal(
    podman("run", "--rm", "-it", ...own, "box:1", "/bin/sh", "-c", "sleep 2; test -t 0 && echo a terminal; stty size"),
    options,
  );
  assert.match(terminal, /a terminal\n37 91/);
});

test("containerd: a task as a microVM", { timeout: 2 * patienceMs }, async () => {
  const folder = join(site.directory, "containerd");
  mkdirSync(folder);
  const socket = join(folder, "sock");
  const places = `root = "${folder}/root"\nstate = "${folder}/state"\n`;
  const rest = `disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "${socket}"\n`;
  writeFileSync(join(folder, "config.toml"), `version = 2\n${places}${rest}`);
  const ctr = (...args: readonly string[]): readonly string[] => [
    "ctr",
    "-a",
    socket,
    "-n",
    site.cgroup.slice(1),
    ...args,
  ];
  const isReady = (): boolean => finish(ctr("version")).code === 0;
  await startDaemon(site, ["containerd", "-c", join(folder, "config.toml")], isReady);
  const image = "docker.io/library/box:1";
  writeFileSync(join(site.directory, "box.tar"), await archiveOf(image, [site.imageTar()]));
  run(ctr("images", "import", join(site.directory, "box.tar")));
  const options = { timeoutMs: patienceMs };
  const own = ["--runc-binary", asMicrovm];
  const once = finish(ctr("run", "--rm", ...own, image, "a", "/bin/sh", "-c", `${sayKernel}; exit 3`), options);
  assert.deepEqual([once.code, once.stdout], [3, `kernel ${kernelVersion}\n`], once.stderr);
  run(ctr("run", "-d", ...own, image, "b", "/bin/sleep", "1000000"), options);
  assert.equal(
    run(ctr("task", "exec", "--exec-id", "e1", "b", "/bin/echo", "beside it"), options).stdout,
    "beside it\n",
  );
  assert.match(run(ctr("task", "ls")).stdout, /b\s+\d+\s+RUNNING/);
  run(ctr("task", "pause", "b"));
  assert.match(run(ctr("task", "ls")).stdout, /b\s+\d+\s+PAUSED/);
  run(ctr("task", "resume", "b"));
  run(ctr("task", "kill", "--signal", "KILL", "b"));
  await eventually("it stops", () => /b\s+\d+\s+STOPPED/.test(run(ctr("task", "ls")).stdout));
  finish(ctr("task", "rm", "b"));
  run(ctr("container", "rm", "b"));
});

test("docker: a container as a microVM, on docker's own bridge", { timeout: 3 * patienceMs }, async () => {
  const at = (name: string): string => join(site.directory, name);
  const own = ["--data-root", at("data"), "--exec-root", at("exec"), "--pidfile", at("pid")];
  const network = ["--iptables=false", "--bip", "10.77.0.1/24", "--cgroup-parent", site.cgroup];
  const daemon = [
    "dockerd",
    ...own,
    ...network,
    "-H",
    `unix://${at("docker.sock")}`,
    "--add-runtime",
    `croft=${asMicrovm}`,
  ];
  const options = {
    env: { DOCKER_HOST: `unix://${at("docker.sock")}`, DOCKER_CONFIG: site.directory },
    timeoutMs: patienceMs,
  };
  const ok = (...args: readonly string[]): string => run(docker(...args), options).stdout;
  await startDaemon(site, daemon, () => finish(docker("version"), options).code === 0);
  run(docker("import", "-", "box:1"), { ...options, input: site.imageTar() });
  const once = finish(
    docker("run", "--rm", "--runtime", "croft", "box:1", "/bin/sh", "-c", `${sayKernel}; exit 3`),
    options,
  );
  assert.deepEqual([once.code, once.stdout], [3, `kernel ${kernelVersion}\n`], once.stderr);
  const program = "echo begun; while :; do echo from the guest | busybox nc -l -p 7000; done";
  ok("run", "-d", "--runtime", "croft", "--name", "vm", "box:1", "/bin/sh", "-c", program);
  await eventually("its first words", () => ok("logs", "vm").includes("begun"));
  assert.equal(ok("exec", "vm", "/bin/echo", "beside it"), "beside it\n");
  const address = ok("inspect", "vm", "--format", "{{.NetworkSettings.IPAddress}}").trim();
  const heard = await eventually("an answer over the bridge", () => {
    const { stdout } = finish(["busybox", "timeout", "5", "busybox", "nc", address, "7000"]);
    return stdout !== "" && stdout;
  });
  assert.equal(heard, "from the guest\n");
  ok("pause", "vm");
  ok("unpause", "vm");
  ok("kill", "vm");
  await eventually("it is dead", () => ok("inspect", "vm", "--format", "{{.State.Status}}").trim() === "exited");
  assert.equal(ok("inspect", "vm", "--format", "{{.State.ExitCode}}").trim(), "137");
  ok("rm", "vm");
});
