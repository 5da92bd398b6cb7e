import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { testCache } from "../../src/instance/qemu/vm/test-cache.fixture.ts";
import { makeTinyGuest, writeScriptDisk } from "../../src/instance/qemu/vm/tiny-guest.fixture.ts";
import { type Said, TestDaemon } from "./daemon.ts";
import { inTerminal } from "./terminal.ts";

/**
 * What a person does with a machine, by the command line alone and in this order: the guest is a shell on the serial
 * console, which is where it is looked at. Each test goes on where the one before ended.
 */
let daemon: TestDaemon;
let folder: string;

/** The section's changing lines. */
interface Parts {
  readonly data?: string;
  readonly more?: string;
  readonly networks?: string;
  readonly size?: readonly [cpus: number, memory: string];
  readonly rest?: string;
}

function stackFile({
  data = "16MiB",
  more = "",
  networks = '"default"',
  size = [1, "192MiB"],
  rest = "",
}: Parts): string {
  return `
stack = "desk"

[network.back]
internal = true

[vm.box]
disk       = { image = "tiny", size = "40MiB" }
disks      = { script = "script", data = { blank = true, size = "${data}" }${more} }
networks   = [${networks}]
cpus       = ${size[0]}
memory     = "${size[1]}"
stop-grace = "10s"
publish    = ["12223:22"]
${rest}
`;
}

before(async () => {
  daemon = await TestDaemon.start();
  folder = daemon.folder("desk", { "croft.toml": stackFile({}) });
  const path = (name: string): string => join(daemon.root, name);
  writeScriptDisk(path("script.raw"), shell);
  execFileSync("qemu-img", ["convert", "-O", "qcow2", path("script.raw"), path("script.qcow2")]);
  execFileSync("xorriso", ["-as", "mkisofs", "-quiet", "-V", "TOOLS", "-o", path("tools.iso"), path("script.raw")], {
    stdio: "ignore",
  });
  await croft("image", "import", await makeTinyGuest(testCache()), "--name", "tiny");
  await croft("image", "import", path("script.qcow2"), "--name", "script");
  await croft("image", "import", path("tools.iso"), "--unverified");
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

async function croft(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr }: Said = await daemon.croft(args, { cwd: folder });
  assert.equal(code, 0, `croft ${args.join(" ")}: ${stdout}${stderr}`);
  return stdout;
}

/** The plan for these parts is this, and is carried out. */
async function upWith(parts: Parts, ...planned: readonly RegExp[]): Promise<void> {
  writeFileSync(join(folder, "croft.toml"), stackFile(parts));
  const { stdout } = await daemon.croft(["plan"], { cwd: folder });
  for (const expected of planned) assert.match(stdout, expected);
  await croft("up", "--yes");
}

/** What a line typed at the console shows, in a terminal, which is left by the keys that leave it. */
async function typed(line: string, name = "desk/box"): Promise<string> {
  const { shown, code } = await inTerminal(
    daemon.root,
    `echo go; $CROFT vm console ${name}`,
    [/go/, "\n"],
    [/> /, `${line}; echo E"O"A\n`],
    [/EOA\r?\n/, "\u0010\u0011"],
  );
  assert.equal(code, 0, shown);
  assert.match(shown, /it goes on: croft vm console/);
  return shown.replaceAll("\r", "");
}

async function facts(name = "desk/box"): Promise<{ status: string; pid: number; disks: { name: string }[] }> {
  return JSON.parse(await croft("inspect", name)) as Awaited<ReturnType<typeof facts>>;
}

/** Waits until the guest's shell is there. */
async function untilReady(name = "desk/box"): Promise<void> {
  for (let tries = 0; tries < 600; tries += 1) {
    if (/> \n?$/.test(await croft("logs", name, "--tail", "5"))) return;
    await sleep(500);
  }
  assert.fail(await croft("logs", name));
}

/** Names of all images in `croft image ls --disks --json`. */
function names(text: string): readonly string[] {
  return (JSON.parse(text) as { images: { names?: string[] }[] }).images.flatMap((one) => one.names ?? []);
}

/** Without editing of the line, for which a terminal would have to say where its cursor is. */
const shell = `while printf "> " && read -r line; do eval "$line"; done`;

const disks = "for d in /sys/block/vd*; do echo $(cat $d/serial)=$(cat $d/size); done";

test("comes up, and is a terminal and a picture", async () => {
  await croft("up", "--yes");
  await untilReady();
  const shown = await typed(disks);
  for (const disk of ["root=81920", "script=", "data=32768", "cidata="]) assert.ok(shown.includes(disk), shown);
  // A full-screen program in it, which moves about as its terminal tells it to.
  const edited = await inTerminal(
    daemon.root,
    "echo go; $CROFT vm console desk/box",
    [/go/, "\n"],
    [/> /, "vi /tmp/letter\n"],
    [/1\/1 100%/, "ihello"],
    // Whatever follows it at once would be a key of its own with it.
    [/hello/, "\u001b"],
    [/- \/tmp\/letter \[Modified\]/, ":wq\n"],
    [/> /, "cat /tmp/letter\n"],
    [/hello\r?\n[^]*> /, "\u0010\u0011"],
  );
  assert.equal(edited.code, 0);
  await croft("vm", "screenshot", "-o", join(folder, "box.png"), "desk/box");
  assert.equal(readFileSync(join(folder, "box.png")).toString("latin1", 1, 4), "PNG");
});

test("is changed while it runs, and its plan says so", async () => {
  const { pid } = await facts();
  const more = ', more = { blank = true, size = "8MiB" }, tools = { iso = "tools.iso" }';
  await upWith({ data: "32MiB", more, networks: '"default", "back"' }, /box/);
  // A guest looks for what is behind a controller in its own time.
  const shown = await typed(
    `until [ -e /sys/block/sr0 ]; do sleep 1; done; ${disks}; ls /sys/block; ls /sys/class/net | wc -w`,
  );
  for (const word of ["data=65536", "more=16384", "sr0", "\n3\n"]) assert.ok(shown.includes(word), shown);
  await upWith({ data: "32MiB", size: [2, "256MiB"] }, /box/);
  const after = await typed(`${disks}; ls -d /sys/devices/system/cpu/cpu[0-9]* | wc -w; ls /sys/class/net | wc -w`);
  assert.match(after, /\n2\n2\n/);
  assert.ok(!after.includes("more="), after);
  assert.equal((await facts()).pid, pid, "it was never restarted");
  await upWith({ data: "32MiB", size: [2, "256MiB"], rest: "tpm = true" }, /restart/);
  assert.notEqual((await facts()).pid, pid);
  await untilReady();
});

test("goes back, sleeps and wakes", async () => {
  await typed("x=kept");
  await croft("snapshot", "create", "desk/box", "moment", "--memory");
  await croft("snapshot", "create", "desk/box", "plain");
  await typed("x=lost");
  assert.match(await croft("snapshot", "ls", "desk/box"), /moment[^]*plain/);
  await croft("snapshot", "revert", "desk/box", "moment", "--yes");
  assert.match(await typed("echo is-$x"), /is-kept/);
  await croft("suspend", "desk/box");
  assert.equal((await facts()).status, "suspended");
  await croft("vm", "clone", "desk/box", "twin");
  await croft("resume", "desk/box");
  assert.match(await typed("echo is-$x"), /is-kept/);
  await untilReady("twin");
  await croft("snapshot", "rm", "desk/box", "plain");
  assert.doesNotMatch(await croft("snapshot", "ls", "desk/box"), /plain/);
});

test("goes to another host as one file, and leaves nothing in the library that was not asked for", async () => {
  const before = await croft("image", "ls", "--disks", "--json");
  const file = join(folder, "box.croftvm");
  await croft("vm", "export", "-o", file, "desk/box");
  await croft("vm", "import", "--name", "moved", file);
  await untilReady("moved");
  assert.match(await typed(disks, "moved"), /data=65536/);
  assert.deepEqual(names(await croft("image", "ls", "--disks", "--json")), names(before));
  await croft("rm", "-f", "moved", "twin");
});

test("comes back with its disks, its TPM and its snapshots after it was taken down", async () => {
  const kept = join(daemon.libDir, "machine-state");
  const id = readdirSync(kept).find((name) => name.startsWith("desk.")) ?? "";
  const tpm = readdirSync(join(kept, id, "tpm"));
  await typed(
    'dd if=/bin/busybox of=/dev/vdc bs=512 count=8 conv=fsync 2>/dev/null; cmp -n 4096 /dev/vdc /bin/busybox && echo sa"m"e',
  );
  await croft("down", "desk", "--yes");
  assert.deepEqual(readdirSync(join(kept, id, "tpm")), tpm);
  await croft("up", "--yes");
  await untilReady();
  assert.match(await typed('cmp -n 4096 /dev/vdc /bin/busybox && echo sa"m"e'), /same/);
  assert.match(await croft("snapshot", "ls", "desk/box"), /moment/);
  await croft("down", "desk", "--volumes", "--yes");
  assert.deepEqual(readdirSync(kept), []);
});
