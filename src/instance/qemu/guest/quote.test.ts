import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { it } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../../../base/fault.ts";
import { commandLine, quote } from "./quote.ts";

/** Everything but NUL, with what shells care for more often. */
const word = fc
  .oneof(
    fc.string({ unit: "binary", maxLength: 30 }),
    fc.string({
      unit: fc.constantFrom("'", '"', "\\", "$", "`", "\n", " ", "!", "\u0081", "\r", "~", ".", "é"),
      maxLength: 12,
    }),
  )
  .map((text) => text.replaceAll("\0", ""));

it("is read by the guest's shell as exactly what it was", () => {
  fc.assert(
    fc.property(fc.array(word, { minLength: 1, maxLength: 5 }), (words) => {
      const script = `printf '%s\\0' ${commandLine(words)}`;
      const { stdout, status } = spawnSync("/bin/busybox", ["sh", "-c", script]);
      assert.equal(status, 0);
      assert.deepEqual(stdout, Buffer.from(words.map((text) => `${text}\0`).join("")));
    }),
    { numRuns: 60 },
  );
});

it("refuses what no argument can hold", () => {
  assert.throws(
    () => quote("a\0b"),
    (error) => isFault(error, "invalid"),
  );
});
