import assert from "node:assert/strict";
import { it } from "node:test";
import * as fc from "fast-check";
import { guestSize, highestLimitBytes } from "./size.ts";

it("has room for the limit and for the guest itself, in few sizes", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 2 ** 40 }),
      fc.double({ min: 0.01, max: 64, noNaN: true }),
      (memoryBytes, cpus) => {
        const size = guestSize({ memoryBytes, cpus });
        assert.ok(highestLimitBytes(size) >= memoryBytes);
        assert.ok(Number.isInteger(Math.log2(size.memoryMiB)));
        assert.ok(size.processors >= cpus && size.processors < cpus + 1);
      },
    ),
  );
});

it("is small when nothing was asked for", () => {
  assert.deepEqual(guestSize({}), { memoryMiB: 512, processors: 1 });
});
