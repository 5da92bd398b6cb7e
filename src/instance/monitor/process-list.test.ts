import assert from "node:assert/strict";
import { it } from "node:test";
import { describeProcesses, parseNetDev } from "./process-list.ts";

it("describes this very process, and passes over one that is gone", () => {
  const found = describeProcesses([process.pid, 2 ** 30], (uid) => `user-${uid}`);
  const [self] = found;
  assert.equal(found.length, 1);
  assert.equal(self?.pid, process.pid);
  assert.equal(self?.parentPid, process.ppid);
  assert.equal(self?.user, `user-${process.getuid?.()}`);
  assert.ok(self !== undefined && self.memoryBytes > 2 ** 20 && self.command.includes("process-list.test.ts"));
  const ageMs = process.uptime() * 1000;
  assert.ok(Math.abs(self.startedMs + ageMs - performance.timeOrigin - performance.now()) < 60_000);
});

it("sums all interfaces but loopback", () => {
  const text = [
    "Inter-|   Receive                                                |  Transmit",
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed",
    "    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0",
    "  eth0:    1000      10    0    0    0     0          0         0     2000      20    0    0    0     0       0          0",
    "  eth1:10 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0",
    "",
  ].join("\n");
  assert.deepEqual(parseNetDev(text), { receivedBytes: 1010, sentBytes: 2007 });
  assert.deepEqual(parseNetDev(""), { receivedBytes: 0, sentBytes: 0 });
});
