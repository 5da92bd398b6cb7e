import assert from "node:assert/strict";
import { it } from "node:test";
import { parseProcess } from "./process-list.ts";

it("reads what a guest says of a process", () => {
  assert.deepEqual(parseProcess("812 1 web 250 12 1000 30.50 httpd -f -p 80 ", 1_000_000), {
    pid: 812,
    parentPid: 1,
    user: "web",
    cpuMs: 2500,
    memoryBytes: 12 * 4096,
    // Ten seconds after the boot, which was 30.5 seconds ago.
    startedMs: 1_000_000 - 20_500,
    command: "httpd -f -p 80",
  });
});

it("passes over what is not one", () => {
  for (const line of ["", "end of it", "812 1 root 250 12 1000 x sh", "812 1 root 250 12", "-1 1 a 1 1 1 1.00 sh"]) {
    assert.equal(parseProcess(line, 0), undefined, line);
  }
});
