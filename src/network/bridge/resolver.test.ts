import assert from "node:assert/strict";
import { test } from "node:test";
import { isFault } from "../../base/fault.ts";
import type { NetworkId } from "../../base/id.ts";
import { hostsText } from "./resolver.ts";

const network = "shop.default" as NetworkId;

test("an address has one line, and its own name before those it shares", () => {
  const names = [
    { network, name: "web", address: "10.86.1.6" },
    { network, name: "web-2", address: "10.86.1.6" },
    { network, name: "web", address: "10.86.1.5" },
    { network, name: "web-1", address: "10.86.1.5" },
    { network, name: "web-1", address: "10.86.1.5" },
  ];
  assert.equal(hostsText(names), "10.86.1.5 web-1 web\n10.86.1.6 web-2 web\n");
  assert.equal(hostsText([...names].toReversed()), hostsText(names), "whatever their order");
});

test("no names are an empty file", () => {
  assert.equal(hostsText([]), "");
});

test("text that would be more than a name is refused", () => {
  for (const name of ["", "web\n10.0.0.1 bank.example", "a b", "web.", "Web", "#"]) {
    assert.throws(
      () => hostsText([{ network, name, address: "10.86.1.5" }]),
      (error) => isFault(error, "invalid"),
      name,
    );
  }
});
