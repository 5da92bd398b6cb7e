import assert from "node:assert/strict";
import { test } from "node:test";
import { commandHelp, rootHelp } from "./help.ts";
import { painter } from "./paint.ts";
import { chapters, nodes } from "./tree.ts";
import { displayWidth } from "./width.ts";

const paint = painter(false);

function words(text: string): readonly string[] {
  return text.split(/\s+/);
}

test("help keeps within the terminal, and says the same in any", async () => {
  const run = nodes.find(({ name }) => name === "run");
  assert(run?.kind === "verb");
  const command = await run.load();
  const whole = commandHelp("croft run", run.brief, command, { paint, columns: Infinity });
  for (const columns of [60, 80, 200]) {
    const text = commandHelp("croft run", run.brief, command, { paint, columns });
    // An example is one line, to be copied.
    const prose = text.split("\n").filter((line) => !line.startsWith("  croft "));
    for (const line of prose) assert(displayWidth(line) <= columns, line);
    assert.deepEqual(words(text), words(whole));
  }
  for (const line of rootHelp(chapters, { paint, columns: 80 }).split("\n")) assert(displayWidth(line) <= 80, line);
});
