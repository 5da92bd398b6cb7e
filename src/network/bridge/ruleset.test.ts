import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { nothing, type Ruleset, tableChanges, wholeTable } from "./ruleset.ts";
import { anyRuleset } from "./test-ruleset.ts";

const one: Ruleset = {
  ...nothing,
  networks: [{ bridge: "croft-a", subnet: "10.86.1.0/24", addresses: ["10.86.1.1"], internal: false }],
  ports: [{ hostAddress: "0.0.0.0", hostPort: 8080, protocol: "tcp", targets: [{ address: "10.86.1.5", port: 80 }] }],
};

test("what is equal needs no change", () => {
  fc.assert(fc.property(anyRuleset, (ruleset) => assert.equal(tableChanges("croft", ruleset, ruleset), "")));
});

test("a change names nothing that stays", () => {
  const [port] = one.ports;
  assert.ok(port);
  const more = { ...one, ports: [port, { ...port, hostPort: 8081 }] };
  assert.equal(
    tableChanges("croft", one, more),
    [
      "add chain inet croft tcp_8081",
      "add rule inet croft tcp_8081 meta l4proto tcp dnat ip to 10.86.1.5:80",
      "add element inet croft published { tcp . 8081 : goto tcp_8081 }",
    ].join("\n"),
  );
  const moved = { ...one, ports: [{ ...port, targets: [{ address: "10.86.1.6", port: 80 }] }] };
  assert.equal(
    tableChanges("croft", one, moved),
    "flush chain inet croft tcp_8080\nadd rule inet croft tcp_8080 meta l4proto tcp dnat ip to 10.86.1.6:80",
  );
});

test("the way back takes away all that the way there added", () => {
  fc.assert(
    fc.property(anyRuleset, (ruleset) => {
      const there = tableChanges("croft", nothing, ruleset);
      const back = tableChanges("croft", ruleset, nothing);
      assert.equal(count(there, /^add chain/gm), count(back, /^delete chain/gm));
      assert.equal(count(there, /^add element/gm), count(back, /^delete element/gm));
    }),
  );
});

test("the whole table replaces whatever had its name", () => {
  const families = ["inet", "bridge"];
  assert.deepEqual(
    wholeTable("croft", one).split("\n").slice(0, 4),
    families.flatMap((family) => [`table ${family} croft {}`, `delete table ${family} croft`]),
  );
});

function count(text: string, words: RegExp): number {
  return text.match(words)?.length ?? 0;
}
