import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32c } from "./crc32c.ts";

/** The kernel's form lacks the final inversion. */
function published(bytes: Uint8Array): number {
  return (crc32c(bytes) ^ 0xffffffff) >>> 0;
}

// RFC 3720, appendix B.4.
test("published vectors of the Castagnoli CRC", () => {
  assert.equal(published(Buffer.alloc(32)), 0x8a9136aa);
  assert.equal(published(Buffer.alloc(32, 0xff)), 0x62a8ab43);
  assert.equal(published(Buffer.from(Array.from({ length: 32 }, (_, index) => index))), 0x46dd794e);
  assert.equal(published(Buffer.from("123456789")), 0xe3069283);
});
