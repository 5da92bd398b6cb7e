import { closeSync, openSync, readSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { shared } from "./contract.ts";

/**
 * What the guest wrote last to the directory that we share with it: its program's code. As if killed, when it said nothing.
 * Its root may write there what it likes, and as much, so no more is read than its scripts ever write.
 */
export function exitCodeIn(directory: string): number {
  let fd: number | undefined;
  try {
    fd = openSync(join(directory, shared.exit), "r");
    const bytes = Buffer.alloc(64);
    const words = bytes.toString("latin1", 0, readSync(fd, bytes));
    const code = /^(\d{1,3}) /.exec(words)?.[1];
    if (code !== undefined) return Number(code);
  } catch {
    // It ended before it could say anything.
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
  return 128 + constants.signals.SIGKILL;
}
