import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, openSync, closeSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { builtInConfig } from "../route.ts";
import { clearHalfMade } from "./leftover.ts";

const root = mkdtempSync(join(tmpdir(), "croft-oci-leftover-"));
after(() => rmSync(root, { recursive: true }));

for (const [program, programs, isEnded] of [
  ["/usr/bin/crun", {}, true],
  ["/opt/crun-1.14", { crun: "/opt/crun-1.14" }, true],
  ["/usr/bin/crun", { crun: "/opt/crun-1.14" }, true],
  ["/opt/crun-1.14", {}, false],
  ["/bin/sleep", { crun: "/opt/crun-1.14" }, false],
] as const) {
  const rules = "crun" in programs ? `rules that name ${programs.crun}` : "rules that name no program";
  test(`with ${rules}, what waits as ${program} is ${isEnded ? "ended" : "left alone"}`, async () => {
    const directory = join(root, "half");
    mkdirSync(directory);
    const fd = openSync(join(directory, "exec.fifo"), "w");
    // Stands for a first process that waits for a start: called as the runtime was, with a file of its directory open.
    const waiting = spawn("/bin/sleep", ["1000"], { argv0: program, stdio: ["ignore", "ignore", "ignore", fd] });
    closeSync(fd);
    const ended = once(waiting, "exit");
    try {
      clearHalfMade(root, "crun", "half", { ...builtInConfig, programs });
      assert.equal(existsSync(directory), false);
      assert.equal(existsSync(`/proc/${waiting.pid}/fd/3`), !isEnded);
    } finally {
      waiting.kill("SIGKILL");
      await ended;
    }
  });
}
