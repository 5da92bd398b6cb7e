import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import * as fc from "fast-check";
import { readHostConfig } from "./host-rules.ts";
import { builtInRules, decide, matches } from "./route.ts";

const directory = mkdtempSync(join(tmpdir(), "croft-oci-rules-"));
after(() => rmSync(directory, { recursive: true }));

async function rulesOf(text: string, name = "oci.toml") {
  const file = join(directory, name);
  writeFileSync(file, text);
  return (await readHostConfig(file)).rules;
}

test("without a file an annotation chooses, and otherwise it is a namespace container", () => {
  assert.equal(decide(builtInRules, "a", {}).target, "container");
  const { target, why } = decide(builtInRules, "a", { annotations: { "croft.engine": "microvm" } });
  assert.equal(target, "microvm");
  assert.match(why, /annotation croft\.engine = microvm/);
  assert.equal(decide(builtInRules, "a", { annotations: { "croft.engine": "rocket" } }).target, "container");
});

const example = `
default = "runc"

[[rule]]
engine = "crun"
name = "pause-*"

[[rule]]
engine = "microvm"
annotation = { "croft.engine" = "microvm", tier = ["untrusted", "un*"] }

[[rule]]
engine = "microvm"
image = ["registry.example/ci/*", "*/hostile:?"]

[[rule]]
engine = "microvm"
label = { zone = "dmz" }

[[rule]]
engine = "container"
user-namespace = true
`;

const userNamespace = { linux: { namespaces: [{ type: "user" }] } };
for (const [what, id, config, target, why] of [
  ["the default", "a", {}, "runc", /no rule matches/],
  ["a name that is the id", "pause-1", {}, "crun", /rule 1 .*: name pause-1/],
  ["a name of Kubernetes", "a", { annotations: { "io.kubernetes.cri.container-name": "pause-x" } }, "crun", /rule 1/],
  ["half of the annotations", "a", { annotations: { "croft.engine": "microvm" } }, "runc", /default/],
  [
    "all annotations, by a pattern",
    "a",
    { annotations: { "croft.engine": "microvm", tier: "unknown" } },
    "microvm",
    /rule 2 .*: annotation croft\.engine = microvm, annotation tier = unknown/,
  ],
  [
    "an image",
    "a",
    { annotations: { "io.kubernetes.cri.image-name": "registry.example/ci/build:7" } },
    "microvm",
    /rule 3 .*: image registry\.example\/ci\/build:7/,
  ],
  [
    "a question mark",
    "a",
    { annotations: { "org.opencontainers.image.ref.name": "x/hostile:1" } },
    "microvm",
    /rule 3/,
  ],
  ["a label that is an annotation", "a", { annotations: { zone: "dmz" } }, "microvm", /rule 4 .*: label zone = dmz/],
  ["a label of CRI-O", "a", { annotations: { "io.kubernetes.cri-o.Labels": '{"zone":"dmz"}' } }, "microvm", /rule 4/],
  ["labels that are no JSON", "a", { annotations: { "io.kubernetes.cri-o.Labels": "{" } }, "runc", /default/],
  ["a user namespace", "a", userNamespace, "container", /rule 5 .*: a user namespace/],
  ["the first of two", "pause-1", userNamespace, "crun", /rule 1/],
] as const) {
  test(`a rule decides: ${what}`, async () => {
    const decision = decide(await rulesOf(example), id, config);
    assert.equal(decision.target, target);
    assert.match(decision.why, why);
  });
}

test("the same rules in JSON decide the same", async () => {
  const rules = await rulesOf('{"rule": [{"engine": "microvm", "image": "a*"}]}', "oci.json");
  assert.equal(rules.default, "container");
  assert.equal(decide(rules, "x", { annotations: { "io.kubernetes.cri.image-name": "ab" } }).target, "microvm");
});

for (const [text, message] of [
  ['default = "rocket"', /default: expected one of container, crun, runc, microvm/],
  ['[[rule]]\nname = "a"', /rule\[0\]\.engine: is missing/],
  ['[[rule]]\nengine = "microvm"\nimages = "a"', /rule\[0\]\.images: is not known/],
  ['[[rule]]\nengine = "microvm"\nimage = 5', /rule\[0\]\.image: expected a text/],
  ['rules = "a"', /rules: is not known/],
  ["[[", /oci\.toml: /],
] as const) {
  test(`${JSON.stringify(text)} is refused`, async () => {
    await assert.rejects(rulesOf(text), { name: "Fault", reason: "invalid", message });
  });
}

test("a pattern means what the same regular expression means", () => {
  const letters = fc.array(fc.constantFrom("a", "b", "*", "?", "/", "."), { maxLength: 8 }).map((all) => all.join(""));
  fc.assert(
    fc.property(letters, letters, (pattern, value) => {
      const expression = pattern
        .replaceAll(/[.*?/]/g, (found) => `\\${found}`)
        .replaceAll(String.raw`\*`, ".*")
        .replaceAll(String.raw`\?`, ".");
      assert.equal(matches(pattern, value), new RegExp(`^${expression}$`, "s").test(value));
    }),
    { numRuns: 5000 },
  );
});

test("a pattern made to take for ever does not", () => {
  assert.equal(matches("*a".repeat(2000), "a".repeat(1999)), false);
});
