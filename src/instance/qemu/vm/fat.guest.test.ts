import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { isFault } from "../../../base/fault.ts";
import { run } from "../../../host/process.ts";
import { fatImage } from "./fat.ts";

it("makes a file system that dosfsck finds right and others read, with label, long names and large files", async () => {
  const directory = mkdtempSync(join(tmpdir(), "fat."));
  try {
    const large = Buffer.alloc(3 * 2 ** 20, "cloud-config ");
    const path = join(directory, "seed.img");
    const files = [
      { name: "user-data", content: Buffer.from("#cloud-config\n") },
      { name: "network-config-with-a-long-name", content: large },
      { name: "empty", content: Buffer.alloc(0) },
    ];
    writeFileSync(path, fatImage("cidata", files));
    const call = backgroundCall();
    await run(["fsck.vfat", "-n", path], {}, call);
    const { stdout: facts } = await run(["blkid", "-p", "-o", "export", path], {}, call);
    assert.match(facts, /^LABEL=cidata$/m);
    assert.match(facts, /^TYPE=vfat$/m);
    const { stdout: listing } = await run(["mdir", "-b", "-i", path, "::"], {}, call);
    assert.deepEqual(
      listing.trim().split("\n"),
      files.map(({ name }) => `::/${name}`),
    );
    const { stdout } = await run(["mtype", "-i", path, "::network-config-with-a-long-name"], {}, call);
    assert.equal(stdout, large.toString());
  } finally {
    rmSync(directory, { recursive: true });
  }
});

it("refuses files that are too large for it", () => {
  const files = [{ name: "large", content: { length: 2 ** 28 } as Uint8Array }];
  assert.throws(
    () => fatImage("cidata", files),
    (error) => isFault(error, "exhausted"),
  );
});
