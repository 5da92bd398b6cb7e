import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { exampleNeeds } from "../needs.fixture.ts";
import { services } from "../service/all.ts";
import { bindingOf } from "./binding.ts";
import { Routes } from "./route.ts";

const served = services(exampleNeeds());
const routes = new Routes(served);
const bindings = served.flatMap(({ service }) => service.methods.map(bindingOf));

test("every route finds its own method, whatever the names in it are", () => {
  const name = fc.string({ minLength: 1 }).filter((text) => text.isWellFormed());
  fc.assert(
    fc.property(fc.constantFrom(...bindings), fc.array(name, { minLength: 4, maxLength: 4 }), (binding, names) => {
      const given: Record<string, string> = {};
      const path = binding.template.replace(/\{(\w+)\}/g, (_, field: string) => {
        given[field] = names[Object.keys(given).length] ?? "x";
        return encodeURIComponent(given[field]);
      });
      const found = routes.find(binding.verb, path);
      assert.equal(found.kind, "method", path);
      assert.ok(found.kind === "method");
      assert.equal(found.binding.method, binding.method);
      assert.deepEqual(found.path, given);
    }),
  );
});

test("no path makes it throw", () => {
  fc.assert(
    fc.property(fc.constantFrom("GET", "POST", "BREW"), fc.string(), (verb, path) => {
      assert.ok(["method", "wrong-verb", "unknown"].includes(routes.find(verb, `/${path}`).kind));
    }),
  );
});

test("no two methods share a route", () => {
  const shapes = bindings.map(
    ({ verb, segments, action }) =>
      `${verb} ${segments.map((segment) => ("literal" in segment ? segment.literal : "*")).join("/")}:${action}`,
  );
  assert.equal(new Set(shapes).size, shapes.length);
});

function find(verb: string, path: string): string {
  const found = routes.find(verb, path);
  return found.kind === "method" ? `${found.binding.method.name} ${JSON.stringify(found.path)}` : found.kind;
}

test("a colon in a name is an action only where a route says so", () => {
  assert.equal(find("GET", "/v1/images/nginx:1.27"), 'GetImage {"image":"nginx:1.27"}');
  assert.equal(find("POST", "/v1/images/nginx:1.27:tag"), 'TagImage {"image":"nginx:1.27"}');
  assert.equal(find("GET", "/v1/images/nginx%3Atag"), 'GetImage {"image":"nginx:tag"}');
  assert.equal(find("POST", "/v1/images/nginx%3Atag"), "wrong-verb");
  assert.equal(find("GET", "/v1/images/"), "unknown");
  assert.equal(find("GET", "/v1/images/%zz"), "unknown");
});
