import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, type Reason } from "../base/fault.ts";
import { exitCode, exitCodeMeanings, exitCodeOf } from "./exit-code.ts";
import { processExitCode } from "./instance/process.ts";

test("every code is documented once", () => {
  const documented = exitCodeMeanings.map(([code]) => code);
  assert.deepEqual(documented, [...new Set(documented)]);
  assert.deepEqual(new Set(documented), new Set(Object.values(exitCode)));
});

test("reasons map to the codes that scripts rely on", () => {
  const expected: readonly (readonly [Reason, number])[] = [
    ["failed", 1],
    ["invalid", 2],
    ["not-found", 3],
    ["already-exists", 4],
    ["conflict", 4],
    ["precondition", 4],
    ["protected", 5],
    ["forbidden", 5],
    ["unauthenticated", 5],
    ["unavailable", 6],
    ["unhealthy", 7],
    ["timeout", 8],
    ["cancelled", 130],
  ];
  for (const [reason, code] of expected) assert.equal(exitCodeOf(reason), code, reason);
});

test("a reason of a newer daemon is a plain failure", () => {
  assert.equal(exitCodeOf("quantum" as Reason), exitCode.failed);
});

test("run and exec tell a missing program from one that cannot run, and both from Croft's own failures", () => {
  assert.equal(code("invalid", "start x: executable file `nope` not found in $PATH: No such file or directory"), 127);
  assert.equal(code("not-found", '"nope" is not a program of the instance'), 127);
  assert.equal(code("invalid", "start x: open executable: Permission denied"), 126);
  assert.equal(code("not-found", "there is no instance web"), 125);
  assert.equal(code("unavailable", "the Croft daemon does not answer"), 125);
  assert.equal(code("cancelled", "interrupted"), 130);
});

function code(reason: Reason, message: string): number {
  return processExitCode(new Fault(reason, message));
}
