import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import type { FromHashThread, HashJob } from "./hash.ts";

/** The thread behind `hash.ts`: reads a file from end to end, so that the daemon's own thread stays free. */

const { path, algorithms } = workerData as HashJob;
const progressStepBytes = 64 << 20;

const post = (message: FromHashThread): void => parentPort?.postMessage(message, []);

const hashes = algorithms.map((algorithm) => createHash(algorithm));
const buffer = Buffer.allocUnsafe(1 << 20);
let sizeBytes = 0;
let reportedBytes = 0;
const fd = openSync(path, "r");
try {
  for (;;) {
    const length = readSync(fd, buffer, 0, buffer.length, null);
    if (length === 0) break;
    for (const hash of hashes) hash.update(buffer.subarray(0, length));
    sizeBytes += length;
    if (sizeBytes - reportedBytes < progressStepBytes) continue;
    reportedBytes = sizeBytes;
    post({ kind: "progress", sizeBytes });
  }
} finally {
  closeSync(fd);
}
post({ kind: "done", hex: hashes.map((hash) => hash.digest("hex")) });
