import assert from "node:assert/strict";
import { it } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../../base/fault.ts";
import { namesOf, resolveUser } from "./user.ts";

const passwd =
  "root:x:0:0:root:/root:/bin/sh\n# odd\nweb:x:101:102::/srv:/bin/sh\nbroken\n:x:5:5::/:\nnohome:x:7:7:::\n";
const group = "root:x:0:\nweb:x:102:\nlogs:x:103:other,web\nssl:x:104:root\nbad:x:-1:web\n";

it("resolves names, numbers and groups as docker does", () => {
  assert.deepEqual(resolveUser("", passwd, group), { uid: 0, gid: 0, groups: [104], home: "/root" });
  assert.deepEqual(resolveUser("web", passwd, group), { uid: 101, gid: 102, groups: [103], home: "/srv" });
  assert.deepEqual(resolveUser("101", passwd, group), { uid: 101, gid: 102, groups: [103], home: "/srv" });
  assert.deepEqual(resolveUser("web:ssl", passwd, group), { uid: 101, gid: 104, groups: [], home: "/srv" });
  assert.deepEqual(resolveUser("4000:5000", passwd, group), { uid: 4000, gid: 5000, groups: [], home: "/" });
  assert.deepEqual(resolveUser("4000", "", ""), { uid: 4000, gid: 0, groups: [], home: "/" });
  assert.equal(resolveUser("nohome", passwd, group).home, "/");
});

it("names root, whatever lines without a name or a number follow", () => {
  assert.deepEqual(
    [...namesOf(`${passwd}toor:x:0:0:::\n`)],
    [
      [0, "root"],
      [101, "web"],
      [7, "nohome"],
    ],
  );
  assert.equal(namesOf("").size, 0);
});

it("refuses names that the image does not have, and numbers that are none", () => {
  for (const text of ["nobody", "web:nobody", "4294967295", "-1", "web:", ":web"]) {
    assert.throws(
      () => resolveUser(text, passwd, group),
      (error: unknown) => isFault(error, "invalid"),
      text,
    );
  }
});

it("gives ids in range or refuses, whatever the files hold", () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), fc.string(), (text, users, groups) => {
      try {
        const { uid, gid, groups: others } = resolveUser(text, users, groups);
        for (const id of [uid, gid, ...others]) assert.ok(Number.isInteger(id) && id >= 0 && id < 0xffff_ffff);
      } catch (error) {
        assert.ok(isFault(error, "invalid"), String(error));
      }
    }),
  );
});
