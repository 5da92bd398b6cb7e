/**
 * How many times a second the API lists 50 instances on one connection, one request after the other, as a dashboard or a
 * script asks; and what serving it adds to the daemon's memory. Prints one JSON object a line.
 *
 *     node bench/api.ts
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parentPort, Worker, workerData } from "node:worker_threads";
import { systemClock } from "../src/base/call.ts";

const seconds = 3;
/** Docker 20.10, measured the same way on the same machine; the aim is ten times that. */
const dockerPerSecond = 407;

/** Proportional set size of this process. */
function pssKib(): number {
  const [, kib] = /^Pss:\s+(\d+)/m.exec(readFileSync("/proc/self/smaps_rollup", "utf8")) ?? [];
  return Number(kib);
}

/** Asks over and over on one connection, counting answers by the body's end. */
async function ask(socketPath: string): Promise<number> {
  const socket = connect(socketPath);
  const request = "GET /v1/instances?all=true HTTP/1.1\r\nhost: croft\r\n\r\n";
  let answers = 0;
  let wanted = -1;
  let seen = 0;
  await new Promise<void>((resolve, reject) => {
    const stopAtMs = performance.now() + seconds * 1000;
    socket.on("error", reject);
    socket.on("data", (chunk: Buffer) => {
      if (wanted === -1) {
        const end = chunk.indexOf("\r\n\r\n");
        const [, length] = /content-length: (\d+)/i.exec(chunk.toString("latin1", 0, end)) ?? [];
        wanted = end + 4 + Number(length);
        seen = 0;
      }
      seen += chunk.length;
      if (seen < wanted) return;
      answers += 1;
      wanted = -1;
      if (performance.now() < stopAtMs) socket.write(request);
      else resolve();
    });
    socket.write(request);
  });
  socket.destroy();
  return answers / seconds;
}

if (parentPort !== null) {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker's port has no origins
  parentPort.postMessage(await ask(workerData as string));
} else {
  const bareKib = pssKib();
  const { listen } = await import("../src/api/listen.ts");
  const { services } = await import("../src/api/service/all.ts");
  const { exampleInstance, exampleNeeds } = await import("../src/api/needs.fixture.ts");
  const folder = mkdtempSync(join(tmpdir(), "croft-bench-api-"));
  const socketPath = join(folder, "croft.sock");
  const fifty = Array.from({ length: 50 }, (_, at) => exampleInstance(at + 1));
  const needs = exampleNeeds(fifty);
  const log = { error: (detail: unknown) => console.error(detail) };
  const api = await listen(services(needs), { socketPath }, { clock: systemClock, log, maxCalls: 100 });
  const restKib = pssKib();
  const ask = (): Promise<number> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: socketPath });
      worker.once("message", resolve);
      worker.once("error", reject);
    });
  const kept = await ask();
  // The worst case: something changes before every request, so that each answer is encoded anew.
  needs.cloud.instances.revision = () => (needs.revision += 1);
  const changing = await ask();
  await api.close(0);
  rmSync(folder, { recursive: true });
  const reach = 10 * dockerPerSecond;
  const line = (work: string, croft: number): void =>
    console.log(JSON.stringify({ work, unit: "req/s", croft: Math.round(croft), reach, ok: croft >= reach }));
  line("list 50 instances over the API", kept);
  console.log(JSON.stringify({ work: "the same, changing each time", unit: "req/s", croft: Math.round(changing) }));
  console.log(JSON.stringify({ work: "memory that the API adds", unit: "KiB PSS", croft: restKib - bareKib }));
}
