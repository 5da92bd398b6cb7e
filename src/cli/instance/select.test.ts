import assert from "node:assert/strict";
import { test } from "node:test";
import type { Context } from "../context.ts";
import { selectInstances } from "./select.ts";

const instance = (stack: string, section: string, ordinal: number, name: string) => ({
  id: `${stack}.${section}.${ordinal}.0123abcd`,
  stack,
  name,
});
const all = [
  instance("shop", "web", 1, "web-1"),
  instance("shop", "web", 2, "web-2"),
  instance("shop", "db", 1, "db"),
  instance("blog", "db", 1, "db"),
  instance("late", "late", 1, "late"),
];
const context = { client: { instances: { list: async () => ({ instances: all }) } } } as unknown as Context;

test("a section means its replicas, a stack all of its instances, and what is one stays as it was typed", async () => {
  const meant: readonly (readonly [names: readonly string[], instances: readonly string[]])[] = [
    [["web"], ["shop/web-1", "shop/web-2"]],
    [["shop/web"], ["shop/web-1", "shop/web-2"]],
    [["shop/"], ["shop/web-1", "shop/web-2", "shop/db"]],
    [
      ["web-2", "late"],
      ["web-2", "late"],
    ],
    [["shop.web.1.0123abcd"], ["shop.web.1.0123abcd"]],
    [
      ["shop/web-1", "web"],
      ["shop/web-1", "shop/web-2"],
    ],
    // The daemon says what is wrong with these.
    [["db"], ["db"]],
    [["nosuch"], ["nosuch"]],
    [["nosuch/"], ["nosuch/"]],
    [[""], [""]],
  ];
  for (const [names, instances] of meant) assert.deepEqual(await selectInstances(names, context), instances);
});
