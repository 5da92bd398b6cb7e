import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { sha256 } from "../../src/base/id.ts";
import { makeDebianGuest } from "../../src/instance/qemu/vm/debian-guest.fixture.ts";
import { testCache } from "../../src/instance/qemu/vm/test-cache.fixture.ts";
import { type Said, TestDaemon } from "./daemon.ts";

/**
 * The life of a real Debian machine, in order: each test goes on where the one before ended. Nothing is accelerated where
 * this runs, so a boot takes a minute or two.
 */
let daemon: TestDaemon;
let folder: string;
let key: string;
let address: string;

const bootLimitMs = 1_000_000;

const stackFile = (size: string): string => `
stack = "debian"

[vm.box]
disk       = { image = "debian", size = "${size}" }
firmware   = "uefi-secure"
tpm        = true
balloon    = true
cpus       = 2
memory     = "768MiB"
ssh-keys   = ["./key.pub"]
publish    = ["12222:22"]
stop-grace = "120s"
`;

before(async () => {
  daemon = await TestDaemon.start();
  folder = daemon.folder("debian", {});
  key = join(folder, "key");
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key]);
  writeFileSync(join(folder, "croft.toml"), stackFile("2GiB"));
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

const croft = async (...args: readonly string[]): Promise<Said> => {
  const said = await daemon.croft(args, { cwd: folder });
  assert.equal(said.code, 0, `croft ${args.join(" ")}: ${said.stdout}${said.stderr}`);
  return said;
};

/** What a command printed that ran inside, by the guest's own sshd. Undefined while nobody answers. */
function ssh(command: string, host = address, port = 22): string | undefined {
  const options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=10", "BatchMode=yes"];
  const flags = options.flatMap((option) => ["-o", option]);
  try {
    const argv = [...flags, "-q", "-i", key, "-p", String(port), `debian@${host}`, command];
    return execFileSync("ssh", argv, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], timeout: 60_000 }).trim();
  } catch {
    return undefined;
  }
}

async function untilSsh(command: string, host = address, port = 22): Promise<string> {
  const untilMs = Date.now() + bootLimitMs;
  for (;;) {
    const said = ssh(command, host, port);
    if (said !== undefined) return said;
    if (Date.now() > untilMs) {
      const { stdout } = await daemon.croft(["logs", "debian/box", "--tail", "40"]);
      assert.fail(`nobody answers at ${host}:${port}; its console said:\n${stdout}`);
    }
    await sleep(1_000);
  }
}

async function facts(
  name = "debian/box",
): Promise<{ status: string; addresses: { address: string }[]; exitCode?: number }> {
  return JSON.parse((await croft("inspect", name)).stdout) as Awaited<ReturnType<typeof facts>>;
}

test("boots as its file says, takes its cloud-init, and answers ssh on its address and on a published port", async () => {
  const image = await makeDebianGuest(testCache());
  await croft("image", "import", image, "--name", "debian", "--checksum", sha256(readFileSync(image)));
  await croft("up", "--yes");
  address = (await facts()).addresses[0]?.address ?? "";
  assert.equal(await untilSsh("hostname"), "box");
  assert.equal(await untilSsh("hostname", "127.0.0.1", 12_222), "box");
  assert.match(await untilSsh("cat /run/cloud-init/cloud-id"), /nocloud/);
  const secureBoot = "od -An -t u1 /sys/firmware/efi/efivars/SecureBoot-* | tr -d ' \\n'";
  assert.match(await untilSsh(secureBoot), /1$/);
  assert.equal(await untilSsh("cat /sys/class/tpm/tpm0/tpm_version_major"), "2");
  assert.match(
    await untilSsh("ip -4 -o addr show scope global"),
    new RegExp(`inet ${address.replaceAll(".", "\\.")}/`),
  );
  // The same by the guest's agent.
  assert.equal((await croft("exec", "debian/box", "sh", "-c", "hostname; cat")).stdout, "box\n");
  const guest = (await croft("vm", "guest", "debian/box")).stdout;
  assert.ok(guest.includes(`${address}/`) && /system +Debian/.test(guest), guest);
});

test("is snapshotted with its memory, changed, and goes back to the very moment", async () => {
  const boot = await untilSsh("cat /proc/sys/kernel/random/boot_id; touch before; sync");
  await croft("snapshot", "create", "debian/box", "moment", "--memory");
  assert.ok((await untilSsh("touch after; sync; ls")).includes("after"));
  await croft("snapshot", "revert", "debian/box", "moment", "--yes");
  assert.equal(await untilSsh("cat /proc/sys/kernel/random/boot_id"), boot, "it never booted again");
  assert.equal(await untilSsh("ls"), "before");
  assert.match((await croft("snapshot", "ls", "debian/box")).stdout, /moment/);
});

test("survives the daemon, and grows while it runs", async () => {
  const { status } = await facts();
  assert.equal(status, "running");
  await daemon.kill9();
  assert.equal(ssh("hostname"), "box");
  await daemon.start();
  writeFileSync(join(folder, "croft.toml"), stackFile("3GiB"));
  const boot = await untilSsh("cat /proc/sys/kernel/random/boot_id");
  await croft("up", "--yes");
  assert.equal(await untilSsh("cat /sys/block/vda/size"), String((3 * 2 ** 30) / 512));
  assert.equal(await untilSsh("cat /proc/sys/kernel/random/boot_id"), boot, "it was not restarted for that");
});

test("shuts down when it is asked to, and is cloned at once", async () => {
  await croft("stop", "debian/box");
  const { stdout } = await croft("logs", "debian/box", "--tail", "100");
  assert.match(stdout, /Power down|reboot: Power/i);
  await croft("vm", "clone", "debian/box", "twin");
  const twin = await facts("twin");
  const other = twin.addresses[0]?.address ?? "";
  assert.notEqual(other, address);
  assert.equal(await untilSsh("hostname; ls", other), "twin\nbefore");
});
