import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { statfsSync } from "node:fs";

const mib = 2 ** 20;

export function freeMib(directory: string): number {
  const { bavail, bsize } = statfsSync(directory);
  return (bavail * bsize) / mib;
}

/** Appends to `file` until not a byte more fits on the disk that `directory` is on. What others give back meanwhile is filled too. */
export function fillDisk(directory: string, file: string): void {
  for (const args of [["bs=64k"], ["bs=1", "count=65536"]]) {
    spawnSync("dd", ["if=/dev/zero", `of=${file}`, "oflag=append", "conv=notrunc", ...args], { stdio: "ignore" });
  }
  const free = freeMib(directory);
  assert.ok(free < 0.1, `${free} MiB are free`);
}
