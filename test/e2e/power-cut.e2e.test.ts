import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { busyboxImage, TestDaemon } from "./daemon.ts";
import { eventually } from "./eventually.ts";

const rounds = 3;

/** No instance: what is put to the test is what the daemon acknowledged, and nothing else may hold the disk. */
const stackFile = (version: number): string => `
stack = "lasting"
${busyboxImage}
[container.app]
image    = "box"
replicas = 0
env      = { VERSION = "${version}" }
`;

let daemon: TestDaemon;
let file: string;
let last = 0;

before(async () => {
  daemon = await TestDaemon.start({ sizeMib: 320, kind: "xfs" });
  file = join(daemon.folder("lasting", { "croft.toml": stackFile(0) }), "croft.toml");
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

/** Applies one version after the other until the cut, and calls `acknowledged` for each that was taken. */
async function applyAll(cut: AbortSignal, acknowledged: (version: number) => void): Promise<void> {
  while (!cut.aborted) {
    last += 1;
    writeFileSync(file, stackFile(last));
    const { code } = await daemon.croft(["up", file, "--yes", "--message", `version ${last}`]);
    if (code === 0) acknowledged(last);
  }
}

test(`every apply that was acknowledged is there after a power cut, ${rounds} times`, async () => {
  const known: number[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    const said: number[] = [];
    const cut = new AbortController();
    const applying = applyAll(cut.signal, (version) => said.push(version));
    await eventually("some were acknowledged", () => said.length >= 3);
    await sleep(Math.random() * 200);
    // Only what was said before the cut counts: a sync under way when XFS shuts down may be told that it succeeded.
    const before = [...said];
    execFileSync("xfs_io", ["-x", "-c", "shutdown", daemon.libDir]);
    cut.abort();
    await daemon.kill9();
    execFileSync("umount", [daemon.libDir]);
    daemon.mountDisk();
    await daemon.start();
    await applying;
    known.push(...before);
    const { generations } = await daemon.client.stacks.listGenerations({ stack: "lasting" });
    const messages = new Set(generations.map(({ message }) => message));
    const oldest = Math.min(...generations.map(({ message }) => versionOf(message)));
    // Old generations are forgotten in time, by rule and not by a cut.
    for (const version of known.filter((number) => number >= oldest)) {
      assert.ok(messages.has(`version ${version}`), `round ${round}: version ${version} is lost`);
    }
    assert.ok(
      known.some((number) => number >= oldest),
      "nothing was put to the test",
    );
    const current = generations.find((generation) => generation.current);
    assert.ok(
      versionOf(current?.message) >= Math.max(...known),
      `at "${current?.message}" after ${Math.max(...known)}`,
    );
  }
});

function versionOf(message = ""): number {
  return Number(message.split(" ").at(-1));
}
