import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultHome, homeBeneath, linkName, tableName, isOfSomeHome } from "./home.ts";

void test("two homes never share a path or a name on the host", () => {
  const homes = [defaultHome(), homeBeneath("/tmp/a"), homeBeneath("/tmp/b")];
  for (const member of ["libDir", "runDir", "etcDir", "prefix", "socketPath"] as const) {
    assert.equal(new Set(homes.map((home) => home[member])).size, homes.length, member);
  }
  assert.equal(new Set(homes.map((home) => linkName(home, "shop.web.1.0123abcd"))).size, homes.length);
  assert.equal(new Set(homes.map(tableName)).size, homes.length);
});

void test("names fit what the kernel allows, and are the same each time", () => {
  for (const home of [defaultHome(), homeBeneath("/tmp/a")]) {
    const link = linkName(home, "shop.web.1.0123abcd");
    assert.ok(link.length <= 15 && link.startsWith(`${home.prefix}-`), link);
    assert.equal(linkName(home, "shop.web.1.0123abcd"), link);
    assert.notEqual(linkName(home, "shop.web.2.0123abcd"), link);
    assert.match(tableName(home), /^[a-z][a-z0-9_]*$/);
  }
});

test("a link is known as one of ours, of this home or another, by its name", () => {
  const homes = [defaultHome(), homeBeneath("/tmp/a")];
  for (const home of homes) assert.ok(isOfSomeHome(linkName(home, "network shop.front")));
  for (const link of ["eth0", "croft0", "croft-vlan", "br-0123456789ab", "croft-1a2b3c4.5"]) {
    assert.ok(!isOfSomeHome(link), link);
  }
});
