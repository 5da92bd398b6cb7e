import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backgroundCall } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { makeDirBeneath, makeFileBeneath, readFileBeneath, resolveBeneath, writeFileBeneath } from "./beneath.ts";
import { bind, listMounts, unmount } from "./mount.ts";
import { run } from "./process.ts";

const call = backgroundCall();

function scenario(what: string, body: (root: string) => Promise<void>): void {
  test(what, async () => {
    const root = mkdtempSync(join(tmpdir(), "beneath."));
    try {
      await body(root);
    } finally {
      for (const { target } of listMounts(root).toReversed()) await unmount(target, { detach: true });
      rmSync(root, { recursive: true });
    }
  });
}

scenario("a device in place of a file is never opened, and replaced by a write", async (root) => {
  // Major 10, minor 130: opening a watchdog would start it. Its driver need not be there, as nobody opens it.
  await run(["mknod", join(root, "passwd"), "c", "10", "130"], {}, call);
  await assert.rejects(readFileBeneath(root, "passwd", 100), (error) => isFault(error, "hostile"));
  assert.equal(makeFileBeneath(root, "passwd").created, false);
  await writeFileBeneath(root, "passwd", "root:x:0:0");
  assert.equal(readFileSync(join(root, "passwd"), "utf8"), "root:x:0:0");
});

scenario("what is made belongs to whom it should", async (root) => {
  makeDirBeneath(root, "home/of", { uid: 33, gid: 44, mode: 0o2750 });
  await writeFileBeneath(root, "home/of/file", "", { uid: 33, gid: 44, mode: 0o4755 });
  const { stdout } = await run(
    ["stat", "--format", "%u %g %a", join(root, "home/of"), join(root, "home/of/file")],
    {},
    call,
  );
  assert.equal(stdout, "33 44 2750\n33 44 4755\n");
});

scenario("a mount within the root is part of it", async (root) => {
  for (const name of ["tree/volume", "elsewhere/inner"]) mkdirSync(join(root, name), { recursive: true });
  const tree = join(root, "tree");
  await bind(join(root, "elsewhere"), join(tree, "volume"));
  assert.equal(resolveBeneath(tree, "/volume/inner/.."), "/volume");
  assert.equal(makeDirBeneath(tree, "volume/inner/../made").path, "/volume/made");
  writeFileSync(join(root, "elsewhere/file"), "seen");
  assert.equal(String(await readFileBeneath(tree, "volume/file", 10)), "seen");
});
