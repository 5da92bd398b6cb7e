import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { tableName, homeBeneath } from "../../src/base/home.ts";
import { ask } from "./ask.ts";
import { busyboxImage, TestDaemon } from "./daemon.ts";
import { eventually } from "./eventually.ts";
import { programs, traceOf } from "./host-trace.ts";

const stackFile = `
stack = "hurt"
${busyboxImage}
[container.web]
image      = "box"
command    = ["/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/busybox", "echo", "here"]
publish    = ["18082:80"]
health     = { tcp = 80, interval = "200ms" }
stop-grace = "100ms"

[container.other]
image      = "box"
command    = ["/bin/busybox", "sleep", "1000000"]
stop-grace = "100ms"
`;

let daemon: TestDaemon;

before(async () => {
  daemon = await TestDaemon.start();
  const folder = daemon.folder("hurt", { "croft.toml": stackFile });
  const { code, stdout, stderr } = await daemon.croft(["up", folder, "--yes"]);
  assert.equal(code, 0, stdout + stderr);
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

/** Whatever was done: the same two run again, reachable by port and by name, with no more on the host than that takes. */
afterEach(async () => {
  await eventually("the stack is whole again", async () => {
    const stack = await daemon.client.stacks.get({ stack: "hurt" });
    if (stack.status !== "healthy" || (await ask(18082)) !== "here") return false;
    const named = await daemon.croft(["exec", "hurt/other", "busybox", "timeout", "5", "busybox", "nslookup", "web"]);
    if (named.code !== 0) throw new Error(named.stdout + named.stderr);
    const { layers: _, tables: __, ...trace } = traceOf(daemon.root);
    const whole = { monitors: 2, resolvers: 1, namespaces: 2, links: 3, cgroups: 2, roots: 2 };
    assert.deepEqual(trace, whole);
    return true;
  });
});

async function web(): Promise<{ readonly id: string; readonly pid: number }> {
  const { id, pid } = await daemon.client.instances.get({ instance: "hurt/web" });
  return { id, pid: pid ?? 0 };
}

function run(program: string, ...args: readonly string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: "utf8" });
  assert.equal(status, 0, `${program} ${args.join(" ")}: ${stderr}`);
}

async function restarted(before: { readonly pid: number }): Promise<void> {
  await eventually("another process", async () => {
    const now = await web();
    return now.pid !== 0 && now.pid !== before.pid;
  });
}

test("the main process is killed", async () => {
  const before = await web();
  process.kill(before.pid, "SIGKILL");
  await restarted(before);
  const exits = (await daemon.events()).filter(({ kind }) => kind === "instance.exited");
  assert.match(exits.at(-1)?.message ?? "", /137/);
});

test("its monitor is killed", async () => {
  const before = await web();
  const [monitor] = programs("conmon", before.id);
  assert.ok(monitor !== undefined);
  process.kill(monitor, "SIGKILL");
  await eventually("another monitor", () => {
    const [now] = programs("conmon", before.id);
    return now !== undefined && now !== monitor;
  });
});

test("its monitor is killed while nobody watches", async () => {
  const before = await web();
  await daemon.kill9();
  const [monitor] = programs("conmon", before.id);
  assert.ok(monitor !== undefined);
  process.kill(monitor, "SIGKILL");
  await daemon.start();
});

test("runtimes are killed in the middle of a start", async () => {
  const done = new AbortController();
  let killed = 0;
  const killer = (async () => {
    while (!done.signal.aborted) {
      for (const pid of [...programs("crun", daemon.root), ...programs("runc", daemon.root)]) {
        try {
          process.kill(pid, "SIGKILL");
          killed += 1;
        } catch {
          // It had ended by itself.
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  })();
  const before = await web();
  process.kill(before.pid, "SIGKILL");
  await eventually("a runtime was killed", () => killed > 0);
  done.abort();
  await killer;
  await restarted(before);
});

test("the resolver is killed", async () => {
  const [resolver] = programs("dnsmasq", daemon.root);
  assert.ok(resolver !== undefined);
  process.kill(resolver, "SIGKILL");
});

test("the bridge is deleted", () => {
  const { prefix } = homeBeneath(daemon.root);
  const { stdout } = spawnSync("ip", ["-j", "link", "show", "type", "bridge"], { encoding: "utf8" });
  const links = JSON.parse(stdout) as readonly { readonly ifname: string }[];
  const mine = links.find(({ ifname }) => ifname.startsWith(prefix));
  assert.ok(mine !== undefined);
  run("ip", "link", "delete", mine.ifname);
});

test("the table of rules is deleted", () => {
  run("nft", "delete", "table", "inet", tableName(homeBeneath(daemon.root)));
});

test("the root is unmounted", async () => {
  const { id } = await web();
  const mount = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .find((path) => path.startsWith(daemon.root) && path.includes(id));
  assert.ok(mount !== undefined);
  run("umount", "-l", mount);
});

test("what the runtime was told is deleted", async () => {
  const { id } = await web();
  const { stdout } = spawnSync("find", [join(daemon.root, "run"), "-name", "config.json", "-path", `*${id}*`], {
    encoding: "utf8",
  });
  const [config] = stdout.split("\n");
  assert.ok(config !== undefined && config !== "");
  const before = await web();
  rmSync(join(config, ".."), { recursive: true });
  process.kill(before.pid, "SIGKILL");
  await restarted(before);
});
