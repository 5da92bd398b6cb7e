import { rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { throwIfCancelled, type Call, type Clock } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { BlobSource } from "./blob-source.ts";
import type { IngestOptions, LayerExpectation, LayerFacts } from "./ingest.ts";
import { defaultLayerLimits, type LayerLimits } from "./limit.ts";
import { partialPath } from "./pending-file.ts";
import { layerTopic } from "./verified-blob.ts";
import { faultFrom, plainFault, type FromWorker, type ToWorker } from "./worker-message.ts";

/** Enough for a million entries with the longest names that `defaultLayerLimits` admit; beyond it only the worker dies. */
const defaultMaxHeapMiB = 1024;
/** An idle worker costs some 10 MiB; starting one costs some 40 ms. Layers of one image follow each other within this. */
const defaultIdleMs = 5_000;

interface Job {
  readonly source: BlobSource;
  readonly options: IngestOptions;
  readonly expected: LayerExpectation;
  readonly limits: LayerLimits;
  readonly call: Call;
  readonly outcome: PromiseWithResolvers<LayerFacts>;
}

/**
 * Unpacks layers in threads of their own, so that neither bytes nor digests nor file writes ever block the daemon's event
 * loop. Threads start when there is work and end after idling. Each holds a few MiB of data at a time however large its
 * layer is; layers beyond the number of threads wait their turn.
 */
export class LayerWorkers {
  readonly #clock: Clock;
  readonly #maxWorkers: number;
  readonly #idleMs: number;
  readonly #maxHeapMiB: number;
  readonly #waiting: Job[] = [];
  readonly #idle: { readonly worker: Worker; readonly keep: () => void }[] = [];
  readonly #targets = new Set<string>();
  readonly #workers = new Set<Worker>();
  #isClosed = false;

  /** By default as many threads as processors, from two (network and unpacking overlap) to four. */
  constructor(
    clock: Clock,
    options: { readonly maxWorkers?: number; readonly idleMs?: number; readonly maxHeapMiB?: number } = {},
  ) {
    this.#clock = clock;
    this.#maxWorkers = options.maxWorkers ?? Math.min(4, Math.max(2, availableParallelism()));
    this.#maxHeapMiB = options.maxHeapMiB ?? defaultMaxHeapMiB;
    this.#idleMs = options.idleMs ?? defaultIdleMs;
  }

  /**
   * `ingestLayer` in a thread: same results, same Faults. Progress is reported as compressed bytes.
   *
   * @throws Fault also `conflict` when the same target is being written already.
   */
  async ingest(
    source: BlobSource,
    options: IngestOptions,
    expected: LayerExpectation,
    call: Call,
    limits: LayerLimits = defaultLayerLimits,
  ): Promise<LayerFacts> {
    throwIfCancelled(call);
    if (this.#isClosed) throw new Fault("unavailable", `unpack layer to ${options.targetPath}: shutting down`);
    if (this.#targets.has(options.targetPath)) {
      throw new Fault("conflict", `unpack layer to ${options.targetPath}: it is being unpacked already`);
    }
    const job = { source, options, expected, limits, call, outcome: Promise.withResolvers<LayerFacts>() };
    const giveUp = (): void => {
      const index = this.#waiting.indexOf(job);
      if (index === -1) return;
      this.#waiting.splice(index, 1);
      job.outcome.reject(cancellation(call));
    };
    this.#targets.add(options.targetPath);
    try {
      this.#waiting.push(job);
      call.signal.addEventListener("abort", giveUp, { once: true });
      this.#next();
      return await job.outcome.promise;
    } finally {
      call.signal.removeEventListener("abort", giveUp);
      this.#targets.delete(options.targetPath);
    }
  }

  /** Ends all threads; what they were at is cancelled and leaves nothing. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const { keep } of this.#idle.splice(0)) keep();
    for (const job of this.#waiting.splice(0)) {
      job.outcome.reject(new Fault("cancelled", `unpack layer to ${job.options.targetPath}: shutting down`));
    }
    await Promise.all([...this.#workers].map((worker) => worker.terminate()));
  }

  #next(): void {
    const job = this.#waiting[0];
    if (job === undefined) return;
    const idle = this.#idle.pop();
    if (idle === undefined && this.#workers.size >= this.#maxWorkers) return;
    this.#waiting.shift();
    idle?.keep();
    this.#run(job, idle?.worker ?? this.#start());
  }

  #start(): Worker {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: this.#maxHeapMiB },
    });
    this.#workers.add(worker);
    worker.once("exit", () => this.#workers.delete(worker));
    return worker;
  }

  #run(job: Job, worker: Worker): void {
    const { call, outcome, options, expected } = job;
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    const send = (message: ToWorker): void => worker.postMessage(message);
    const cancel = (): void => send({ kind: "cancel", fault: plainFault(cancellation(call)) });

    const settle = (): void => {
      worker.removeListener("message", onMessage);
      worker.removeListener("error", onError);
      worker.removeListener("exit", onExit);
      call.signal.removeEventListener("abort", cancel);
    };
    const onMessage = (message: FromWorker): void => {
      switch (message.kind) {
        case "progress":
          call.report(message.progress);
          return;
        case "need-headers":
          void answerHeaders(job.source, send);
          return;
        case "done":
          outcome.resolve(message.facts);
          break;
        case "failed":
          outcome.reject(faultFrom(message.fault));
      }
      settle();
      this.#rest(worker);
      this.#next();
    };
    // A thread that dies cannot clean up after itself.
    let death: unknown;
    const onError = (error: unknown): void => {
      death = error;
    };
    const onExit = (): void => {
      settle();
      void removePartials(options).finally(() => {
        outcome.reject(deathFault(death, expected));
        this.#next();
      });
    };
    worker.on("message", onMessage);
    worker.on("error", onError);
    worker.on("exit", onExit);
    call.signal.addEventListener("abort", cancel, { once: true });
    worker.ref();
    const source = job.source.kind === "http" ? { kind: "http" as const, url: job.source.url } : job.source;
    send({ kind: "ingest", source, options, expected, limits: job.limits });
    if (call.signal.aborted) cancel();
  }

  /** Lets a worker wait for more work for a while, without keeping the process alive for it. */
  #rest(worker: Worker): void {
    if (this.#isClosed) return;
    worker.unref();
    const keep = this.#clock.after(this.#idleMs, () => {
      const index = this.#idle.findIndex((idle) => idle.worker === worker);
      if (index !== -1) this.#idle.splice(index, 1);
      this.#workers.delete(worker);
      void worker.terminate();
    });
    this.#idle.push({ worker, keep });
  }
}

async function answerHeaders(source: BlobSource, send: (message: ToWorker) => void): Promise<void> {
  try {
    send({ kind: "headers", headers: source.kind === "http" ? await source.headers() : {} });
  } catch (thrown) {
    send({ kind: "no-headers", fault: plainFault(Fault.from(thrown, "authenticate at the registry")) });
  }
}

async function removePartials(options: IngestOptions): Promise<void> {
  await rm(partialPath(options.targetPath), { force: true });
  if (options.keepBlobPath !== undefined) await rm(partialPath(options.keepBlobPath), { force: true });
}

function deathFault(death: unknown, expected: LayerExpectation): Fault {
  const attempted = `unpack ${layerTopic(expected)}`;
  if (death === undefined) return new Fault("cancelled", `${attempted}: shutting down`);
  if (death instanceof Error && "code" in death && death.code === "ERR_WORKER_OUT_OF_MEMORY") {
    return new Fault("exhausted", `${attempted}: its names need more memory than a thread may have`, {
      cause: death,
    });
  }
  return Fault.from(death, attempted);
}

function cancellation(call: Call): Fault {
  const reason: unknown = call.signal.reason;
  return reason instanceof Fault ? reason : new Fault("cancelled", "cancelled");
}
