import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../base/fault.ts";
import { type Reference, formatReference, isLocalOnly, parseReference } from "./reference.ts";

const hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/** What docker and containerd make of these names, from the published tests of the distribution project's grammar. */
const canonical: readonly (readonly [string, string])[] = [
  ["nginx", "docker.io/library/nginx:latest"],
  ["nginx:1.27", "docker.io/library/nginx:1.27"],
  ["library/debian", "docker.io/library/debian:latest"],
  ["dmcgowan/myapp", "docker.io/dmcgowan/myapp:latest"],
  ["docker.io/dmcgowan/myapp:tag", "docker.io/dmcgowan/myapp:tag"],
  ["docker.io/nginx", "docker.io/library/nginx:latest"],
  ["index.docker.io/library/nginx", "docker.io/library/nginx:latest"],
  ["index.docker.io/nginx", "docker.io/library/nginx:latest"],
  ["xn--7o8h.com/myimage:xn--7o8h", "xn--7o8h.com/myimage:xn--7o8h"],
  ["test.com/foo", "test.com/foo:latest"],
  ["test.com:8080/foo", "test.com:8080/foo:latest"],
  ["localhost/foo", "localhost/foo:latest"],
  ["localhost:5000/foo/bar:uppercaseTAG", "localhost:5000/foo/bar:uppercaseTAG"],
  ["127.0.0.1:5000/foo", "127.0.0.1:5000/foo:latest"],
  ["[::1]:5000/repo:tag", "[::1]:5000/repo:tag"],
  ["[2001:db8::1]/repo", "[2001:db8::1]/repo:latest"],
  ["UPPER/foo", "UPPER/foo:latest"],
  ["foo_bar.com:8080", "docker.io/library/foo_bar.com:8080"],
  ["foo/foo_bar.com:8080", "docker.io/foo/foo_bar.com:8080"],
  ["a/a/a/a/a/b:tag", "docker.io/a/a/a/a/a/b:tag"],
  ["sub-dom1.foo.com/bar/baz/quux:some-long-tag", "sub-dom1.foo.com/bar/baz/quux:some-long-tag"],
  ["b.gcr.io/test.example.com/my-app:test.example.com", "b.gcr.io/test.example.com/my-app:test.example.com"],
  ["foo__bar", "docker.io/library/foo__bar:latest"],
  ["foo---bar/x", "docker.io/foo---bar/x:latest"],
  [`nginx@sha256:${hex}`, `docker.io/library/nginx@sha256:${hex}`],
  [`test:5000/repo:tag@sha256:${hex}`, `test:5000/repo:tag@sha256:${hex}`],
  ["a".repeat(40), `docker.io/library/${"a".repeat(40)}:latest`],
];

const refused: readonly string[] = [
  "",
  ":",
  ":tag",
  "@",
  "nginx:",
  "nginx@",
  "Nginx",
  "docker.io/Nginx",
  "test/Repo",
  "-foo/bar",
  "foo.-bar.com/x:y:z",
  "a//b",
  "a/b/",
  "/a",
  "foo___bar",
  "foo..bar",
  "_foo",
  "foo_",
  "foo/bar-",
  "nginx:-tag",
  "nginx: tag",
  `nginx:${"t".repeat(129)}`,
  "https://github.com/docker/docker",
  "docker/docker/",
  "aa/asdf$$^/aa",
  "[::1]",
  "[::1/foo",
  "[fe80::1%25eth0]:5000/repo",
  "repo@sha256:ffff",
  `repo@sha256:${hex.toUpperCase()}`,
  `repo@sha512:${hex}${hex}`,
  `repo@sha256:${hex}@sha256:${hex}`,
  hex,
  `${"a/".repeat(128)}a`,
  "nginx\n",
  "nginx\u0000",
  "../../etc/passwd",
  "a/../b",
];

test("a name is normalised as docker does it", () => {
  for (const [written, expected] of canonical)
    assert.equal(formatReference(parseReference(written)), expected, written);
});

test("what is not a name is refused, with what would be right", () => {
  for (const text of refused) {
    assert.throws(
      () => parseReference(text),
      (error) => isFault(error, "invalid") && error.hint !== undefined,
      JSON.stringify(text),
    );
  }
});

test("the longest name is one of 255 characters", () => {
  const name = `example.com/${"a".repeat(243)}`;
  assert.equal(name.length, 255);
  assert.equal(formatReference(parseReference(`${name}:x`)), `${name}:x`);
  assert.throws(
    () => parseReference(`${name}a:x`),
    (error) => isFault(error, "invalid"),
  );
});

test("only localhost without a port is this machine's own", () => {
  assert.equal(isLocalOnly(parseReference("localhost/shop/site")), true);
  assert.equal(isLocalOnly(parseReference("localhost:5000/shop/site")), false);
  assert.equal(isLocalOnly(parseReference("shop/site")), false);
});

const word = fc.stringMatching(/^[a-z0-9]{1,8}$/);
const path = fc
  .array(fc.tuple(word, fc.constantFrom(".", "_", "__", "-", "---"), word), { minLength: 1, maxLength: 4 })
  .map((parts) => parts.map(([left, separator, right]) => `${left}${separator}${right}`).join("/"));
const domain = fc.oneof(
  fc.constantFrom("localhost", "docker.io", "[::1]:5000", "127.0.0.1:5000", "Registry"),
  fc.tuple(word, word).map(([name, top]) => `${name}.${top}`),
  fc.tuple(word, fc.integer({ min: 1, max: 65535 })).map(([name, port]) => `${name}:${port}`),
);
const tag = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/);
const digest = fc.stringMatching(/^[0-9a-f]{64}$/).map((digits) => `sha256:${digits}` as Reference["digest"] & string);

test("a canonical name means the same when it is read again", () => {
  fc.assert(
    fc.property(domain, path, fc.option(tag), fc.option(digest), (domain, path, tag, digest) => {
      if (domain === "docker.io" && !path.includes("/")) return;
      const written = `${domain}/${path}${tag === null ? "" : `:${tag}`}${digest === null ? "" : `@${digest}`}`;
      const parsed = parseReference(written);
      assert.deepEqual(parseReference(formatReference(parsed)), parsed);
      assert.equal(parsed.domain, domain);
      assert.equal(parsed.path, path);
      assert.equal(parsed.tag, tag ?? (digest === null ? "latest" : undefined));
      assert.equal(parsed.digest, digest ?? undefined);
    }),
  );
});

test("any text is either a name or an invalid Fault", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a-zA-Z0-9@:/._[\]-]{0,60}$/)), (text) => {
      try {
        const parsed = parseReference(text);
        assert.deepEqual(parseReference(formatReference(parsed)), parsed);
      } catch (error) {
        assert.ok(isFault(error, "invalid"), String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
