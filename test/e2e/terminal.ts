import assert from "node:assert/strict";
import { join } from "node:path";
import { type IPty, spawn as spawnPty } from "@lydell/node-pty";
import { checkout } from "./daemon.ts";

/** What is typed once some text has appeared. */
export type Typed = readonly [after: RegExp, act: string | ((pty: IPty) => void)];

const limitMs = 120_000;

/** Runs a shell line in a terminal, where `$CROFT` is the command line of the daemon at `root`; what was shown, and the exit code. */
export async function inTerminal(
  root: string,
  line: string,
  ...typed: readonly Typed[]
): Promise<{ readonly shown: string; readonly code: number }> {
  const pty = spawnPty("/bin/sh", ["-c", line], {
    cols: 100,
    rows: 30,
    env: { ...process.env, CROFT_ROOT: root, CROFT: join(checkout, "bin", "croft"), TERM: "xterm" },
  });
  const left = [...typed];
  let shown = "";
  let from = 0;
  pty.onData((text) => {
    shown += text;
    const [next] = left;
    if (next === undefined || !next[0].test(shown.slice(from))) return;
    left.shift();
    from = shown.length;
    if (typeof next[1] === "string") pty.write(next[1]);
    else next[1](pty);
  });
  // What waits for a text that never comes would wait for ever: ended, it shows what came instead.
  const limit = setTimeout(() => pty.kill("SIGKILL"), limitMs);
  const code = await new Promise<number>((resolve) => pty.onExit(({ exitCode }) => resolve(exitCode)));
  clearTimeout(limit);
  assert.deepEqual(left, [], shown);
  return { shown, code };
}
