import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Operation, Instance } from "../../src/client/message.ts";
import { busyboxImage, TestDaemon, type Said } from "./daemon.ts";
import { eventually } from "./eventually.ts";
import { inTerminal } from "./terminal.ts";

/** The command line as a person and as a script use it, against a real daemon and real containers. */

const croftPath = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), "bin", "croft");
const box = "localhost/shop/box";

let daemon: TestDaemon;
let folder: string;

const shop = `
stack = "shop"
${busyboxImage}
[container.web]
image    = "box"
replicas = 2
command  = ["/bin/sh", "-c", "echo web is up; echo oops >&2; trap 'exit 0' TERM; while :; do busybox sleep 0.1; done"]
env      = { PATH = "/bin" }
files    = { "/etc/site" = "./site" }
health   = { exec = ["busybox", "test", "-f", "/etc/site/index.html"], interval = "200ms" }
`;

before(async () => {
  daemon = await TestDaemon.start();
  folder = daemon.folder("shop", { "croft.toml": shop, "site/index.html": "one\n", "site/empty": "" });
  mkdirSync(join(folder, "site/sub"));
  symlinkSync("../index.html", join(folder, "site/sub/link"));
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
});

async function croft(...args: string[]): Promise<Said> {
  return await daemon.croft(args, { cwd: folder });
}

async function ok(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await croft(...args);
  assert.equal(code, 0, `croft ${args.join(" ")}: ${stderr}`);
  return stdout;
}

test("a plan is shown, and off a terminal nothing is applied without being told", async () => {
  assert.match(await ok("plan"), /web-1 +create/);
  const { code, stdout, stderr } = await croft("up");
  assert.equal(code, 4, stderr);
  assert.match(stdout, /2 to create|to create/);
  assert.match(stderr, /there is no terminal to ask.*\n.*--yes/);
  assert.deepEqual(JSON.parse(await ok("ps", "--json")), { instances: [] });
});

test("up follows to the end, and a second one finds nothing to do", async () => {
  const { code, stdout, stderr } = await croft("up", "--yes");
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^shop\/web-1: healthy$/m);
  assert.match(stdout, /shop\/web-1 +box +running/);
  assert.equal(await ok("up"), "shop: nothing to do, everything is as the file says\n");
});

test("the content of files beside the stack file is part of it", async () => {
  assert.equal(await ok("exec", "web-1", "busybox", "cat", "/etc/site/index.html"), "one\n");
  writeFileSync(join(folder, "site/index.html"), "two\n");
  assert.match(await ok("plan"), /web-1/);
  await ok("up", "-y");
  assert.equal(await ok("exec", "web-2", "busybox", "cat", "/etc/site/index.html"), "two\n");
});

test("a changed image section is seen by the plan", async () => {
  writeFileSync(join(folder, "croft.toml"), shop.replace('from  = "scratch"', 'from  = "scratch"\nworkdir = "/bin"'));
  assert.match(await ok("plan"), /web-1 +recreate/);
  writeFileSync(join(folder, "croft.toml"), shop);
  assert.match(await ok("plan"), /nothing to do/);
});

test("errors in a stack file come all at once, with their places, and as exit code 2", async () => {
  const file = join(folder, "broken.toml");
  writeFileSync(file, '[container.web]\nimage = "box"\nreplicas = "two"\nmemry = "1MiB"\n');
  const { code, stderr } = await croft("check", file);
  assert.equal(code, 2);
  assert.match(stderr, /:3:/);
  assert.match(stderr, /:4:.*memry/);
  assert.match(stderr, /memory/);
});

test("with --json errors and operations are JSON, line by line", async () => {
  const refused = await croft("inspect", "nobody", "--json");
  assert.equal(refused.code, 3);
  assert.equal(refused.stdout, "");
  const { error } = JSON.parse(refused.stderr) as { error: { reason: string } };
  assert.equal(error.reason, "not-found");

  writeFileSync(join(folder, "site/index.html"), "three\n");
  const said = await ok("up", "--yes", "--json");
  const snapshots = said
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Operation);
  assert.ok(snapshots.length > 0);
  assert.equal(snapshots.at(-1)?.status, "succeeded");
});

test("an update that does not become healthy goes back, and is exit code 7", async () => {
  const broken = shop
    .replace('"busybox", "test"', '"busybox", "false", "test"')
    .replace("[container.web]", '[container.web]\nupdate = { healthy-within = "2s" }');
  writeFileSync(join(folder, "croft.toml"), broken);
  const { code, stderr } = await croft("up", "--yes");
  writeFileSync(join(folder, "croft.toml"), shop);
  assert.equal(code, 7, stderr);
  assert.match(stderr, /error: /);
  assert.match(await ok("history"), /failed|rolled-back/);
});

test("unknown verbs and flags are answered with what was meant, as exit code 2", async () => {
  for (const [words, meant] of [
    [["strat"], "croft start"],
    [["image", "lss"], "croft image ls"],
    [["ps", "--quite"], "--quiet"],
  ] as const) {
    const { code, stderr } = await croft(...words);
    assert.equal(code, 2);
    assert.ok(stderr.includes(`did you mean ${meant}?`), stderr);
  }
});

test("exec passes on the exit code, input as it is, and output apart", async () => {
  const bytes = String.fromCharCode(...Array.from({ length: 128 }, (_, index) => index)).repeat(4096);
  const echoed = await daemon.croft(["exec", "-i", "web-1", "busybox", "cat"], { input: bytes });
  assert.equal(echoed.code, 0, echoed.stderr);
  assert.ok(echoed.stdout === bytes, "what went in came out");

  const apart = await croft("exec", "web-1", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7");
  assert.deepEqual(apart, { code: 7, stdout: "out\n", stderr: "err\n" });
  assert.equal((await croft("exec", "web-1", "no-such-program")).code, 127);
  assert.equal((await croft("exec", "nobody", "true")).code, 125);
  assert.equal(
    await ok("exec", "-e", "A=b c", "-w", "/etc", "web-1", "--", "busybox", "sh", "-c", "echo $A; pwd"),
    "b c\n/etc\n",
  );
  const leaving = await croft("exec", "web-1", "busybox", "sh", "-c", "busybox sleep 1000000 & echo begun; exit 3");
  assert.deepEqual(leaving, { code: 3, stdout: "begun\n", stderr: "" }, "what it left behind is not waited for");
});

test("exec in a terminal: its size, its keys, its exit code, and the terminal afterwards as before", async () => {
  // crun sets the size while the program is about to begin, and may come a moment late; then a signal tells the program.
  const script = String.raw`
    until busybox stty size | busybox grep '30 100'; do busybox sleep 0.05; done
    trap 'busybox stty size' WINCH
    trap 'echo interrupted; busybox stty -opost; busybox printf "one\ntwo\n"; exit 42' INT
    echo ready
    while :; do busybox sleep 0.05; done`;
  const { shown, code } = await inTerminal(
    daemon.root,
    `stty -g; "$CROFT" exec -it web-1 busybox sh -c '${script.replaceAll("'", String.raw`'\''`)}'; code=$?; stty -g; exit $code`,
    [/ready/, (pty) => pty.resize(120, 40)],
    [/40 120/, "\u0003"],
  );
  assert.equal(code, 42, shown);
  assert.match(shown, /^30 100\r\nready\r\n/m);
  // The line feeds of a program that wants them bare arrive bare.
  assert.match(shown, /interrupted\r\none\ntwo\n/);
  const [before, after] = shown.match(/^[0-9a-f:]{20,}/gm) ?? [];
  assert.ok(before !== undefined && before === after, shown);
});

test("run in a terminal can be left and attached to again", async () => {
  const loop = "echo ready; while read line; do echo got-$line; done; echo end; exit 3";
  const left = await inTerminal(
    daemon.root,
    `"$CROFT" run -it --rm --name left ${box} /bin/sh -c '${loop}'`,
    [/ready/, "one\r"],
    [/got-one/, "\u0010\u0011"],
  );
  assert.equal(left.code, 0, left.shown);
  assert.match(left.shown, /it goes on/);
  const back = await inTerminal(daemon.root, `echo now; "$CROFT" attach left`, [/now/, "two\r"], [/got-two/, "\u0004"]);
  assert.equal(back.code, 3, back.shown);
  await eventually("--rm took it away", async () => (await croft("inspect", "left")).code === 3);
});

test("run passes on the exit code and leaves nothing with --rm", async () => {
  const program = ["/bin/sh", "-c", "echo from inside; exit 5"];
  assert.deepEqual(await croft("run", "--rm", "--quiet", box, ...program), {
    code: 5,
    stdout: "from inside\n",
    stderr: "",
  });
  assert.equal((await croft("run", "--rm", box, "/no/such/program")).code, 127);
  const piped = await daemon.croft(["run", "--rm", "-i", box, "/bin/busybox", "wc", "-c"], { input: "12345" });
  assert.equal(piped.stdout, "5\n", piped.stderr);
  const { instances } = JSON.parse(await ok("ps", "-a", "--json")) as { instances: Instance[] };
  assert.deepEqual(new Set(instances.map(({ stack }) => stack)), new Set(["shop"]));
});

test("a program that ends before it has read all its input is told by its own words and exit code", async () => {
  const script = "read line; echo heard $line; exit 3";
  for (const words of [
    ["exec", "-i", "web-1", "busybox", "sh", "-c", script],
    ["run", "--rm", "-i", "--quiet", box, "/bin/sh", "-c", script],
  ]) {
    const { code, stdout, stderr } = await endlesslyFed(words);
    assert.deepEqual([code, stdout, stderr], [3, "heard y\n", ""]);
  }
});

test("run in the background, and the life of what it made", async () => {
  const script = "trap 'exit 0' TERM; while :; do /bin/busybox sleep 0.1; done";
  const name = (await ok("run", "-d", "--name", "bg", "-m", "64m", "-l", "a=b", box, "/bin/sh", "-c", script)).trim();
  assert.equal(name, "bg");
  const made = JSON.parse(await ok("inspect", "bg")) as Instance;
  assert.equal(made.limits?.memoryBytes, 64 * 2 ** 20);
  assert.deepEqual(made.labels, { a: "b" });
  assert.match(await ok("top", "bg"), /PID.*\n.*trap/);
  await ok("pause", "bg");
  assert.match(await ok("ps", "--stack", "bg"), /paused/);
  await ok("unpause", "bg");
  await ok("stop", "bg");
  assert.match(await ok("ps", "-a", "--stack", "bg"), /exited/);
  await ok("start", "bg");
  assert.equal((await croft("rm", "bg")).code, 4);
  await ok("rm", "-f", "bg");
  assert.equal((await croft("inspect", "bg")).code, 3);
});

test("a signal that croft is sent reaches the process of run", async () => {
  const script = "trap 'echo caught; exit 9' INT; echo ready; while :; do /bin/busybox sleep 0.05; done";
  const child = spawn(croftPath, ["run", "--rm", box, "/bin/sh", "-c", script], {
    env: { ...process.env, CROFT_ROOT: daemon.root },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    if (text.includes("ready")) child.kill("SIGINT");
  });
  const code = await new Promise((resolve) => child.once("close", resolve));
  assert.equal(stdout, "ready\ncaught\n");
  assert.equal(code, 9);
});

test("logs keep output and errors apart, and a reader may have enough", async () => {
  const { stdout, stderr } = await croft("logs", "web-1");
  assert.match(stdout, /^web is up$/m);
  assert.match(stderr, /^oops$/m);
  assert.match(await ok("logs", "web", "--tail", "2", "-t"), /shop\/web-[12] │ \d{4}-/);
  const head = spawn("sh", ["-c", '"$0" logs shop/ -f | head -n 1', croftPath], {
    env: { ...process.env, CROFT_ROOT: daemon.root },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  head.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
    // What comes after the reader has left makes croft notice, or there is nothing more to follow.
    void croft("restart", "web");
  });
  head.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  await new Promise((resolve) => head.once("close", resolve));
  assert.doesNotMatch(said, /EPIPE/);
});

test("Ctrl-C stops following, not the work", async () => {
  // Healthy only once this test says so, which is after the interrupt: there is work left at that moment, however slow we are.
  const slow = daemon.folder("slow", {
    "croft.toml": `
stack = "slow"
${busyboxImage}
[container.gated]
image      = "box"
command    = ["/bin/busybox", "sleep", "1000000"]
env        = { PATH = "/bin" }
health     = { exec = ["busybox", "test", "-f", "/open"], interval = "200ms", retries = 1000 }
update     = { healthy-within = "5m" }
stop-grace = "100ms"
`,
  });
  const child = spawn(croftPath, ["up", "--yes"], {
    cwd: slow,
    env: { ...process.env, CROFT_ROOT: daemon.root },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  let interrupted = false;
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
    if (!interrupted && stderr.includes("slow/gated")) interrupted = child.kill("SIGINT");
  });
  const code = await new Promise((resolve) => child.once("close", resolve));
  assert.equal(code, 130, stderr);
  const [, id = ""] = /croft operation watch (\S+)/.exec(stderr) ?? [];
  await eventually("the work went on until there is something to open", async () => {
    return (await croft("exec", "slow/gated", "busybox", "touch", "/open")).code === 0;
  });
  await ok("operation", "watch", id);
  assert.match(await ok("ps", "--stack", "slow"), /slow\/gated.*running.*healthy/);
  await ok("down", "slow");
});

test("following survives a restart of the daemon, and events go on where they were", async () => {
  const events = spawn(croftPath, ["events", "--after", "0", "--json"], {
    env: { ...process.env, CROFT_ROOT: daemon.root },
    stdio: ["ignore", "pipe", "ignore"],
  });
  const sequences: number[] = [];
  let rest = "";
  const { promise: sawFirst, resolve: began } = Promise.withResolvers<void>();
  const sawNew = new Promise<void>((resolve, reject) => {
    events.once("exit", (code) => reject(new Error(`croft events ended with ${code}`)));
    events.stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const { sequence, subject } = JSON.parse(line) as { sequence: number; subject: string };
        sequences.push(sequence);
        began();
        if (subject.startsWith("late")) resolve();
      }
    });
  });
  await Promise.race([sawFirst, sawNew]);
  await daemon.restart();
  await ok("run", "--rm", "--name", "late", box, "/bin/busybox", "true");
  await sawNew;
  events.kill("SIGTERM");
  assert.deepEqual(
    sequences,
    sequences.map((_, index) => index + (sequences[0] ?? 0)),
    "no event missing, none twice",
  );
});

test("images travel through archives, whole or not at all", async () => {
  const archive = join(daemon.root, "box.tar");
  await ok("image", "save", "-o", archive, box);
  assert.ok(statSync(archive).size > 1000);
  await ok("image", "tag", box, "localhost/copy:1");
  assert.match(await ok("image", "ls"), /localhost\/copy:1/);
  await ok("image", "rm", "localhost/copy:1");
  assert.match(await ok("image", "load", "-i", archive), /box/);
  const failed = await croft("image", "save", "-o", join(daemon.root, "none.tar"), "localhost/none");
  assert.equal(failed.code, 3, failed.stderr);
  assert.ok(!existsSync(join(daemon.root, "none.tar")) && !existsSync(join(daemon.root, "none.tar.part")));
});

test("a secret's value goes in and never comes out", async () => {
  const said = await daemon.croft(["secret", "set", "shop/pass"], { input: "hunter2" });
  assert.equal(said.code, 0, said.stderr);
  const shown = (await ok("secret", "ls")) + (await ok("secret", "ls", "--json"));
  assert.match(shown, /shop\/pass/);
  assert.doesNotMatch(shown, /hunter2|aHVudGVyMg/);
  await ok("secret", "rm", "shop/pass");
});

test("doctor says how this host is, and what is wrong when nobody answers", async () => {
  assert.match(await ok("doctor"), /engine/);
  const lonely = await daemon.croft(["doctor", "--root", join(daemon.root, "nowhere")]);
  assert.equal(lonely.code, 1);
  assert.match(lonely.stdout, /✗ daemon/);
  assert.match(lonely.stdout, /does not exist/);
  assert.equal((await daemon.croft(["ps", "--root", join(daemon.root, "nowhere")])).code, 6);
});

test("a token's section lets the daemon know it, and the token opens the door", async () => {
  const { token, section } = JSON.parse(await ok("token", "create", "laptop", "--json")) as Record<string, string>;
  const config = join(daemon.root, "etc", "croftd.toml");
  writeFileSync(config, `[listen]\naddress = "127.0.0.1:17443"\n\n${section}`);
  await daemon.restart();
  const remote = ["ps", "--host", "http://127.0.0.1:17443"];
  const seen = await daemon.croft(remote, { env: { CROFT_TOKEN: token ?? "" } });
  assert.equal(seen.code, 0, seen.stderr);
  assert.match(seen.stdout, /shop\/web-1/);
  assert.equal((await daemon.croft(remote, { env: { CROFT_TOKEN: "croft_wrong" } })).code, 5);
  assert.ok(!readFileSync(config, "utf8").includes(token ?? "?"));
});

test("files of the directory where somebody stands are not taken for settings", async () => {
  const folder = daemon.folder("elsewhere", {
    ".env": "CROFT_HOST=http://127.0.0.1:1\nCROFT_TOKEN=stolen\n",
    "bunfig.toml": 'preload = ["./preload.ts"]\n',
    "preload.ts": 'console.log("somebody else\'s code")\n',
  });
  const { code, stdout, stderr } = await daemon.croft(["ps"], { cwd: folder });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^INSTANCE.*\n.*shop\/web-1/);
});

test("completion knows what runs", async () => {
  const said = await ok("__complete", "--", "exec", "-it", "shop/w");
  assert.match(said, /^shop\/web-1\trunning$/m);
  assert.match(await ok("__complete", "--", "history", ""), /^shop\t/m);
});

test("down does not take a network from under a run, and names it at once", async () => {
  await ok("run", "-d", "--name", "guest", "--network", "shop/default", box, "busybox", "sleep", "1000");
  const { code, stderr } = await croft("down");
  assert.equal(code, 4, stderr);
  assert.match(stderr, /network default: it would be removed, but guest uses it\n.*croft rm --force guest/);
  await ok("rm", "--force", "guest");
});

test("down takes the stack away, and says so", async () => {
  const { code, stderr } = await croft("down");
  assert.equal(code, 0, stderr);
  assert.deepEqual(JSON.parse(await ok("ps", "-a", "--json")), { instances: [] });
  assert.equal((await croft("down", "nobody")).code, 3);
});

/** `yes | croft WORDS` */
async function endlesslyFed(words: readonly string[]) {
  const child = spawn("sh", ["-c", 'yes | "$@"', "sh", croftPath, ...words], {
    env: { ...process.env, CROFT_ROOT: daemon.root, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { code: await ended, stdout, stderr };
}
