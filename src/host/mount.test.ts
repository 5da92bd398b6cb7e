import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../base/fault.ts";
import { isMountPoint, listMounts, parseMounts } from "./mount.ts";

/** As the kernel writes a path: only what would break the line apart is escaped. */
function escaped(path: string): string {
  return path.replaceAll(/[ \t\n\\]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, "0")}`);
}

test("a line of the mount table", () => {
  const line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
  assert.deepEqual(parseMounts(`${line}\n`), [
    {
      id: 36,
      parentId: 35,
      device: "98:0",
      root: "/mnt1",
      target: "/mnt2",
      options: "rw,noatime",
      type: "ext3",
      source: "/dev/root",
      superOptions: "rw,errors=continue",
    },
  ]);
});

test("every path, source and number of optional fields comes back as it was", () => {
  const path = fc.string({ unit: fc.constantFrom("a", "é", " ", "\t", "\n", "\\", "-", "0", "4"), maxLength: 20 });
  const optional = fc.array(fc.constantFrom("shared:1", "master:2", "propagate_from:3", "unbindable"), {
    maxLength: 3,
  });
  const mounts = fc.array(
    fc.record({ target: path, root: path, source: path.filter((text) => text !== ""), optional }),
  );
  fc.assert(
    fc.property(mounts, (mounts) => {
      const lines = mounts.map(({ target, root, source, optional }) => {
        const front = `1 2 0:3 ${escaped(`/${root}`)} ${escaped(`/${target}`)} rw`;
        return [front, ...optional, `- tmpfs ${escaped(source)} rw`].join(" ");
      });
      assert.deepEqual(
        parseMounts(lines.join("\n")).map(({ target, root, source }) => ({ target, root, source })),
        mounts.map(({ target, root, source }) => ({ target: `/${target}`, root: `/${root}`, source })),
      );
    }),
  );
});

test("what is not a mount table is corrupt", () => {
  assert.throws(
    () => parseMounts("36 35 98:0 / / rw"),
    (error) => isFault(error, "corrupt"),
  );
});

test("the machine's own mounts", () => {
  assert.ok(isMountPoint("/proc"));
  assert.ok(!isMountPoint("/proc/self"));
  assert.ok(!isMountPoint("/no/such/place"));
  assert.ok(listMounts("/proc").some(({ target, type }) => target === "/proc" && type === "proc"));
  assert.ok(listMounts("/pro").length === 0, "beneath is by whole names");
});
