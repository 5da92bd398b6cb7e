import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openHandover } from "../host/handover.ts";
import { claim } from "./claim.ts";

const root = mkdtempSync(join(tmpdir(), "croft-oci-claim-"));
after(() => rmSync(root, { recursive: true }));
const handover = openHandover();

for (const engine of ["crun", "runc", "microvm"]) {
  test(`a name that ${engine} has is taken, and nothing of it is touched`, async () => {
    const id = `of-${engine}`;
    for (const part of [engine, "machine"]) mkdirSync(join(root, part, id), { recursive: true });
    await assert.rejects(claim({ root }, id, handover), { reason: "already-exists", message: /already exists/ });
    assert.ok(existsSync(join(root, "machine", id)));
  });
}

test("a name that another process is about to use is taken", async () => {
  await assert.rejects(claim({ root }, "busy", { ...handover, lockByte: () => false }), { reason: "already-exists" });
});

test("what a microVM left that was never made is taken away, whichever engine the name is claimed for", async () => {
  const directory = join(root, "machine", "stale");
  mkdirSync(join(directory, "shared"), { recursive: true });
  writeFileSync(join(directory, "launch.json"), "{}");
  await claim({ root }, "stale", handover);
  assert.equal(existsSync(directory), false);
});
