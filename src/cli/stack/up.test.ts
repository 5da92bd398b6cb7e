import assert from "node:assert/strict";
import { test } from "node:test";
import type { Plan } from "../../client/message.ts";
import type { Context } from "../context.ts";
import { painter } from "../paint.ts";
import { showPlan } from "./up.ts";

async function shown(plan: Partial<Plan>, asked: { readonly pull: boolean; readonly build: boolean }): Promise<string> {
  const written: string[] = [];
  const out = { paint: painter(false), write: async (text: string) => void written.push(text) };
  const whole = { steps: [], missingImages: [], text: "shop: nothing to do\n", ...plan };
  await showPlan(whole as unknown as Plan, { out } as unknown as Context, asked);
  return written.join("");
}

function again(how: string): string {
  return ` images are ${how} again, and what runs one that changed is made anew\n\n`;
}

test("a plan says what --pull and --build do, instead of that there is nothing to do", async () => {
  assert.equal(await shown({}, { pull: false, build: true }), again("built"));
  assert.equal(await shown({}, { pull: true, build: true }), again("fetched and built"));
  const changed = { missingImages: ["site"], text: "shop: 1 to create.\n" };
  assert.equal(
    await shown(changed, { pull: false, build: false }),
    " first made or fetched: site\nshop: 1 to create.\n\n",
  );
});
