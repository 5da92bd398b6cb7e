import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import type { Context } from "../context.ts";
import { painter } from "../paint.ts";
import { command } from "./rollback.ts";

/** A terminal at which somebody says no, and a daemon with four generations. */
function asked(current: number | undefined): { context: Context; shown: () => string } {
  const written: string[] = [];
  const screen = {
    isTerminal: true,
    color: false,
    paint: painter(false),
    columns: 80,
    rows: 24,
    write: async (text: string) => void written.push(text),
  };
  const statuses = ["failed", "live", "rolled-back", "superseded"];
  const generations = statuses.map((status, at) => ({ number: 4 - at, status, current: 4 - at === current }));
  const stacks = {
    listGenerations: async () => ({ generations }),
    diffGenerations: async ({ from, to }: { from: number; to: number }) => ({ text: `from ${from} to ${to}\n` }),
    rollback: async () => assert.fail("it was not asked for"),
  };
  const keyboard = Object.assign(Readable.from(["n\n"]), { isTTY: true });
  const context = { client: { stacks }, out: screen, err: screen, keyboard, json: false, quiet: false };
  return { context: context as unknown as Context, shown: () => written.join("") };
}

async function roll(words: readonly string[], current: number | undefined): Promise<string> {
  const { context, shown } = asked(current);
  await command.run({ flags: { yes: false, detach: false }, args: { words } }, context);
  return shown();
}

test("what would change is shown before it is asked for", async () => {
  assert.equal(await roll(["shop"], 3), "from 3 to 1\n\nMove shop back to generation 1? [y/N] nothing was changed\n");
  assert.equal(
    await roll(["shop", "2"], 3),
    "from 3 to 2\n\nMove shop back to generation 2? [y/N] nothing was changed\n",
  );
});

test("where nothing was healthy before, nobody is asked", async () => {
  await assert.rejects(roll(["shop"], 1), { reason: "precondition" });
});

test("of a stack that is down nothing is there to compare with", async () => {
  assert.equal(await roll(["shop"], undefined), "Move shop back to generation 3? [y/N] nothing was changed\n");
});
