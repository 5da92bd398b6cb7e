import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { eventually } from "./eventually.ts";
import { Ground, runtime } from "./oci-bundle.ts";

const forever = ["/bin/sleep", "1000000"];

for (const engine of ["crun", "runc"]) {
  const ground = (): Ground => new Ground(["--engine", engine]);

  test(`${engine}: a container's life, operation by operation`, async () => {
    using on = ground();
    const annotations = { "org.example.one": "1", two: "" };
    const bundle = on.bundle("a", forever, (config) => (config["annotations"] = annotations));
    const pidFile = join(on.directory, "pid");
    on.ok(["create", "--bundle", bundle, "--pid-file", pidFile, "a"]);
    const created = on.state("a");
    assert.equal(created.status, "created");
    assert.equal(created.pid, Number(readFileSync(pidFile, "utf8")));
    assert.equal(created.bundle, bundle);
    assert.equal(created.id, "a");
    assert.match(created.ociVersion, /^1\./);
    assert.deepEqual(created.annotations, annotations);

    on.ok(["start", "a"]);
    await eventually("the program runs", () => readFileSync(`/proc/${created.pid}/comm`, "utf8") === "sleep\n");
    assert.deepEqual({ ...on.state("a"), status: "created" }, created);
    assert.equal(on.state("a").status, "running");

    assert.equal(on.ok(["exec", "--env", "A=b", "--cwd", "/tmp", "a", "/bin/sh", "-c", "echo $A $PWD"]), "b /tmp\n");
    assert.equal(on.oci(["exec", "a", "/bin/sh", "-c", "exit 7"]).code, 7);
    assert.notEqual(on.oci(["exec", "a", "/bin/nothing"]).code, 0);
    assert.match(on.ok(["exec", "--user", "5:6", "a", "/bin/id"]), /uid=5 gid=6/);

    const pids = JSON.parse(on.ok(["ps", "--format", "json", "a"])) as number[];
    assert.deepEqual(pids, [created.pid]);
    on.ok(["pause", "a"]);
    assert.equal(on.state("a").status, "paused");
    on.ok(["resume", "a"]);
    assert.equal(on.state("a").status, "running");

    on.ok(["kill", "a", "KILL"]);
    await eventually("it is stopped", () => on.state("a").status === "stopped");
    assert.equal(on.state("a").pid, 0);
    on.ok(["delete", "a"]);
    assert.deepEqual(on.traces(), []);
  });

  test(`${engine}: what the specification demands to be refused is refused`, async () => {
    using on = ground();
    const bundle = on.bundle("a", forever);
    const refused = (args: readonly string[], message: RegExp): void => {
      const { code, stderr } = on.oci(args);
      // runc says 255 when it cannot exec.
      assert.ok(code === 1 || code === 255, `${args.join(" ")}: ${code} ${stderr}`);
      assert.match(stderr, message, args.join(" "));
      assert.doesNotMatch(stderr, /\n {4}at /);
    };
    for (const command of ["start", "state", "kill", "delete", "exec", "ps", "pause", "resume", "update", "events"]) {
      refused([command, "nobody"], /container "nobody" does not exist/);
    }
    on.ok(["delete", "--force", "nobody"]);

    on.ok(["create", "--bundle", bundle, "a"]);
    refused(["create", "--bundle", bundle, "a"], /container with id "a" already exists/);
    assert.equal(on.state("a").status, "created");
    on.ok(["start", "a"]);
    refused(["start", "a"], /./);
    refused(["delete", "a"], /./);
    assert.equal(on.state("a").status, "running");
    on.ok(["kill", "a", "KILL"]);
    await eventually("it is stopped", () => on.state("a").status === "stopped");
    refused(["kill", "a", "TERM"], /no such process|not running/i);
    refused(["start", "a"], /./);
    refused(["exec", "a", "/bin/true"], /not running|stopped/);
    refused(["create", "--bundle", bundle, "a"], /already exists/);
    on.ok(["delete", "a"]);
    refused(["delete", "a"], /does not exist/);
    for (const id of ["", "..", "a/b", "a b", "-a", "x".repeat(300)]) {
      const { code } = on.oci(["create", "--bundle", bundle, "--", id]);
      assert.equal(code, 1, id);
    }
    assert.deepEqual(on.traces(), []);
  });

  test(`${engine}: what a microVM of that name left is in nobody's way`, () => {
    using on = ground();
    const leave = (): void => void mkdirSync(join(on.root, "machine", "a", "shared"), { recursive: true });
    const bundle = on.bundle("a", forever);
    leave();
    on.ok(["create", "--bundle", bundle, "a"]);
    assert.equal(existsSync(join(on.root, "machine", "a")), false);
    leave();
    on.ok(["delete", "--force", "a"]);
    assert.deepEqual(on.traces(), []);
    leave();
    on.ok(["delete", "--force", "a"]);
    assert.deepEqual(on.traces(), []);
  });

  test(`${engine}: hooks of every kind run at their moment`, () => {
    using on = ground();
    const record = join(on.directory, "record");
    const hook = (kind: string): object => ({
      path: "/bin/sh",
      args: ["sh", "-c", `read state; echo "${kind} $(echo "$state" | grep -c '"id"')" >>${record}`],
    });
    const bundle = on.bundle("a", ["/bin/sh", "-c", "echo program >>/data/record"], (config) => {
      (config["mounts"] as object[]).push({
        destination: "/data",
        type: "bind",
        source: on.directory,
        options: ["bind", "rw"],
      });
      config["hooks"] = {
        prestart: [hook("prestart")],
        createRuntime: [hook("createRuntime")],
        createContainer: [hook("createContainer")],
        // Runs inside, where the record has another name.
        startContainer: [{ path: "/bin/sh", args: ["sh", "-c", "echo startContainer 1 >>/data/record"] }],
        poststart: [hook("poststart")],
        poststop: [hook("poststop")],
      };
    });
    const said = (): string[] => readFileSync(record, "utf8").trim().split("\n");
    on.ok(["create", "--bundle", bundle, "a"]);
    // This runc runs what is to follow the start while it creates.
    const early = engine === "runc" ? ["poststart 1"] : [];
    assert.deepEqual(said(), ["prestart 1", "createRuntime 1", "createContainer 1", ...early]);
    on.ok(["start", "a"]);
    assert.ok(said().includes("startContainer 1"), said().join());
    assert.ok(said().includes("poststart 1"), said().join());
    on.ok(["delete", "--force", "a"]);
    assert.equal(said().at(-1), "poststop 1");
  });

  test(`${engine}: run ends with the program's code, and leaves nothing`, () => {
    using on = ground();
    const { code, stdout } = on.oci(["run", "--bundle", on.bundle("a", ["/bin/sh", "-c", "echo out; exit 9"]), "a"]);
    assert.equal(code, 9);
    assert.equal(stdout, "out\n");
    assert.deepEqual(on.traces(), []);
  });

  test(`${engine}: limits are changed while it runs, by options and by a file`, () => {
    using on = ground();
    on.ok(["run", "--detach", "--bundle", on.bundle("a", forever), "a"]);
    const limit = (): string | undefined =>
      ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .map((tree) => join(tree, on.cgroup, "a", "pids.max"))
        .filter((file) => existsSync(file))
        .map((file) => readFileSync(file, "utf8").trim())[0];
    on.ok(["update", "--pids-limit", "33", "a"]);
    assert.equal(limit(), "33");
    on.ok(["update", "--resources", "-", "a"], { input: '{"pids":{"limit":44}}' });
    assert.equal(limit(), "44");
    const { code, stderr } = on.oci(["update", "-r", "-", "a"], { input: '{"pids":{"limit":"many"}}' });
    assert.equal(code, 1);
    assert.match(stderr, /pids\.limit: expected a whole number/);
    assert.equal(limit(), "44");
  });

  test(`${engine}: events, list and ps tell of what runs`, () => {
    using on = ground();
    on.ok(["run", "--detach", "--bundle", on.bundle("a", forever), "a"]);
    const event = JSON.parse(on.ok(["events", "--stats", "a"])) as {
      type: string;
      id: string;
      data: { cpu: { usage: { total: number } }; memory: { usage: { usage: number } }; pids: { current: number } };
    };
    assert.equal(event.type, "stats");
    assert.equal(event.id, "a");
    assert.ok(event.data.cpu.usage.total > 0);
    assert.ok(event.data.memory.usage.usage > 0);
    assert.equal(event.data.pids.current, 1);
    const list = JSON.parse(on.ok(["list", "--format", "json"])) as { id: string; status: string; pid: number }[];
    assert.deepEqual(
      list.map(({ id, status, pid }) => ({ id, status, pid })),
      [{ id: "a", status: "running", pid: on.state("a").pid }],
    );
    assert.equal(on.ok(["list", "-q"]), "a\n");
    assert.match(on.ok(["list"]), /^ID +PID +STATUS +BUNDLE +CREATED +OWNER\na +\d+ +running +\//);
  });

  test(`${engine}: descriptors that are to be kept reach the program, others do not`, () => {
    using on = ground();
    const file = join(on.directory, "kept");
    writeFileSync(file, "kept\n");
    const fds = [openSync(file, "r"), openSync(file, "r"), openSync(file, "r")];
    const bundle = on.bundle("a", ["/bin/sh", "-c", "cat <&3; cat <&4; [ -e /proc/self/fd/5 ] || echo no more"]);
    const { stdout } = on.oci(["run", "--preserve-fds", "2", "--bundle", bundle, "a"], { stdio: fds });
    assert.equal(stdout, "kept\nkept\nno more\n");
    for (const fd of fds) closeSync(fd);
  });

  test(`${engine}: a program is started as by the runtime alone`, () => {
    using on = ground();
    const look = [
      "/bin/sh",
      "-c",
      "cat /proc/self/limits; grep -E 'Sig(Blk|Ign)|Cap|NoNew' /proc/self/status; cat /proc/self/oom_score_adj",
    ];
    const bundle = on.bundle("a", look);
    const alone = spawnSync(engine, ["--root", join(on.directory, "alone"), "run", "--bundle", bundle, "b"], {
      encoding: "utf8",
    });
    assert.equal(alone.status, 0, alone.stderr);
    assert.equal(on.ok(["run", "--bundle", bundle, "a"]), alone.stdout);
  });
}

test("errors are written where callers look for them", () => {
  using on = new Ground();
  const log = join(on.directory, "log.json");
  const { code, stderr } = on.oci(["--log", log, "--log-format", "json", "state", "nobody"]);
  assert.equal(code, 1);
  assert.match(stderr, /^container "nobody" does not exist\n$/);
  const line = JSON.parse(readFileSync(log, "utf8")) as Record<string, string>;
  assert.deepEqual(Object.keys(line), ["level", "msg", "time"]);
  assert.equal(line["level"], "error");
  assert.equal(line["msg"], 'container "nobody" does not exist');
  assert.ok(!Number.isNaN(Date.parse(line["time"] ?? "")));
  const usage = on.oci([`--log=${log}`, "--log-format=json", "fly"]);
  assert.equal(usage.code, 1);
  assert.match(readFileSync(log, "utf8").trim().split("\n")[1] ?? "", /unknown command fly/);
});

test("another configuration is the bundle's, for us and for the runtime", () => {
  using on = new Ground(["--engine", "crun"]);
  const bundle = on.bundle("a", ["/bin/echo", "config.json"]);
  const config = readFileSync(join(bundle, "config.json"), "utf8");
  writeFileSync(join(bundle, "other.json"), config.replace('"config.json"', '"other.json"'));
  assert.equal(on.ok(["run", "--bundle", bundle, "--config", "other.json", "a"]), "other.json\n");
});

test("a bundle of version 1.2 is served, whatever the runtime thinks of the number", () => {
  using on = new Ground();
  const bundle = on.bundle("a", ["/bin/echo", "served"], (config) => (config["ociVersion"] = "1.2.0"));
  assert.equal(on.ok(["run", "--bundle", bundle, "a"]), "served\n");
});

test("a bundle of version 1.2 is served when its program comes by a mount, as docker run --init has it", () => {
  using on = new Ground();
  const bundle = on.bundle("a", ["/mounted/busybox", "echo", "served"], (config) => {
    config["ociVersion"] = "1.2.0";
    const program = { destination: "/mounted/busybox", type: "bind", source: "/bin/busybox", options: ["bind", "ro"] };
    (config["mounts"] as object[]).push(program);
  });
  assert.equal(on.ok(["run", "--bundle", bundle, "a"]), "served\n");
});

test("what the runtime would ignore is refused, naming the field, before anything is there", () => {
  using on = new Ground();
  const bundle = on.bundle("a", forever, (config) => {
    config.process["scheduler"] = { policy: "SCHED_BATCH" };
    config.linux["memoryPolicy"] = { mode: "MPOL_BIND", nodes: "0" };
  });
  const { code, stderr } = on.oci(["--engine", "runc", "create", "--bundle", bundle, "a"]);
  assert.equal(code, 1);
  assert.match(stderr, /process\.scheduler: runc 1\.1\.\d+ cannot do it/);
  assert.match(stderr, /linux\.memoryPolicy/);
  assert.deepEqual(on.traces(), []);
});

test("what exec is to run is refused as create would refuse it, and never with a stack trace", () => {
  for (const engine of ["crun", "runc"]) {
    using on = new Ground(["--engine", engine]);
    on.ok(["run", "--detach", "--bundle", on.bundle("a", forever), "a"]);
    const file = join(on.directory, "process.json");
    for (const [process, message] of [
      [{ args: ["/bin/true"], scheduler: { policy: "SCHED_BATCH" } }, /process\.scheduler: \w+ [\d.]+ cannot do it/],
      [{ args: null }, /process\.args: is missing/],
      [{}, /process\.args: is missing/],
    ] as const) {
      writeFileSync(file, JSON.stringify({ cwd: "/", ...process }));
      const { code, stderr } = on.oci(["exec", "--process", file, "a"]);
      assert.equal(code, 1);
      assert.match(stderr, message);
    }
    const { code, stderr } = on.oci(["exec", "a", "/bin/sh/below", "--log=/x"]);
    assert.notEqual(code, 0);
    assert.doesNotMatch(stderr, /ENOTDIR|TypeError/);
  }
});

test("paths of a bundle stay inside it, and whatever lies there nobody waits for ever", () => {
  using on = new Ground();
  const outside = join(on.directory, "outside");
  mkdirSync(outside);
  const refused = (bundle: string, message: RegExp): void => {
    const { code, stderr } = on.oci(["create", "--bundle", bundle, "a"]);
    assert.equal(code, 1, stderr);
    assert.match(stderr, message);
    assert.doesNotMatch(stderr, /\n {4}at /);
    assert.deepEqual(on.traces(), []);
  };
  refused(join(on.directory, "nothing"), /does not exist/);
  refused(runtime, /is not a directory/);
  refused(
    on.bundle("up", forever, (config) => (config.root["path"] = "../../outside")),
    /root\.path: "\.\.\/\.\.\/outside" leads out of the bundle/,
  );
  const linked = on.bundle("linked", forever, (config) => (config.root["path"] = "root"));
  symlinkSync(outside, join(linked, "root"));
  refused(linked, /root\.path: "root" leads out of the bundle by a link/);
  refused(
    on.bundle("missing", forever, (config) => (config.root["path"] = "nothing")),
    /root\.path: .*does not exist/,
  );
  refused(
    on.bundle("file", forever, (config) => (config.root["path"] = "rootfs/bin/busybox")),
    /root\.path: .*is not a directory/,
  );
  const borrowed = on.bundle("borrowed", forever);
  writeFileSync(join(outside, "config.json"), readFileSync(join(borrowed, "config.json")));
  unlinkSync(join(borrowed, "config.json"));
  symlinkSync(join(outside, "config.json"), join(borrowed, "config.json"));
  refused(borrowed, /config\.json: leads out of the bundle/);
  const bound = on.bundle("bound", forever, (config) => {
    (config["mounts"] as object[]).push({ destination: "/data", type: "bind", source: "out", options: ["rbind"] });
  });
  symlinkSync(outside, join(bound, "out"));
  refused(bound, /mounts\[2\]\.source: "out" leads out of the bundle by a link/);
  const fifo = on.bundle("fifo", forever);
  unlinkSync(join(fifo, "config.json"));
  spawnSync("mkfifo", [join(fifo, "config.json")]);
  refused(fifo, /is not a file/);
  const large = on.bundle("large", forever);
  writeFileSync(join(large, "config.json"), " ".repeat(17 * 2 ** 20));
  refused(large, /is larger than/);
  const none = on.bundle("none", forever);
  unlinkSync(join(none, "config.json"));
  refused(none, /config\.json: does not exist/);
});

test("of many copies that make the same container at once, one succeeds, whatever their engines", async () => {
  using on = new Ground();
  const bundle = on.bundle("a", forever);
  for (let round = 0; round < 3; round += 1) {
    const codes = await Promise.all(
      ["crun", "runc", "crun", "runc", "crun", "runc"].map((engine) =>
        on.start(["--engine", engine, "create", "--bundle", bundle, "a"]),
      ),
    );
    assert.deepEqual(
      codes.toSorted((a, b) => a - b),
      [0, 1, 1, 1, 1, 1],
    );
    assert.equal(on.traces().filter((trace) => trace.startsWith("record")).length, 1);
    assert.equal(on.state("a").status, "created");
    on.ok(["delete", "--force", "a"]);
    assert.deepEqual(on.traces(), []);
  }
});

test("spec writes a bundle that runs, and says which engine it would get", () => {
  using on = new Ground();
  const bundle = on.bundle("a", forever);
  unlinkSync(join(bundle, "config.json"));
  const { code, stderr } = on.oci(["spec", "--bundle", bundle]);
  assert.equal(code, 0);
  assert.match(stderr, /engine: container, because of the default/);
  const file = join(bundle, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as { process: { terminal: boolean; args: string[] } };
  config.process.terminal = false;
  config.process.args = ["echo", "runs"];
  writeFileSync(file, JSON.stringify(config));
  assert.equal(on.ok(["run", "--bundle", bundle, "a"]), "runs\n");
  assert.equal(on.oci(["spec", "--bundle", bundle]).code, 1);
});

test("features and doctor say which engine a bundle gets, and why", () => {
  using on = new Ground();
  const rules = join(on.directory, "oci.toml");
  writeFileSync(rules, `[[rule]]\nengine = "microvm"\nimage = "evil/*"\n`);
  const bundle = on.bundle("a", forever, (config) => {
    config["annotations"] = { "io.kubernetes.cri.image-name": "evil/one" };
  });
  const features = JSON.parse(on.ok(["--rules", rules, "features", "--bundle", bundle])) as {
    ociVersionMax: string;
    annotations: Record<string, string>;
  };
  assert.equal(features.ociVersionMax, "1.2.0");
  assert.equal(features.annotations["croft.engine"], "microvm");
  assert.match(features.annotations["croft.engine.why"] ?? "", /rule 1 .*image evil\/one/);
  assert.match(on.ok(["--rules", rules, "doctor", "--bundle", bundle]), /engine +microvm, because of rule 1/);
  assert.match(on.ok(["doctor", "--bundle", bundle]), /container +(crun|runc): works[^]*engine +container/);
});

test("ps shows what the host's ps would, of the container's processes alone", () => {
  for (const engine of ["crun", "runc"]) {
    using on = new Ground(["--engine", engine]);
    on.ok(["run", "--detach", "--bundle", on.bundle("a", forever), "a"]);
    const { pid } = on.state("a");
    assert.deepEqual(JSON.parse(on.ok(["ps", "--format", "json", "a"])), [pid]);
    const [head = "", ...rows] = on.ok(["ps", "a", "-o", "comm,pid"]).trimEnd().split("\n");
    assert.match(head, /COMMAND +PID/);
    assert.deepEqual(
      rows.map((row) => row.trim().split(/ +/)),
      [["sleep", String(pid)]],
    );
    const without = on.oci(["ps", "a", "-o", "comm"]);
    assert.equal(without.code, 1);
    assert.match(without.stderr, /PID/);
  }
});

test("what cannot be checkpointed is not tried, and features says so beforehand", () => {
  for (const engine of ["crun", "runc", "microvm"]) {
    using on = new Ground(["--engine", engine]);
    const { annotations } = JSON.parse(on.ok(["features"])) as { annotations: Record<string, string> };
    const [, why] = /^no: (.*)$/.exec(annotations["croft.checkpoint"] ?? "") ?? [];
    // With a crun or a criu that can, there is nothing to refuse.
    if (why === undefined) continue;
    if (engine !== "microvm") {
      on.ok(["create", "--bundle", on.bundle("a", forever), "a"]);
      const refused = on.oci(["checkpoint", "--image-path", join(on.directory, "image"), "a"]);
      assert.deepEqual([refused.code, refused.stderr.includes(why)], [1, true], refused.stderr);
      assert.equal(existsSync(join(on.directory, "image")), false);
      assert.equal(on.state("a").status, "created");
    }
    const restored = on.oci(["restore", "--bundle", on.bundle("b", forever), "b"]);
    assert.equal(restored.code, 1);
    assert.match(restored.stderr, engine === "microvm" ? /no checkpoints/ : new RegExp(why));
    assert.equal(
      on.traces().some((trace) => trace.endsWith("/b")),
      false,
    );
  }
});
