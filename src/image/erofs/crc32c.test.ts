import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32c } from "./crc32c.ts";

// RFC 3720, appendix B.4; the kernel's form lacks the final inversion.
test("published vectors of the Castagnoli CRC", () => {
  const published = (bytes: Uint8Array): number => (crc32c(bytes) ^ 0xffffffff) >>> 0;
  assert.equal(published(Buffer.alloc(32)), 0x8a9136aa);
  assert.equal(published(Buffer.alloc(32, 0xff)), 0x62a8ab43);
  assert.equal(published(Buffer.from(Array.from({ length: 32 }, (_, index) => index))), 0x46dd794e);
  assert.equal(published(Buffer.from("123456789")), 0xe3069283);
});
