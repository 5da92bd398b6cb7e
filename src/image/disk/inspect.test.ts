import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { Fault, isFault } from "../../base/fault.ts";
import { iso, qcow2, rawDisk } from "./image-fixture.ts";
import { type ImageShape, shapeOf } from "./inspect.ts";

const gibibyte = 2 ** 30;

function shape(file: Buffer, fileBytes = file.length): ImageShape {
  return shapeOf(file.subarray(0, 128 << 10), file.subarray(Math.max(0, file.length - 512)), fileBytes, "the image");
}

function refused(file: Buffer, reason: Fault["reason"], message: RegExp): void {
  assert.throws(
    () => shape(file),
    (error) => isFault(error, reason) && message.test(error.message),
  );
}

/** A file that begins so, with room behind. */
function beginning(text: string, at = 0): Buffer {
  const file = Buffer.alloc(200_000);
  file.write(text, at, "latin1");
  return file;
}

test("an image is told by what is in it", () => {
  assert.deepEqual(shape(qcow2()), { format: "qcow2", kind: "disk", virtualSizeBytes: gibibyte });
  assert.deepEqual(shape(iso()), { format: "raw", kind: "iso", virtualSizeBytes: 40 * 2048 });
  assert.deepEqual(shape(rawDisk()), { format: "raw", kind: "disk", virtualSizeBytes: 2 ** 20 });
  assert.equal(shape(rawDisk(1000)).virtualSizeBytes, 1024, "whole sectors");
  for (const [magic, at] of [
    ["EFI PART", 512],
    ["\x53\xef", 1080],
    ["XFSB", 0],
    ["_BHRfS_M", 65_600],
    ["LABELONE", 512],
  ] as const) {
    assert.equal(shape(beginning(magic, at)).format, "raw", magic);
  }
});

test("an ISO with a boot sector is an ISO", () => {
  const hybrid = iso();
  hybrid.write("\x55\xaa", 510, "latin1");
  assert.equal(shape(hybrid).kind, "iso");
});

test("a qcow2 that reads from another file is refused, and the file named", () => {
  refused(qcow2(gibibyte, "/etc/shadow"), "hostile", /reads from another file, "\/etc\/shadow"/);
});

test("formats of others are refused with the way to convert them", () => {
  const foreign: Record<string, Buffer> = {
    VMDK: beginning("KDMV"),
    VHDX: beginning("vhdxfile"),
    VDI: beginning("\x7f\x10\xda\xbe", 64),
    QED: beginning("QED\0"),
    LUKS: beginning("LUKS\xba\xbe"),
  };
  for (const [name, file] of Object.entries(foreign)) refused(file, "unsupported", new RegExp(`format ${name}`));
  const fixedVhd = rawDisk();
  fixedVhd.write("conectix", fixedVhd.length - 512);
  refused(fixedVhd, "unsupported", /format VHD/);
});

test("what is no image at all is not taken for a raw disk", () => {
  refused(Buffer.alloc(0), "corrupt", /empty/);
  refused(Buffer.from("<html>404 Not Found</html>"), "unsupported", /neither/);
  refused(Buffer.alloc(2 ** 20), "unsupported", /neither/);
});

test("what is cut off is refused", () => {
  const whole = iso();
  refused(whole.subarray(0, whole.length - 1), "corrupt", /cut off: it has 81919 of 81920 bytes/);
  const disk = qcow2();
  refused(disk.subarray(0, disk.length - 1), "corrupt", /outside of the file/);
  refused(disk.subarray(0, 50), "corrupt", /within its header/);
});

test("whatever bytes come, the answer is a shape or a Fault", () => {
  const seeds = [qcow2(), qcow2(gibibyte, "/x"), iso(), rawDisk(200_000)];
  const at = fc.oneof(fc.nat(300), fc.nat(1300), fc.integer({ min: 32_768, max: 33_000 }));
  const edits = fc.array(fc.tuple(at, fc.nat(255)), { maxLength: 10 });
  fc.assert(
    fc.property(fc.constantFrom(...seeds), edits, fc.nat(200_000), (seed, changes, cutAt) => {
      const file = Buffer.from(seed.subarray(0, cutAt));
      for (const [position, byte] of changes) if (position < file.length) file[position] = byte;
      try {
        const { virtualSizeBytes } = shape(file);
        assert.ok(virtualSizeBytes > 0 && Number.isSafeInteger(virtualSizeBytes));
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        assert.ok(["corrupt", "hostile", "unsupported"].includes(error.reason));
      }
    }),
    { numRuns: 2000 },
  );
});
