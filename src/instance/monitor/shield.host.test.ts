import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { homeBeneath } from "../../base/home.ts";
import { errnoOf } from "../../host/errno.ts";
import { listMounts, unmount } from "../../host/mount.ts";
import { run } from "../../host/process.ts";
import { type Layout, layoutOf } from "./layout.ts";
import { runtimes } from "./runtime.ts";
import { shielded, shieldPath } from "./shield.ts";

let directory: string;
let layout: Layout;

before(() => {
  directory = mkdtempSync(join(tmpdir(), "shield."));
  layout = layoutOf(homeBeneath(directory), "container");
  mkdirSync(layout.runDir, { recursive: true });
});

after(async () => {
  await unmount(shieldPath(layout), { detach: true });
  rmSync(directory, { recursive: true });
});

test("crun is run from a mount that nobody can write to, and which is made once", async () => {
  const made = await Promise.all([1, 2, 3].map(() => shielded(runtimes.crun, layout)));
  const [{ program } = runtimes.crun] = made;
  assert.ok(made.every((runtime) => runtime.program === program && program !== runtimes.crun.program));
  assert.equal(statSync(program).ino, statSync(runtimes.crun.program).ino);
  assert.throws(
    () => openSync(program, "r+"),
    (error) => errnoOf(error) === "EROFS",
  );
  assert.equal(listMounts(directory).length, 1);
});

test("crun takes it for the copy of itself that it would make", async () => {
  const { program, env = {} } = await shielded(runtimes.crun, layout);
  const trace = join(directory, "trace");
  const argv = ["strace", "-f", "-e", "trace=execve,execveat,mount", "-o", trace, program, "--version"];
  await run(argv, { env }, backgroundCall());
  const calls = readFileSync(trace, "utf8")
    .split("\n")
    .filter((line) => /exec|mount/.test(line));
  assert.equal(calls.length, 1, "it is executed once, and mounts nothing");
});

test("runc looks after itself", async () => {
  assert.equal(await shielded(runtimes.runc, layout), runtimes.runc);
});
