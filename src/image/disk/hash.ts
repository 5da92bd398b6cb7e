import { Worker } from "node:worker_threads";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { hostFault } from "../../host/errno.ts";
import type { Algorithm } from "./checksum.ts";

export interface HashJob {
  readonly path: string;
  readonly algorithms: readonly Algorithm[];
}

export type FromHashThread =
  | { readonly kind: "progress"; readonly sizeBytes: number }
  | { readonly kind: "done"; readonly hex: readonly string[] };

/**
 * The hashes of a file's content, in the order of `algorithms`, in hex. In a thread of its own: gigabytes take seconds,
 * in which the daemon has other things to answer.
 */
export async function hashFile(
  job: HashJob,
  onProgress: (sizeBytes: number) => void,
  call: Call,
): Promise<readonly string[]> {
  const attempted = `read ${job.path}`;
  throwIfCancelled(call);
  const worker = new Worker(new URL("./hash-thread.ts", import.meta.url), { workerData: job });
  const { promise, resolve, reject } = Promise.withResolvers<readonly string[]>();
  const onAbort = (): void => {
    const reason: unknown = call.signal.reason;
    reject(reason instanceof Fault ? reason : new Fault("cancelled", `${attempted}: cancelled`, { cause: reason }));
  };
  call.signal.addEventListener("abort", onAbort, { once: true });
  worker.on("message", (message: FromHashThread) => {
    if (message.kind === "progress") onProgress(message.sizeBytes);
    else resolve(message.hex);
  });
  worker.on("error", (error) => reject(hostFault(error, attempted)));
  worker.on("exit", (code) =>
    reject(new Fault("failed", `${attempted}: the thread that reads ended with code ${code}`)),
  );
  try {
    return await promise;
  } finally {
    call.signal.removeEventListener("abort", onAbort);
    await worker.terminate();
  }
}
