import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { busyboxImage, TestDaemon } from "./daemon.ts";

/** Long and odd enough to be found wherever it should not be. */
const given = "s3cr3t-given-by-the-environment-9c1f";

const stackFile = `
stack = "vault"
${busyboxImage}
[secret.made]
generate = { length = 40 }

[secret.given]
env = "VAULT_GIVEN"

[container.app]
image      = "box"
command    = ["/bin/busybox", "sleep", "1000000"]
env        = { GIVEN = { secret = "given" }, MADE = { secret = "made" } }
files      = { "/run/given" = { secret = "given" }, "/run/made" = { secret = "made" } }
user       = "0:0"
stop-grace = "100ms"
`;

let daemon: TestDaemon;
let made = "";

before(async () => {
  daemon = await TestDaemon.start();
  const folder = daemon.folder("vault", { "croft.toml": stackFile });
  const { code, stdout, stderr } = await daemon.croft(["up", folder, "--yes"], { env: { VAULT_GIVEN: given } });
  assert.equal(code, 0, stdout + stderr);
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

async function inside(...command: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await daemon.croft(["exec", "vault/app", "busybox", ...command]);
  assert.equal(code, 0, stderr);
  return stdout;
}

test("reach the instance as variables and as files that only their owner may read", async () => {
  made = await inside("cat", "/run/made");
  assert.match(made, /^\S{40}$/);
  assert.equal(await inside("cat", "/run/given"), given);
  const variables = (await inside("env")).split("\n");
  assert.ok(variables.includes(`GIVEN=${given}`));
  assert.ok(variables.includes(`MADE=${made}`));
  assert.match(await inside("stat", "-c", "%a %u", "/run/given"), /^400 0$/m);
});

test("a generated one stays what it is", async () => {
  const folder = join(daemon.root, "stacks", "vault");
  const again = await daemon.croft(["up", folder, "--yes"], { env: { VAULT_GIVEN: given } });
  assert.equal(again.code, 0, again.stderr);
  assert.equal(await inside("cat", "/run/made"), made);
});

test("are not in anything that the command line shows", async () => {
  const commands = [
    ["inspect", "vault/app", "--json"],
    ["ps", "--json"],
    ["history", "vault", "--json"],
    ["diff", "vault", "--json"],
    ["secret", "ls", "--json"],
    ["plan", join(daemon.root, "stacks", "vault"), "--json"],
    ["logs", "vault/app"],
  ];
  for (const command of commands) {
    const { stdout, stderr } = await daemon.croft(command, { env: { VAULT_GIVEN: given } });
    for (const secret of [given, made]) {
      assert.ok(!(stdout + stderr).includes(secret), `croft ${command.join(" ")} shows a secret`);
    }
  }
  const seen = (await daemon.events()).map((event) => JSON.stringify(event));
  assert.ok(seen.length > 0);
  for (const secret of [given, made]) assert.ok(!seen.join("\n").includes(secret), "an event shows a secret");
});

test("are not in the daemon's log, in any process's arguments, or on any disk", () => {
  for (const secret of [given, made]) {
    assert.ok(!daemon.log().includes(secret), "the daemon's log");
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      assert.ok(!commandLine(pid).includes(secret), `the arguments of process ${pid}`);
    }
    // Volumes and writable layers are the instance's own: nothing was written there.
    for (const folder of ["lib", "etc"]) {
      const { status, stdout } = spawnSync("grep", ["-rlaF", "-e", secret, join(daemon.root, folder)], {
        encoding: "utf8",
      });
      assert.equal(status, 1, `in clear on disk: ${stdout}`);
    }
  }
});

test("are, for the runtime, only in memory", () => {
  const { stdout } = spawnSync("grep", ["-rlaF", "-e", given, join(daemon.root, "run")], { encoding: "utf8" });
  const holders = stdout.split("\n").filter((path) => path !== "");
  assert.ok(holders.length > 0, "the search finds what is there");
  for (const path of holders) {
    const { stdout: kind } = spawnSync("stat", ["-f", "-c", "%T", path], { encoding: "utf8" });
    assert.equal(kind.trim(), "tmpfs", path);
    assert.equal(spawnSync("stat", ["-c", "%a", path], { encoding: "utf8" }).stdout.trim().slice(1), "00", path);
  }
});

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}
