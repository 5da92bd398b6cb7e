import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import type { Duplex } from "node:stream";
import { it } from "node:test";

it("goes on answering the host when it cannot make a process", async () => {
  const script = join(import.meta.dirname, "script", "guest.sh");
  // No limit holds for root.
  const user = process.getuid?.() === 0 ? { uid: 65_533, gid: 65_533 } : {};
  const guest = spawn("busybox", ["sh", "-c", `ulimit -u 1; main=$$; . "$1"; answer`, "sh", script], {
    stdio: ["ignore", "ignore", "ignore", "pipe"],
    ...user,
  });
  try {
    const port = guest.stdio[3] as Duplex;
    const answers = createInterface({ input: port })[Symbol.asyncIterator]();
    // The second one needs no process.
    port.write("\na size 24 80\nb kill 0\n");
    const said: unknown[] = [(await answers.next()).value, (await answers.next()).value];
    assert.deepEqual(said, ["a failed", "b ok"]);
  } finally {
    guest.kill("SIGKILL");
  }
});
