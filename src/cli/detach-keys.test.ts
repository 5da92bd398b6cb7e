import assert from "node:assert/strict";
import { test } from "node:test";
import { DetachKeys } from "./detach-keys.ts";

const p = "\u0010";
const q = "\u0011";

function press(...chunks: string[]): { readonly passed: string; readonly detached: boolean } {
  const keys = new DetachKeys();
  let passed = "";
  for (const chunk of chunks) {
    const { pass, detach } = keys.press(Buffer.from(chunk));
    passed += Buffer.from(pass).toString();
    if (detach) return { passed, detached: true };
  }
  return { passed, detached: false };
}

test("Ctrl-P Ctrl-Q detaches, also when typed slowly and after other keys", () => {
  assert.deepEqual(press(`${p}${q}`), { passed: "", detached: true });
  assert.deepEqual(press(`ls${p}`, `${q}more`), { passed: "ls", detached: true });
  assert.deepEqual(press(`${p}${p}${q}`), { passed: p, detached: true });
});

test("either key alone is the process's", () => {
  assert.deepEqual(press(`${q}a`), { passed: `${q}a`, detached: false });
  assert.deepEqual(press(p, "x"), { passed: `${p}x`, detached: false });
});
