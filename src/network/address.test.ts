import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../base/fault.ts";
import {
  chooseAddress,
  chooseSubnet,
  formatAddress,
  gatewayOf,
  parseAddress,
  parseSubnet,
  resolverAddresses,
  subnetHolds,
  subnetsOverlap,
} from "./address.ts";

const anyAddress = fc.nat({ max: 0xffff_ffff });
const anySubnet = fc
  .record({ value: anyAddress, prefixLength: fc.integer({ min: 16, max: 29 }) })
  .map(({ value, prefixLength }) => {
    const size = 2 ** (32 - prefixLength);
    return `${formatAddress(Math.floor(value / size) * size)}/${prefixLength}`;
  });
const seed = fc.string({ minLength: 1, maxLength: 20 });

test("an address is the same after being parsed and written", () => {
  fc.assert(fc.property(anyAddress, (value) => assert.equal(parseAddress(formatAddress(value)), value)));
});

test("text that is not a subnet for instances is refused with what would be right", () => {
  for (const text of ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/24", "300.0.0.0/24", "10.0.0.0/24 ", "fd00::/64"]) {
    assert.throws(
      () => parseSubnet(text),
      (error) => isFault(error, "invalid"),
      text,
    );
  }
  assert.equal(refusal("10.20.0.7/24"), "10.20.0.7/24 is an address within a subnet; the subnet is 10.20.0.0/24");
  assert.match(refusal("10.0.0.0/30"), /too small/);
  assert.match(refusal("0.0.0.0/0"), /too large/);
});

test("the gateway is the first usable address", () => {
  assert.equal(gatewayOf("10.20.0.0/24"), "10.20.0.1");
  assert.equal(gatewayOf("10.255.255.248/29"), "10.255.255.249");
});

test("subnets overlap when one holds the other, and neighbours do not", () => {
  assert.ok(subnetsOverlap("10.0.0.0/8", "10.86.3.0/24"));
  assert.ok(subnetsOverlap("10.86.3.0/24", "10.86.3.128/25"));
  assert.ok(subnetsOverlap("0.0.0.0/0", "10.86.3.0/24"));
  assert.ok(subnetsOverlap("10.86.3.7/24", "10.86.3.9/32"));
  assert.ok(!subnetsOverlap("10.86.3.0/24", "10.86.4.0/24"));
  assert.ok(!subnetsOverlap("255.255.255.0/24", "0.0.0.0/24"));
});

test("all networks of a pool get distinct subnets that avoid what is taken, until it is exhausted", () => {
  const taken = ["10.86.7.0/24", "10.86.16.0/20"];
  const chosen: string[] = [];
  for (let count = 0; count < 256 - 17; count += 1) {
    chosen.push(chooseSubnet("10.86.0.0/16", `shop.n${count}`, [...taken, ...chosen]));
  }
  assert.equal(new Set(chosen).size, 239);
  assert.ok(chosen.every((one) => !taken.some((other) => subnetsOverlap(one, other))));
  assert.throws(
    () => chooseSubnet("10.86.0.0/16", "shop.more", [...taken, ...chosen]),
    (error) => isFault(error, "exhausted"),
  );
});

test("a network gets the same subnet again, whatever else was there before", () => {
  const alone = chooseSubnet("10.86.0.0/16", "shop.default", []);
  assert.equal(chooseSubnet("10.86.0.0/16", "shop.default", ["192.0.2.0/24"]), alone);
  assert.notEqual(chooseSubnet("10.86.0.0/16", "shop.default", [alone]), alone);
});

test("an address lies in the subnet, is free, and is never the network's, gateway's, broadcast or a resolver's", () => {
  fc.assert(
    fc.property(anySubnet, seed, fc.nat({ max: 6 }), (cidr, slot, others) => {
      const taken = new Set<string>();
      const { base, prefixLength } = parseSubnet(cidr);
      const room = 2 ** (32 - prefixLength) - 3 - resolverAddresses(cidr).length;
      for (let count = 0; count < Math.min(others, room - 1); count += 1) {
        taken.add(chooseAddress(cidr, { seed: `${slot} ${count}`, preferred: undefined, taken: taken }));
      }
      const address = chooseAddress(cidr, { seed: slot, preferred: undefined, taken: taken });
      assert.ok(subnetHolds(cidr, address));
      assert.ok(!taken.has(address));
      const broadcast = formatAddress(base + 2 ** (32 - prefixLength) - 1);
      for (const special of [formatAddress(base), gatewayOf(cidr), broadcast, ...resolverAddresses(cidr)]) {
        assert.notEqual(address, special);
      }
    }),
  );
});

test("the previous address is kept where it is free and fits, and the choice is otherwise the seed's alone", () => {
  const fresh = chooseAddress("10.20.0.0/24", { seed: "shop.web.1", preferred: undefined, taken: new Set() });
  assert.equal(chooseAddress("10.20.0.0/24", { seed: "shop.web.1", preferred: undefined, taken: new Set() }), fresh);
  assert.equal(
    chooseAddress("10.20.0.0/24", { seed: "shop.web.1", preferred: "10.20.0.77", taken: new Set() }),
    "10.20.0.77",
  );
  assert.equal(
    chooseAddress("10.20.0.0/24", { seed: "shop.web.1", preferred: "10.20.0.77", taken: new Set(["10.20.0.77"]) }),
    fresh,
  );
  assert.equal(chooseAddress("10.20.0.0/24", { seed: "shop.web.1", preferred: "10.20.0.1", taken: new Set() }), fresh);
  assert.equal(chooseAddress("10.20.0.0/24", { seed: "shop.web.1", preferred: "10.21.0.77", taken: new Set() }), fresh);
});

test("a full subnet is exhausted, after every usable address was given once", () => {
  const taken = new Set<string>();
  for (let count = 0; count < 5; count += 1)
    taken.add(chooseAddress("10.20.0.0/29", { seed: `slot ${count}`, preferred: undefined, taken: taken }));
  assert.deepEqual([...taken].sort(), ["10.20.0.2", "10.20.0.3", "10.20.0.4", "10.20.0.5", "10.20.0.6"]);
  assert.throws(
    () => chooseAddress("10.20.0.0/29", { seed: "one more", preferred: undefined, taken: taken }),
    (error) => isFault(error, "exhausted"),
  );
});

function refusal(text: string): string {
  try {
    parseSubnet(text);
  } catch (error) {
    if (isFault(error, "invalid")) return `${error.message}; ${error.hint}`;
  }
  return "accepted";
}
