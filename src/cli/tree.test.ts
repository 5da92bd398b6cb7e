import assert from "node:assert/strict";
import { test } from "node:test";
import { flagName } from "./command.ts";
import { cliReference } from "./reference.ts";
import { chapters, nodes, type Verb } from "./tree.ts";

const verbs: readonly Verb[] = nodes.flatMap((node) => (node.kind === "verb" ? [node] : node.verbs));

test("every verb loads, and its declaration makes sense", async () => {
  for (const verb of verbs) {
    const { flags, args } = await verb.load();
    const letters = Object.values(flags).flatMap(({ short }) => (short === undefined ? [] : [short]));
    assert.equal(new Set(letters).size, letters.length, `${verb.name} uses a letter twice`);
    for (const [key, { short, brief }] of Object.entries(flags)) {
      assert.match(flagName(key), /^[a-z][a-z-]+$/, verb.name);
      assert.ok(short === undefined || /^[A-Za-z]$/.test(short), `${verb.name} -${short}`);
      assert.doesNotMatch(brief, /\.$/, `${verb.name} --${key}`);
    }
    const counts = Object.values(args).map(({ most }) => most);
    assert.ok(!counts.slice(0, -1).includes("many"), `${verb.name}: only the last argument may be many`);
  }
});

test("names are said once", () => {
  for (const level of [nodes, ...nodes.flatMap((node) => (node.kind === "noun" ? [node.verbs] : []))]) {
    const names = level.map(({ name }) => name);
    assert.deepEqual(names, [...new Set(names)]);
  }
});

test("the reference shows every command that people see", async () => {
  const text = await cliReference();
  for (const node of chapters.flatMap((chapter) => chapter.nodes)) {
    const titles = node.kind === "verb" ? [node.name] : node.verbs.map((verb) => `${node.name} ${verb.name}`);
    for (const title of titles) assert.ok(text.includes(`### \`croft ${title}\``), title);
  }
  assert.ok(!text.includes("__complete"));
});
