import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { parseChallenges } from "./challenge.ts";

function plain(header: string): unknown {
  return parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
}

test("reads what registries send", () => {
  assert.deepEqual(
    plain(
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull,push"',
    ),
    [
      [
        "bearer",
        {
          realm: "https://auth.docker.io/token",
          service: "registry.docker.io",
          scope: "repository:library/nginx:pull,push",
        },
      ],
    ],
  );
  assert.deepEqual(plain('Basic realm="Registry Realm"'), [["basic", { realm: "Registry Realm" }]]);
  assert.deepEqual(plain("bearer REALM=token, Error = insufficient_scope"), [
    ["bearer", { realm: "token", error: "insufficient_scope" }],
  ]);
});

test("reads several challenges in one header, and escapes in quotes", () => {
  assert.deepEqual(plain('Basic realm="a, b=c", Bearer realm="https://x/y",service="a \\"b\\" \\\\", Negotiate'), [
    ["basic", { realm: "a, b=c" }],
    ["bearer", { realm: "https://x/y", service: 'a "b" \\' }],
    ["negotiate", {}],
  ]);
});

test("the first of equal parameters counts, and names of JavaScript are only names", () => {
  assert.deepEqual(plain('Bearer realm="one",realm="two"'), [["bearer", { realm: "one" }]]);
  assert.equal(parseChallenges("Bearer __proto__=x")[0]?.parameters.get("realm"), undefined);
});

test("never throws and always ends, whatever comes", () => {
  const pieces = fc.constantFrom('"', "\\", ",", " ", "=", "Bearer", "realm", "x", "é", "\t", "Basic ", 'realm="');
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ maxLength: 200 }),
        fc.array(pieces, { maxLength: 60 }).map((all) => all.join("")),
      ),
      (text) => {
        for (const { scheme } of parseChallenges(text)) assert.equal(scheme, scheme.toLowerCase());
      },
    ),
    { numRuns: 3000 },
  );
});
