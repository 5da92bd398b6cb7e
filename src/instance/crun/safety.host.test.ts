import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { type InstanceId, instanceId } from "../../base/id.ts";
import type { ProgramLaunch } from "../contract.ts";
import { collect, execFacet, execSpec, factsOf, lines, refused, textOf, untilExited } from "../contract-suite.ts";
import type { ContainerEngine } from "./engine.ts";
import { HostHarness } from "./host-harness.ts";

for (const runtime of ["crun", "runc"] as const) {
  describe(`safety with ${runtime}`, () => {
    const call = backgroundCall();
    let harness: HostHarness;
    let engine: ContainerEngine;
    let last = 0;
    const newId = (): InstanceId => instanceId("safe", "web", (last += 1), "0123abcd");

    before(async () => {
      harness = await HostHarness.open(runtime);
      engine = harness.engine();
    });
    after(async () => {
      for (const { id } of await engine.list(call)) await engine.remove(id, call);
      await harness.dispose();
    });

    /** Runs a script to its end and returns its output. */
    const outputOf = async (script: string, change: Partial<ProgramLaunch> = {}): Promise<string> => {
      const id = newId();
      await engine.create(await harness.launch(id, { argv: ["sh", "-c", script], ...change }), call);
      await engine.start(id, call);
      await untilExited(engine, id);
      const found = (await lines(engine, id, { follow: false }, call)).map(textOf).join("\n");
      await engine.remove(id, call);
      return found;
    };

    /** A directory of the host that links of an image point to; nothing in it may change. */
    const victim = (): string => {
      const path = join(harness.directory, `victim-${last}`);
      mkdirSync(path, { recursive: true });
      return path;
    };

    it("gives the reduced capabilities, no new privileges and the system call filter", async () => {
      const status = await outputOf("cat /proc/self/status");
      assert.match(status, /^NoNewPrivs:\s+1$/m);
      assert.match(status, /^Seccomp:\s+2$/m);
      // The usual fourteen.
      assert.match(status, /^CapBnd:\s+00000000a80425fb$/m);
      assert.match(status, /^CapEff:\s+00000000a80425fb$/m);
    });

    it("gives another user no capabilities, but those asked for by name", async () => {
      const status = await outputOf("cat /proc/self/status; id", {
        user: "web",
        capabilities: { add: ["NET_ADMIN"], drop: ["ALL"] },
      });
      assert.match(status, /^CapEff:\s+0000000000001000$/m);
      assert.match(status, /^CapBnd:\s+0000000000001000$/m);
      assert.match(status, /uid=101.* gid=102.* groups=.*103/);
    });

    it("refuses mounts, new namespaces and the kernel's keys", async () => {
      const text = await outputOf(
        "mount -t tmpfs none /bin 2>&1; echo mount $?; unshare -n true 2>&1; echo unshare $?; cat /proc/keys /proc/kcore | wc -c; echo 1 2>&1 > /proc/sys/vm/drop_caches; echo sysctl $?",
      );
      assert.doesNotMatch(text, /^(mount|unshare|sysctl) 0$/m);
      assert.match(text, /^0$/m, "the kernel's secrets are masked");
    });

    it("shares no namespace with the host but its clock", async () => {
      const names = ["pid", "ipc", "uts", "mnt", "net", "cgroup"];
      const inside = await outputOf(names.map((name) => `ls -l /proc/self/ns/${name}`).join("; "));
      for (const name of names) {
        assert.match(inside, new RegExp(`${name}:\\[\\d+\\]`));
        assert.ok(!inside.includes(readlinkSync(`/proc/self/ns/${name}`)), `${name} is the host's`);
      }
    });

    it("refuses /proc, /sys and /dev that are links, and touches nothing behind them", async () => {
      for (const name of ["dev", "proc", "sys"]) {
        const id = newId();
        const target = victim();
        symlinkSync(target, join(harness.root(id), name));
        await refused(engine.create(await harness.launch(id), call), "hostile");
        assert.deepEqual(readdirSync(target), []);
        await engine.remove(id, call);
      }
    });

    it("keeps mounts, files and the working directory within the root when links lead out", async () => {
      const id = newId();
      const target = victim();
      const root = harness.root(id);
      symlinkSync(target, join(root, "out"));
      symlinkSync(`../../../../../../../..${target}`, join(root, "climb"));
      rmSync(join(root, "etc"), { recursive: true });
      symlinkSync(target, join(root, "etc"));
      const volume = join(harness.directory, "volume");
      mkdirSync(volume, { recursive: true });
      writeFileSync(join(volume, "mark"), "volume");
      symlinkSync(target, join(volume, "escape"));
      const launch = await harness.launch(id, {
        argv: ["sh", "-c", "cat /out/secret /climb/conf /data/mark /etc/hostname"],
        workdir: "/out/work",
        mounts: [
          { kind: "file", destination: "/out/secret", content: Buffer.from("secret\n"), mode: 0o400, secret: true },
          { kind: "file", destination: "/climb/conf", content: Buffer.from("conf\n"), mode: 0o444, secret: false },
          { kind: "bind", source: volume, destination: "/out/../data", readOnly: false },
          { kind: "file", destination: "/data/escape/x", content: Buffer.from("x"), mode: 0o444, secret: false },
          { kind: "tmpfs", destination: "/climb/tmp" },
        ],
      });
      await engine.create(launch, call);
      await engine.start(id, call);
      await untilExited(engine, id);
      const text = (await lines(engine, id, { follow: false }, call)).map(textOf).join("\n");
      assert.match(text, /^secret\nconf\nvolume/m);
      assert.match(text, /web-1/);
      assert.deepEqual(readdirSync(target), []);
      await engine.remove(id, call);
    });

    it("looks again before each start, as a workload may put links in place", async () => {
      const id = newId();
      const target = victim();
      await engine.create(await harness.launch(id, { argv: ["true"] }), call);
      await engine.start(id, call);
      await untilExited(engine, id);
      rmSync(join(harness.root(id), "dev"), { recursive: true });
      symlinkSync(target, join(harness.root(id), "dev"));
      await refused(engine.start(id, call), "hostile");
      assert.deepEqual(readdirSync(target), []);
      await engine.remove(id, call);
    });

    it("refuses working directories and mounts in proc, also behind a link", async () => {
      const id = newId();
      symlinkSync("/proc/self/fd", join(harness.root(id), "fd"));
      await refused(engine.create(await harness.launch(id, { workdir: "/fd/7" }), call), "hostile");
      const mounts = [{ kind: "tmpfs", destination: "/proc/self" } as const];
      await refused(engine.create(await harness.launch(id, { mounts }), call), "invalid");
      await engine.create(await harness.launch(id), call);
      await engine.start(id, call);
      symlinkSync("/proc/sys", join(harness.root(id), "sysctl"));
      const spec = { ...execSpec("true"), workdir: "/sysctl" };
      await refused(execFacet(engine).exec(id, spec, call), "hostile");
      await engine.remove(id, call);
    });

    it("refuses account files that are giant, or no files", async () => {
      const giant = newId();
      truncateSync(join(harness.root(giant), "etc", "group"), 2 ** 40);
      await refused(engine.create(await harness.launch(giant), call), "hostile");
      const device = newId();
      rmSync(join(harness.root(device), "etc", "passwd"));
      mkdirSync(join(harness.root(device), "etc", "passwd"));
      await refused(engine.create(await harness.launch(device), call), "precondition");
      const unknown = newId();
      await refused(engine.create(await harness.launch(unknown, { user: "nobody-here" }), call), "invalid");
      for (const id of [giant, device, unknown]) await engine.remove(id, call);
    });

    it("lets the program read its secret and nobody else, and writes it to no disk", async () => {
      const id = newId();
      const mounts = [
        {
          kind: "file",
          destination: "/run/secrets/key",
          content: Buffer.from("hunter2"),
          mode: 0o400,
          secret: true,
        } as const,
      ];
      const argv = ["sh", "-c", "cat /run/secrets/key; ls -ln /run/secrets/key; sleep 1000"];
      await engine.create(await harness.launch(id, { argv, user: "web", mounts, env: { TOKEN: "hunter3" } }), call);
      await engine.start(id, call);
      const other = await execFacet(engine).exec(id, { ...execSpec("cat /run/secrets/key"), user: "7" }, call);
      const { stdout, stderr } = await collect(other);
      assert.equal(stdout, "");
      assert.match(stderr, /denied/i);
      const all = (await lines(engine, id, { follow: false }, call)).map(textOf).join("\n");
      assert.match(all, /hunter2-r--------.* 101 +102 /);
      assert.equal(JSON.stringify(await engine.list(call)).includes("hunter"), false);
      for (const process of await engine.processes.processes(id, call)) assert.doesNotMatch(process.command, /hunter/);
      for (const path of readdirSync(harness.home.libDir, { recursive: true, encoding: "utf8" })) {
        const file = join(harness.home.libDir, path);
        // What the program itself printed is its own doing.
        if (!statSync(file).isFile() || path.startsWith("log/")) continue;
        assert.doesNotMatch(readFileSync(file, "utf8"), /hunter/);
      }
      await engine.remove(id, call);
    });

    it("gives no file to write to that lies in the host's memory", async () => {
      const id = newId();
      await engine.create(await harness.launch(id), call);
      await engine.start(id, call);
      for (const name of ["hosts", "hostname", "resolv.conf"]) {
        const path = `/etc/${name}`;
        const grown = await execFacet(engine).exec(id, execSpec(`echo grown >> ${path}`), call);
        assert.equal((await collect(grown)).stderr, "");
        const file = join(harness.home.libDir, "container", id, name);
        assert.match(readFileSync(file, "utf8"), /grown/, `${path} is on disk`);
      }
      await engine.remove(id, call);
      assert.equal(existsSync(join(harness.home.libDir, "container", id)), false);
    });

    it("keeps within limits of processes and memory, and tells when memory was the end", async () => {
      const bomb = await outputOf("for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done 2>&1; wait", { limits: { pids: 5 } });
      assert.match(bomb, /can't fork|Resource temporarily/);
      const id = newId();
      const hog = "x=x; while true; do x=$x$x; done";
      await engine.create(
        await harness.launch(id, { argv: ["sh", "-c", hog], limits: { memoryBytes: 16 * 2 ** 20 } }),
        call,
      );
      await engine.start(id, call);
      const facts = await untilExited(engine, id);
      assert.equal(facts.exit?.code, 137);
      assert.equal(facts.exit?.oomKilled, true);
      await engine.start(id, call);
      await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
      await engine.remove(id, call);
    });

    it("throttles what wants more of the processor than its share", async () => {
      const text = await outputOf(
        "for i in 1 2 3 4 5 6 7 8 9; do dd if=/dev/zero of=/dev/null bs=1M count=1000 2>/dev/null; done; cat /sys/fs/cgroup/cpu/cpu.stat /sys/fs/cgroup/cpu.stat 2>/dev/null",
        { limits: { cpus: 0.2 } },
      );
      assert.match(text, /nr_throttled [1-9]/);
    });

    it("gives an exec a terminal of the right size, which can be changed", async () => {
      const id = newId();
      await engine.create(await harness.launch(id), call);
      await engine.start(id, call);
      const terminal = { columns: 91, rows: 17 };
      const session = await execFacet(engine).exec(
        id,
        {
          ...execSpec(
            "stty size; read x; until stty size | grep -q '27 101'; do sleep 0.05; done; echo changed $x; exit 9",
            { stdin: true },
          ),
          terminal,
        },
        call,
      );
      let text = "";
      for await (const { bytes } of session.output) {
        text += Buffer.from(bytes).toString("utf8");
        if (!text.includes("17 91") || text.includes("hello")) continue;
        await session.resize(101, 27);
        await session.write(Buffer.from("hello\r"));
      }
      assert.match(text, /17 91[^]*changed hello/);
      assert.equal(await session.exited, 9);
      await engine.remove(id, call);
    });

    it("ends the input of a program in a terminal at once, and writes nothing of its own into it", async () => {
      const id = newId();
      await engine.create(await harness.launch(id), call);
      await engine.start(id, call);
      const terminal = { columns: 80, rows: 24 };
      const session = await execFacet(engine).exec(
        id,
        { ...execSpec("cat; echo end", { stdin: true }), terminal },
        call,
      );
      session.endInput();
      let text = "";
      for await (const { bytes } of session.output) text += Buffer.from(bytes).toString("utf8");
      assert.equal(text, "end\r\n");
      await engine.remove(id, call);
    });

    it("gives the main process a terminal, whose size an attached client sets", async () => {
      const id = newId();
      const argv = ["sh", "-c", "read x; stty size; exit 4"];
      await engine.create(await harness.launch(id, { argv, terminal: true, stdin: true }), call);
      const session = await engine.attach.attach(id, call);
      await engine.start(id, call);
      await session.resize(99, 33);
      await session.write(Buffer.from("go\r"));
      const { stdout } = await collect(session);
      assert.match(stdout, /33 99/);
      assert.equal(await session.exited, 4);
      assert.equal((await factsOf(engine, id))?.exit?.code, 4);
      await engine.remove(id, call);
    });
  });
}
