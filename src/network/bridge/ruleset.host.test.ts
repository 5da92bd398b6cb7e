import assert from "node:assert/strict";
import { after, test } from "node:test";
import * as fc from "fast-check";
import { runNft } from "../../host/nftables.ts";
import { noTable, tableChanges, wholeTable } from "./ruleset.ts";
import { anyRuleset } from "./test-ruleset.ts";

after(() => {
  for (const table of ["ruleset_a", "ruleset_b"]) runNft(noTable(table), "clean up");
});

/** What the kernel has in a table, without the order in which it shows elements and chains. */
function shown(table: string): string[] {
  const tables = runNft("list tables", "list tables").split("\n");
  const families = ["inet", "bridge"].filter((family) => tables.includes(`table ${family} ${table}`));
  return families
    .map((family) => runNft(`list table ${family} ${table}`, "read a table").replace(table, "table"))
    .join("\n")
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
