import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openHandover } from "./handover.ts";

const handover = openHandover();

/** Runs a program of a few lines that has a `handover`, in a process of its own. */
function elsewhere(lines: string): {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
} {
  const program = `import { openHandover } from ${JSON.stringify(import.meta.resolve("./handover.ts"))};
    import { openSync, writeSync } from "node:fs";
    const handover = openHandover();
    ${lines}`;
  const argv = ["--disable-warning=ExperimentalWarning", "--input-type=module", "--eval", program];
  return spawnSync(process.execPath, argv, { encoding: "utf8", timeout: 60_000 });
}

test("a file in memory is read by its path in a child, which does not inherit the descriptor", () => {
  const { fd, path } = handover.memoryFile("note");
  writeSync(fd, "noted");
  const { stdout, stderr } = spawnSync("sh", ["-c", `[ -e /proc/self/fd/${fd} ] || cat ${path}`], { encoding: "utf8" });
  closeSync(fd);
  assert.equal(stdout, "noted", stderr);
});

for (const sealed of [false, true]) {
  test(`a file in memory is read by its path in what we become${sealed ? ", also from a sealed copy" : ""}`, () => {
    const { stdout, stderr } = elsewhere(`
      const { fd, path } = handover.memoryFile("note");
      writeSync(fd, "noted");
      handover.become(["/usr/bin/cat", path], process.env, 0, ${sealed});
    `);
    assert.equal(stdout, "noted", stderr);
  });
}

test("a lock keeps other processes out, is kept by what we become, and no child has its descriptor", () => {
  const directory = mkdtempSync(join(tmpdir(), "croft-handover-"));
  const file = join(directory, "lock");
  const lock = (offset: bigint): string => `handover.lockByte(openSync(${JSON.stringify(file)}, "r+"), ${offset}n)`;
  const fd = openSync(file, "w+");
  try {
    assert.equal(handover.lockByte(fd, 7n), true);
    assert.equal(elsewhere(`console.log(${lock(7n)}, ${lock(8n)})`).stdout, "false true\n");
    const seen = spawnSync("sh", ["-c", `[ -e /proc/self/fd/${fd} ] && echo inherited`], { encoding: "utf8" });
    assert.equal(seen.stdout, "");
    const became = elsewhere(`
      const fd = openSync(${JSON.stringify(file)}, "r+");
      handover.lockByte(fd, 9n);
      handover.become(["/usr/bin/cat", "/proc/self/fdinfo/" + fd], process.env, 0);
    `);
    assert.match(became.stdout, /^lock:.* POSIX .* WRITE .* 9 9$/m, became.stderr);
  } finally {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  }
});
