import assert from "node:assert/strict";
import { after, test } from "node:test";
import * as fc from "fast-check";
import { runNft } from "../../host/nftables.ts";
import { noTable, tableChanges, wholeTable } from "./ruleset.ts";
import { anyRuleset } from "./test-ruleset.ts";

after(() => {
  runNft(noTable("ruleset_a"), "clean up");
  runNft(noTable("ruleset_b"), "clean up");
});

/** What the kernel has in a table, without the order in which it shows elements and chains. */
function shown(table: string): string[] {
  return runNft(`list table inet ${table}`, "read a table")
    .replace(`table inet ${table}`, "table")
    .split(/[\s,{}]+/)
    .sort((left, right) => (left < right ? -1 : 1));
}

test("a table that is changed from one state to another is, for the kernel, the table made so from nothing", () => {
  fc.assert(
    fc.property(anyRuleset, anyRuleset, (before, after) => {
      runNft(wholeTable("ruleset_a", before), "make a table");
      const changes = tableChanges("ruleset_a", before, after);
      if (changes !== "") runNft(changes, "change a table");
      runNft(wholeTable("ruleset_b", after), "make a table");
      assert.deepEqual(shown("ruleset_a"), shown("ruleset_b"));
    }),
    { numRuns: 60 },
  );
});
