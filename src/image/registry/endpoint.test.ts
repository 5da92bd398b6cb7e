import assert from "node:assert/strict";
import { test } from "node:test";
import { isFault } from "../../base/fault.ts";
import { followable, registryOrigin } from "./endpoint.ts";

test("https everywhere but on this machine's loopback addresses", () => {
  assert.equal(registryOrigin("example.com").origin, "https://example.com");
  assert.equal(registryOrigin("example.com:5000").origin, "https://example.com:5000");
  assert.equal(registryOrigin("10.0.0.1:5000").origin, "https://10.0.0.1:5000");
  assert.equal(registryOrigin("localhost:5000").origin, "http://localhost:5000");
  assert.equal(registryOrigin("127.1.2.3:5000").origin, "http://127.1.2.3:5000");
  assert.equal(registryOrigin("[::1]:5000").origin, "http://[::1]:5000");
  assert.equal(registryOrigin("localhost.example.com:5000").protocol, "https:");
  assert.equal(registryOrigin("127.0.0.1.example.com:5000").protocol, "https:");
});

test("a registry may send us on by https only, and not to this machine", () => {
  const registry = new URL("https://registry.example");
  const follow = (target: string): URL => followable(target, new URL("/v2/", registry), registry, "redirect");
  assert.equal(follow("https://cdn.example/blob?sig=1").href, "https://cdn.example/blob?sig=1");
  assert.equal(follow("/v2/other").href, "https://registry.example/v2/other");
  for (const target of [
    "http://registry.example/blob",
    "http://cdn.example/blob",
    "https://localhost/blob",
    "https://127.0.0.1:6443/api",
    "http://[::1]:5000/blob",
    "file:///etc/passwd",
    "http://",
  ]) {
    assert.throws(
      () => follow(target),
      (error) => isFault(error, "hostile"),
      target,
    );
  }
});

test("a registry on this machine may send us to another service here, or away by https", () => {
  const registry = new URL("http://localhost:5000");
  const follow = (target: string): URL => followable(target, registry, registry, "redirect");
  assert.equal(follow("http://127.0.0.1:9000/blob").port, "9000");
  assert.equal(follow("https://cdn.example/blob").hostname, "cdn.example");
  assert.throws(
    () => follow("http://cdn.example/blob"),
    (error) => isFault(error, "hostile"),
  );
});
