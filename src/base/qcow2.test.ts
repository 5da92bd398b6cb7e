import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { Fault, isFault } from "./fault.ts";
import { emptyQcow2, isQcow2, type NewQcow2, parseQcow2, qcow2HeadBytes } from "./qcow2.ts";

const gibibyte = 2 ** 30;
const base = { file: "/var/lib/croft/image/disk/debian.qcow2", format: "qcow2" } as const;

/** The whole file, as a program would find it. */
function fileOf(image: NewQcow2): Buffer {
  const { fileBytes, pieces } = emptyQcow2(image);
  const file = Buffer.alloc(fileBytes);
  for (const { offset, bytes } of pieces) bytes.copy(file, offset);
  return file;
}

function parse(file: Buffer, fileBytes = file.length): ReturnType<typeof parseQcow2> {
  return parseQcow2(file.subarray(0, qcow2HeadBytes), fileBytes, "image");
}

function changed(change: (header: Buffer) => void, image: NewQcow2 = { virtualSizeBytes: gibibyte }): Buffer {
  const file = fileOf(image);
  change(file);
  return file;
}

const refused = (file: Buffer, reason: Fault["reason"], message: RegExp): void => {
  assert.throws(
    () => parse(file),
    (error) => isFault(error, reason) && message.test(error.message),
  );
};

test("what is written is read again", () => {
  const names = fc.stringMatching(/^\/[a-z0-9/:,. ~é-]{1,200}$/);
  const images = fc.record(
    {
      virtualSizeBytes: fc.integer({ min: 0, max: 2 ** 44 }),
      backing: fc.record(
        { file: names, format: fc.constantFrom("qcow2" as const, "raw" as const) },
        { noNullPrototype: true },
      ),
    },
    { requiredKeys: ["virtualSizeBytes"], noNullPrototype: true },
  );
  fc.assert(
    fc.property(images, (image) => {
      const header = parse(fileOf(image));
      assert.equal(header.virtualSizeBytes, image.virtualSizeBytes);
      assert.deepEqual(header.backing, image.backing);
      assert.equal(header.snapshots, 0);
    }),
  );
});

test("whatever bytes come, the answer is a header that fits the file, or a Fault", () => {
  const valid = fileOf({ virtualSizeBytes: gibibyte, backing: base });
  const edits = fc.array(fc.record({ at: fc.integer({ min: 4, max: 300 }), value: fc.integer({ min: 0, max: 255 }) }), {
    minLength: 1,
    maxLength: 12,
  });
  fc.assert(
    fc.property(edits, fc.integer({ min: 0, max: valid.length }), (changes, cutAt) => {
      const file = Buffer.from(valid);
      for (const { at, value } of changes) file[at] = value;
      const seen = file.subarray(0, cutAt);
      try {
        const header = parse(seen);
        assert.ok(header.l1Offset + header.l1Entries * 8 <= seen.length);
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        assert.ok(["corrupt", "hostile", "unsupported"].includes(error.reason));
      }
    }),
    { numRuns: 3000 },
  );
});

test("any bytes at all are no reason to fail in another way", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (noise) => {
      const file = Buffer.concat([Buffer.from("514649fb00000003", "hex"), noise]);
      assert.throws(() => parse(file, 2 ** 40), Fault);
    }),
    { numRuns: 2000 },
  );
});

test("a header that is cut off, at every length", () => {
  const file = fileOf({ virtualSizeBytes: gibibyte, backing: base });
  for (let length = 0; length < 200; length += 1) {
    assert.throws(
      () => parse(file.subarray(0, length)),
      (error) => isFault(error, "corrupt"),
    );
  }
  assert.throws(() => parse(file.subarray(0, file.length - 1)), /table is outside of the file/);
});

test("content in another file is refused, and the file named", () => {
  const outside = changed((header) => {
    header.writeBigUInt64BE(4n, 72);
    header.writeUInt32BE(0x44_41_54_41, 112);
    header.writeUInt32BE(11, 116);
    header.write("/etc/shadow", 120);
  });
  refused(outside, "hostile", /its content is in another file "\/etc\/shadow"/);
  refused(
    changed((header) => header.writeBigUInt64BE(4n, 72)),
    "hostile",
    /in another file, which is not opened/,
  );
});

test("what is not known is refused: features, versions, encryption, compression", () => {
  const cases: readonly (readonly [(header: Buffer) => void, Fault["reason"], RegExp])[] = [
    [
      (header) => header.writeBigUInt64BE(1n << 40n, 72),
      "unsupported",
      /features that are not known \(0x10000000000\)/,
    ],
    [(header) => header.writeBigUInt64BE(2n, 72), "corrupt", /marked as corrupt/],
    [(header) => header.writeUInt32BE(4, 4), "unsupported", /version 4/],
    [(header) => header.writeUInt32BE(1, 32), "unsupported", /encrypted/],
    [(header) => header.writeUInt8(7, 104), "corrupt", /compression type 7/],
    [(header) => header.writeUInt32BE(0x05_37_be_77, 112), "unsupported", /encrypted/],
    [(header) => header.writeUInt32BE(2 ** 31, 116) && header.writeUInt32BE(1, 112), "corrupt", /extension .* cut off/],
    [(header) => header.writeUInt32BE(31, 20), "corrupt", /clusters of 2\^31/],
    [(header) => header.writeBigUInt64BE(2n ** 62n, 24), "corrupt", /a size of/],
    [(header) => header.writeBigUInt64BE(2n ** 63n - 1n, 40), "corrupt", /table is outside/],
    [(header) => header.writeUInt32BE(2 ** 32 - 1, 36), "corrupt", /a size of/],
    [(header) => header.writeUInt32BE(0, 36), "corrupt", /does not cover/],
    [(header) => header.writeUInt32BE(0, 56), "corrupt", /reference counts/],
    [(header) => header.writeUInt32BE(2 ** 32 - 1, 60), "corrupt", /snapshots/],
    [(header) => header.writeBigUInt64BE(2n ** 20n, 8) && header.writeUInt32BE(9, 16), "corrupt", /backing file/],
    [(header) => header.writeBigUInt64BE(200n, 8) && header.writeUInt32BE(4096, 16), "corrupt", /backing file/],
  ];
  for (const [change, reason, message] of cases) refused(changed(change), reason, message);
});

test("a dirty image is read, and known as such", () => {
  assert.equal(parse(changed((header) => header.writeBigUInt64BE(1n, 72))).dirty, true);
  assert.equal(parse(changed(() => {})).dirty, false);
});

test("a version 2 header ends before the features", () => {
  const old = changed((header) => {
    header.writeUInt32BE(2, 4);
    header.fill(0, 72, 112);
  });
  assert.deepEqual([parse(old).version, parse(old).virtualSizeBytes], [2, gibibyte]);
});

test("a disk of 4 TiB grows by its header alone", () => {
  assert.equal(parse(fileOf({ virtualSizeBytes: gibibyte })).l1Entries * 512 * 2 ** 20, 4 * 2 ** 40);
});

test("a backing file is named by an absolute path that fits", () => {
  for (const file of ["relative", "json:{}", `/${"x".repeat(1023)}`]) {
    assert.throws(
      () => fileOf({ virtualSizeBytes: 1, backing: { file, format: "raw" } }),
      (error) => isFault(error, "invalid"),
    );
  }
});

test("other files are not taken for qcow2", () => {
  for (const other of ["", "QFI", "QFI\u00fa", "KDMV", "conectix"])
    assert.equal(isQcow2(Buffer.from(other, "latin1")), false);
});
