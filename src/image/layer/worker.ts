import { createInterface } from "node:readline";
import { systemClock, type Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { openBlob, type BlobSource } from "./blob-source.ts";
import { ingestLayer } from "./ingest.ts";
import { faultFrom, plainFault, type FromWorker, type ToWorker } from "./worker-message.ts";

/**
 * The program that unpacks layers, one after the other. Started by `LayerWorkers` only, spoken to in lines of JSON. It ends
 * with its standard input, and so with the daemon, however that ends.
 */

type Headers = Readonly<Record<string, string>>;

let controller = new AbortController();
let headersWanted: PromiseWithResolvers<Headers> | undefined;

function post(message: FromWorker): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

function requestHeaders(): Promise<Headers> {
  headersWanted = Promise.withResolvers();
  post({ kind: "need-headers" });
  return headersWanted.promise;
}

async function ingest(job: Extract<ToWorker, { kind: "ingest" }>): Promise<void> {
  controller = new AbortController();
  const call: Call = {
    signal: controller.signal,
    clock: systemClock,
    report: (progress) => post({ kind: "progress", progress }),
  };
  const source: BlobSource = job.source.kind === "http" ? { ...job.source, headers: requestHeaders } : job.source;
  try {
    const facts = await ingestLayer(openBlob(source, call), job.options, job.expected, job.limits, call);
    post({ kind: "done", facts });
  } catch (thrown) {
    post({ kind: "failed", fault: plainFault(Fault.from(thrown, "unpack a layer")) });
  }
}

function receive(message: ToWorker): void {
  switch (message.kind) {
    case "ingest":
      void ingest(message);
      return;
    case "cancel":
      controller.abort(faultFrom(message.fault));
      headersWanted?.reject(faultFrom(message.fault));
      return;
    case "headers":
      headersWanted?.resolve(message.headers);
      return;
    case "no-headers":
      headersWanted?.reject(faultFrom(message.fault));
  }
}

createInterface({ input: process.stdin })
  .on("line", (line) => receive(JSON.parse(line) as ToWorker))
  .on("close", () => process.exit());
