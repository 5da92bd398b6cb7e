import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { canonicalJson, instanceId, isDigest, namePattern, parseInstanceId, sha256, shortHash } from "./id.ts";

void test("a digest is that of FIPS 180-2's example", () => {
  const digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  assert.equal(sha256("abc"), digest);
  assert.equal(sha256(Buffer.from("abc")), digest);
  assert.equal(shortHash("abc", 8), "ba7816bf");
  assert.ok(isDigest(digest));
  for (const text of [digest.slice(1), digest.toUpperCase(), `${digest}0`, `${digest}\n`, "sha512:00", ""]) {
    assert.ok(!isDigest(text), JSON.stringify(text));
  }
});

void test("an instance id comes apart into what it was made of", () => {
  const name = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/);
  fc.assert(
    fc.property(name, name, fc.integer({ min: 1, max: 99_999 }), fc.stringMatching(/^[0-9a-f]{8}$/), (a, b, c, d) => {
      assert.deepEqual(parseInstanceId(instanceId(a, b, c, d)), { stack: a, name: b, ordinal: c, specHash: d });
    }),
  );
});

void test("what is no instance id is none", () => {
  const others = [
    "",
    "shop.web.1",
    "shop.web.0.0123abcd",
    "shop.web.1.0123ABCD",
    "shop.web.1.0123abcd\n",
    "../.a.1.0123abcd",
  ];
  for (const text of [...others, "shop.web.01.0123abcd", "shop..1.0123abcd", "shop.web.100000.0123abcd"]) {
    assert.equal(parseInstanceId(text), undefined, JSON.stringify(text));
  }
});

void test("names are DNS labels of at most 40 characters", () => {
  for (const name of ["a", "web", "web-2", "0", "a".repeat(40)]) assert.match(name, namePattern);
  for (const name of ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a\n", "é", "a".repeat(41)]) {
    assert.doesNotMatch(name, namePattern);
  }
});

void test("canonical JSON is JSON that says the same", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      assert.deepEqual(JSON.parse(canonicalJson(value)), JSON.parse(JSON.stringify(value)));
    }),
  );
});

void test("canonical JSON does not depend on the order of members, at any depth", () => {
  const reversed = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(reversed);
    if (value === null || typeof value !== "object") return value;
    const members = Object.entries(value).map(([key, member]) => [key, reversed(member)] as const);
    return Object.fromEntries(members.toReversed());
  };
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      assert.equal(canonicalJson(reversed(value)), canonicalJson(value));
    }),
  );
  assert.equal(canonicalJson({ b: [{ d: 1, c: undefined }], a: "x" }), '{"a":"x","b":[{"d":1}]}');
  assert.notEqual(canonicalJson([1, 2]), canonicalJson([2, 1]));
});
