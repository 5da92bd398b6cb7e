import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../base/fault.ts";
import { processExitCode } from "./process.ts";

test("a program that is missing, and one that cannot be executed, are told apart", () => {
  const cases: readonly (readonly [string, number])[] = [
    ["its program cannot be started: executable file `nosuch` not found in $PATH: No such file or directory", 127],
    ['"nosuch" is not a program of the instance', 127],
    ["its program cannot be started: open executable: Operation not permitted", 126],
    ["its program cannot be started: exec format error", 126],
    ["there is no image nosuch", 125],
  ];
  for (const [message, code] of cases) assert.equal(processExitCode(new Fault("invalid", message)), code, message);
  assert.equal(processExitCode(new Fault("cancelled", "ctrl-C")), 130);
});
