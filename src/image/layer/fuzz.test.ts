import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { ingestLayer } from "./ingest.ts";
import { defaultLayerLimits } from "./limit.ts";
import { corpus, mutations } from "./mutation-fixture.ts";

const dir = mkdtempSync(join(tmpdir(), "croft-fuzz-"));
after(() => rmSync(dir, { recursive: true }));

const limits = { ...defaultLayerLimits, maxUnpackedBytes: 2 ** 24, maxEntries: 1000 };
const expectedReasons = new Set(["corrupt", "hostile", "exhausted"]);

for (const { name, path } of corpus()) {
  test(`damaged as it may be, ${name} becomes a layer or a Fault, and a Fault leaves nothing`, async () => {
    const original = readFileSync(path);
    const targetPath = join(dir, "layer");
    await ingestLayer(Readable.from([original]), { targetPath }, {}, limits, backgroundCall());
    rmSync(targetPath);
    let refused = 0;
    for (const { seed, bytes } of mutations(original, 250)) {
      try {
        await ingestLayer(Readable.from([bytes]), { targetPath }, {}, limits, backgroundCall());
        rmSync(targetPath);
      } catch (thrown) {
        refused += 1;
        assert.ok(thrown instanceof Fault && expectedReasons.has(thrown.reason), `seed ${seed}: ${String(thrown)}`);
        assert.deepEqual(readdirSync(dir), [], `seed ${seed}: something stayed`);
      }
    }
    assert.ok(refused > 0, "no mutation did any damage");
  });
}
