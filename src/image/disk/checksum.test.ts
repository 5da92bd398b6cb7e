import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { Fault, isFault } from "../../base/fault.ts";
import { findChecksum, formatChecksum, parseChecksum } from "./checksum.ts";

const a = "a".repeat(64);
const b = "b".repeat(64);
const long = "c".repeat(128);

test("a checksum is an algorithm and as many digits as it has", () => {
  assert.deepEqual(parseChecksum(`sha256:${a.toUpperCase()}`), { algorithm: "sha256", hex: a });
  assert.equal(formatChecksum(parseChecksum(` sha512:${long}\n`)), `sha512:${long}`);
  for (const wrong of ["", a, `sha256:${long}`, `sha512:${a}`, `md5:${"d".repeat(32)}`, `sha256:${"g".repeat(64)}`]) {
    assert.throws(
      () => parseChecksum(wrong),
      (error) => isFault(error, "invalid"),
    );
  }
});

test("lists of sha256sum, of sha512sum and of BSD are read", () => {
  const lists = [
    `${b}  other.iso\n${a}  debian.iso\n`,
    `${a} *debian.iso\r\n${b} *other.iso\r\n`,
    `${a}  ./debian.iso`,
    `# made on a Tuesday\nSHA256 (other.iso) = ${b}\nSHA256 (debian.iso) = ${a.toUpperCase()}\n`,
  ];
  for (const list of lists) assert.deepEqual(findChecksum(list, "debian.iso"), { algorithm: "sha256", hex: a });
  assert.deepEqual(findChecksum(`${long}  debian.iso\n`, "debian.iso"), { algorithm: "sha512", hex: long });
});

test("of several kinds the strongest counts, and two of a kind must agree", () => {
  assert.equal(findChecksum(`${a}  x\n${long}  x\n`, "x").algorithm, "sha512");
  assert.equal(findChecksum(`${a}  x\n${a} *x\n`, "x").hex, a);
  assert.throws(
    () => findChecksum(`${a}  x\n${b}  x\n`, "x"),
    (error) => isFault(error, "corrupt"),
  );
});

test("a file that the list does not name has none, however alike the names", () => {
  for (const name of ["debian.iso", "a/debian.iso", "debian.iso ", ""]) {
    assert.throws(
      () => findChecksum(`${a}  xdebian.iso\n${a}  debian.iso.sig\nSHA512 (debian.iso) = ${a}\n`, name),
      (error) => isFault(error, "not-found"),
    );
  }
});

test("whatever a list says, the answer is a checksum or a Fault", () => {
  const line = fc.oneof(fc.string(), fc.constantFrom(`${a}  x`, `${b}  x`, `SHA256 (x) = ${a}`, `${long} *x`));
  fc.assert(
    fc.property(fc.array(line), (lines) => {
      try {
        parseChecksum(formatChecksum(findChecksum(lines.join("\n"), "x")));
      } catch (error) {
        assert.ok(error instanceof Fault && ["not-found", "corrupt"].includes(error.reason));
      }
    }),
  );
});
