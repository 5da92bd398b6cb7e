import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { afterEach, test } from "node:test";
import { isFault } from "../base/fault.ts";
import { nftGeneration, runNft } from "./nftables.ts";

afterEach(() => {
  runNft("table inet nft_test {}\ndelete table inet nft_test", "clean up");
});

const table = `table inet nft_test {
  set port {
    type inet_service
    elements = { 80, 443 }
  }
}`;

test("a ruleset is applied and can be read back, by us and by the nft program", () => {
  runNft(table, "make a table");
  assert.match(runNft("list table inet nft_test", "read it"), /elements = \{ 80, 443 \}/);
  assert.match(execFileSync("nft", ["list", "set", "inet", "nft_test", "port"]).toString(), /80, 443/);
});

test("when a part is refused nothing is applied, and the Fault carries nft's words", () => {
  runNft(table, "make a table");
  assert.throws(
    () => runNft("add element inet nft_test port { 22 }\nadd element inet nft_test nowhere { 1 }", "open a port"),
    (error) => isFault(error, "failed") && error.message.startsWith("open a port: Error: No such file"),
  );
  assert.doesNotMatch(runNft("list table inet nft_test", "read it"), /22/);
  assert.match(runNft("list table inet nft_test", "read it"), /80, 443/, "the context still works afterwards");
});

test("the generation changes when anyone changes any rule, and only then", () => {
  runNft(table, "make a table");
  const before = nftGeneration();
  runNft("list table inet nft_test", "read it");
  assert.equal(nftGeneration(), before);
  execFileSync("nft", ["add element inet nft_test port { 22 }"]);
  assert.notEqual(nftGeneration(), before);
});
