import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../base/fault.ts";
import {
  type Attribute,
  decodeAttributes,
  decodeMessages,
  encodeAttributes,
  encodeMessage,
  readText,
  text,
  u16be,
  u32,
} from "./netlink.ts";

const bytes = fc.uint8Array({ maxLength: 64 });
const flatAttribute: fc.Arbitrary<Attribute> = fc.record({ type: fc.integer({ min: 1, max: 0x3fff }), value: bytes });

test("attributes come back as they were, whatever their lengths", () => {
  fc.assert(
    fc.property(fc.uniqueArray(flatAttribute, { selector: ({ type }) => type, maxLength: 12 }), (attributes) => {
      const encoded = encodeAttributes(attributes);
      assert.equal(encoded.length % 4, 0);
      const decoded = decodeAttributes(encoded);
      assert.equal(decoded.size, attributes.length);
      for (const { type, value } of attributes) {
        assert.deepEqual(new Uint8Array(decoded.get(type) ?? []), new Uint8Array(value as Uint8Array));
      }
    }),
  );
});

test("a nested attribute holds its own attributes and carries the kernel's mark for nesting", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 0x3fff }), flatAttribute, (outerType, inner) => {
      const encoded = encodeAttributes([{ type: outerType, value: [inner] }]);
      assert.equal(encoded.readUInt16LE(2) & 0x8000, 0x8000);
      const outer = decodeAttributes(encoded).get(outerType);
      assert.ok(outer);
      assert.deepEqual(
        new Uint8Array(decodeAttributes(outer).get(inner.type) ?? []),
        new Uint8Array(inner.value as Uint8Array),
      );
    }),
  );
});

test("several messages in one buffer come back in order with type, flags, sequence, header and attributes", () => {
  const message = fc.record({
    type: fc.integer({ min: 16, max: 0xffff }),
    flags: fc.integer({ min: 0, max: 0xffff }),
    header: bytes.filter(({ length }) => length % 4 === 0),
    attributes: fc.array(flatAttribute, { maxLength: 3 }),
    sequence: fc.nat(),
  });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 5 }), (messages) => {
      const decoded = decodeMessages(Buffer.concat(messages.map((one) => encodeMessage(one, 0x1, one.sequence))));
      assert.equal(decoded.length, messages.length);
      for (const [position, one] of messages.entries()) {
        const received = decoded[position];
        assert.ok(received);
        assert.equal(received.type, one.type);
        assert.equal(received.flags, one.flags | 0x1);
        assert.equal(received.sequence, one.sequence);
        assert.deepEqual(received.payload, Buffer.concat([one.header, encodeAttributes(one.attributes)]));
      }
    }),
  );
});

test("random bytes are decoded or refused as corrupt, never anything else", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (input) => decodesOrRefuses(decodeMessages, input)));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (input) => decodesOrRefuses(decodeAttributes, input)));
});

test("a message is laid out as the kernel's headers say", () => {
  // RTM_GETLINK for eth0, as `strace ip link show eth0` shows it but for the sequence.
  const header = Buffer.alloc(16);
  const encoded = encodeMessage({ type: 18, flags: 0, header, attributes: [{ type: 3, value: text("eth0") }] }, 1, 7);
  assert.equal(
    encoded.toString("hex"),
    ["2c000000", "1200", "0100", "07000000", "00000000", "00".repeat(16), "0900", "0300", "6574683000", "000000"].join(
      "",
    ),
  );
});

test("numbers and names have the byte order and ending the kernel wants", () => {
  assert.deepEqual([...u32(0x01020304)], [4, 3, 2, 1]);
  assert.deepEqual([...u16be(0x0102)], [1, 2]);
  assert.equal(readText(Buffer.from(text("croft-1"))), "croft-1");
});

function decodesOrRefuses(decode: (input: Buffer) => unknown, input: Uint8Array): void {
  try {
    decode(Buffer.from(input));
  } catch (error) {
    assert.ok(isFault(error, "corrupt"), String(error));
  }
}
