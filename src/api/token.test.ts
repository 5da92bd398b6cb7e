import assert from "node:assert/strict";
import { test } from "node:test";
import { isFault } from "../base/fault.ts";
import { authenticate, createToken } from "./token.ts";

test("a token lets in whoever holds it, by its name, and nobody else", () => {
  const ci = createToken("ci");
  const anna = createToken("anna");
  const kept = [ci.kept, anna.kept];
  assert.equal(authenticate(`Bearer ${ci.token}`, kept), "ci");
  assert.equal(authenticate(`bearer ${anna.token}`, kept), "anna");
  const strangers = [undefined, "", "Bearer", `Basic ${ci.token}`, `Bearer ${ci.token}x`, `Bearer ${ci.kept.digest}`];
  for (const header of strangers) {
    assert.throws(
      () => authenticate(header, kept),
      (error) => isFault(error, "unauthenticated"),
      header,
    );
  }
});

test("what is kept does not hold the token", () => {
  const { token, kept } = createToken("ci");
  assert.ok(!JSON.stringify(kept).includes(token));
  assert.notEqual(createToken("ci").token, token);
});
