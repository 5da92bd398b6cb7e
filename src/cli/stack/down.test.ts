import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import type { Context } from "../context.ts";
import { painter } from "../paint.ts";
import { command } from "./down.ts";

const step = (action: string, subject: string, cost: string, part = "") => ({
  key: `${action} ${subject}${part}`,
  action,
  subject,
  cost,
  why: "",
  after: [],
});

const ends = [step("stop-instance", "shop.files.1.0123abcd", "none"), step("remove-network", "shop.default", "none")];
const volume = step("remove-volume", "shop.db", "data-loss");
const disk = step("remove-disk", "shop.files.1.0123abcd", "data-loss", "/root");

/** Takes a stack down with its data, at a terminal where somebody says no; what was written, and whether it went. */
async function down(steps: readonly unknown[], flags: { readonly yes?: boolean } = {}): Promise<string> {
  const written: string[] = [];
  const screen = {
    isTerminal: true,
    color: false,
    paint: painter(false),
    columns: 80,
    rows: 24,
    write: async (text: string) => void written.push(text),
  };
  const stacks = {
    get: async () => ({}),
    plan: async (request: { readonly source: { readonly text: string }; readonly pruneVolumes: boolean }) => {
      assert.deepEqual([JSON.parse(request.source.text), request.pruneVolumes], [{ stack: "shop" }, true]);
      return { steps, refusals: [] };
    },
    remove: async () => ({ id: "1" }),
  };
  const keyboard = Object.assign(Readable.from(["n\n"]), { isTTY: true });
  const context = { client: { stacks }, out: screen, err: screen, keyboard, json: false, quiet: false };
  await command.run(
    { flags: { volumes: true, yes: flags.yes === true, detach: true }, args: { stack: "shop" } },
    context as unknown as Context,
  );
  return written.join("");
}

test("disks of machines are named and asked for, also where there is no volume", async () => {
  const asks = "Remove the data of disk root of files-1 for good? [y/N] nothing was changed\n";
  assert.equal(await down([...ends, disk]), asks);
});

test("volumes and disks are named together", async () => {
  assert.match(await down([...ends, volume, disk]), /^Remove the data of volume db, disk root of files-1 for good\?/);
});

test("where no data is, or --yes is said, nobody is asked", async () => {
  assert.match(await down(ends), /^the daemon works on it/);
  assert.match(await down([disk], { yes: true }), /^the daemon works on it/);
});
