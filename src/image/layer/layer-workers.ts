import { rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { throwIfCancelled, type Call, type Clock } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { BlobSource } from "./blob-source.ts";
import type { IngestOptions, LayerExpectation, LayerFacts } from "./ingest.ts";
import { defaultLayerLimits, type LayerLimits } from "./limit.ts";
import { partialPath } from "./pending-file.ts";
import { layerTopic } from "./verified-blob.ts";
import { faultFrom, plainFault, type FromWorker } from "./worker-message.ts";
import { WorkerProcess } from "./worker-process.ts";

/** Enough for a million directories, the most expensive entries that `defaultLayerLimits` admit. */
const defaultMaxHeapMiB = 1024;
/** An idle worker costs some 30 MiB, starting one 0.1 s. The layers of one image follow each other within this. */
const defaultIdleMs = 5_000;

/** A worker that is stuck in the kernel, as when it opens a fifo that nobody writes, does not hear that it is cancelled. */
const cancelGraceMs = 2_000;

/** Where layers come from that no registry has to be asked for: builds and archives. */
export const thisMachine = "this machine";

interface Job {
  readonly source: BlobSource;
  readonly origin: string;
  readonly options: IngestOptions;
  readonly expected: LayerExpectation;
  readonly limits: LayerLimits;
  readonly call: Call;
  readonly outcome: PromiseWithResolvers<LayerFacts>;
}

/**
 * Unpacks layers in processes of their own, so that neither bytes nor digests nor file writes ever block the daemon's event
 * loop. Processes rather than threads: after a pull a thread leaves 80 to 150 MiB in the allocator of the whole process,
 * and a layer that fills the memory must end nothing but its own worker. They start when there is work and end after
 * idling. Each holds a few MiB of data at a time however large its layer is; further layers wait their turn.
 *
 * A registry that sends slowly holds its workers for as long. So where all are taken, a layer of another origin gets one
 * more than there would be, one of each origin at a time, up to twice as many: what holds up a pull from one registry
 * does not hold up those from others, nor builds.
 */
export class LayerWorkers {
  readonly #clock: Clock;
  readonly #maxWorkers: number;
  readonly #idleMs: number;
  readonly #maxHeapMiB: number;
  readonly #waiting: Job[] = [];
  readonly #idle: { readonly worker: WorkerProcess; readonly keep: () => void }[] = [];
  readonly #underWay = new Set<Job>();
  readonly #targets = new Set<string>();
  readonly #workers = new Set<WorkerProcess>();
  readonly #running = new Set<Promise<void>>();
  #isClosed = false;

  /** By default as many workers as processors, from two (network and unpacking overlap) to four. */
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
   * `ingestLayer` in a worker: same results, same Faults. Progress is reported as compressed bytes. `origin` is whoever
   * the layer is asked of, such as a registry: where its bytes really come from is that one's choice.
   *
   * @throws Fault also `conflict` when the same target is being written already.
   */
  async ingest(
    source: BlobSource,
    options: IngestOptions,
    expected: LayerExpectation,
    call: Call,
    {
      origin = thisMachine,
      limits = defaultLayerLimits,
    }: { readonly origin?: string; readonly limits?: LayerLimits } = {},
  ): Promise<LayerFacts> {
    throwIfCancelled(call);
    if (this.#isClosed) throw new Fault("unavailable", `unpack layer to ${options.targetPath}: shutting down`);
    if (this.#targets.has(options.targetPath)) {
      throw new Fault("conflict", `unpack layer to ${options.targetPath}: it is being unpacked already`);
    }
    const job = { source, origin, options, expected, limits, call, outcome: Promise.withResolvers<LayerFacts>() };
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

  /** Starts a worker if none is there, since one will be wanted soon: its start then overlaps with asking the registry. */
  warm(): void {
    if (!this.#isClosed && this.#workers.size === 0) this.#rest(this.#start());
  }

  /** Ends all workers; what they were at is cancelled and leaves nothing. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const { keep } of this.#idle.splice(0)) keep();
    for (const job of this.#waiting.splice(0)) job.outcome.reject(shutdown(job));
    const workers = [...this.#workers];
    for (const worker of workers) worker.kill();
    await Promise.all([...workers.map((worker) => worker.exited), ...this.#running]);
  }

  #next(): void {
    const job = this.#waiting.find((waiting) => this.#hasRoom(waiting));
    if (job === undefined) return;
    this.#waiting.splice(this.#waiting.indexOf(job), 1);
    this.#underWay.add(job);
    const idle = this.#idle.pop();
    idle?.keep();
    const running = this.#run(job, idle?.worker).finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  #hasRoom({ origin }: Job): boolean {
    if (this.#underWay.size < this.#maxWorkers) return true;
    return this.#underWay.size < 2 * this.#maxWorkers && ![...this.#underWay].some((job) => job.origin === origin);
  }

  #start(): WorkerProcess {
    const worker = new WorkerProcess(this.#clock, this.#maxHeapMiB);
    this.#workers.add(worker);
    void worker.exited.then(() => this.#forget(worker));
    return worker;
  }

  #forget(worker: WorkerProcess): void {
    this.#workers.delete(worker);
    const index = this.#idle.findIndex((idle) => idle.worker === worker);
    if (index !== -1) this.#idle.splice(index, 1)[0]?.keep();
  }

  async #run(job: Job, idle: WorkerProcess | undefined): Promise<void> {
    try {
      const worker = idle ?? this.#start();
      job.outcome.resolve(await this.#work(job, worker));
    } catch (thrown) {
      job.outcome.reject(thrown);
    }
    this.#underWay.delete(job);
    this.#next();
  }

  /** One job on one worker, which then rests if it is still there. */
  async #work(job: Job, worker: WorkerProcess): Promise<LayerFacts> {
    const { call, options, expected, limits } = job;
    const answer = Promise.withResolvers<Extract<FromWorker, { kind: "done" | "failed" }>>();
    worker.onMessage = (message) => {
      if (message.kind === "progress") call.report(message.progress);
      else if (message.kind === "need-headers") void answerHeaders(job.source, worker);
      else answer.resolve(message);
    };
    let forget: (() => void) | undefined;
    const cancel = (): void => {
      worker.send({ kind: "cancel", fault: plainFault(cancellation(call)) });
      forget = this.#clock.after(cancelGraceMs, () => worker.kill());
    };
    call.signal.addEventListener("abort", cancel, { once: true });
    try {
      const source = job.source.kind === "http" ? { kind: "http" as const, url: job.source.url } : job.source;
      worker.send({ kind: "ingest", source, options, expected, limits });
      if (call.signal.aborted) cancel();
      const outcome = await Promise.race([answer.promise, worker.exited]);
      if ("kind" in outcome) {
        this.#rest(worker);
        if (outcome.kind === "done") return outcome.facts;
        throw faultFrom(outcome.fault);
      }
      // A process that dies cannot clean up after itself.
      await removePartials(options, worker.pid);
      if (call.signal.aborted) throw cancellation(call);
      throw this.#isClosed ? shutdown(job) : worker.death(outcome, `unpack ${layerTopic(expected)}`);
    } finally {
      call.signal.removeEventListener("abort", cancel);
      forget?.();
    }
  }

  /** Lets a worker wait for more work for a while. */
  #rest(worker: WorkerProcess): void {
    if (this.#isClosed) return;
    const keep = this.#clock.after(this.#idleMs, () => {
      this.#forget(worker);
      worker.kill();
    });
    this.#idle.push({ worker, keep });
  }
}

async function answerHeaders(source: BlobSource, worker: WorkerProcess): Promise<void> {
  try {
    worker.send({ kind: "headers", headers: source.kind === "http" ? await source.headers() : {} });
  } catch (thrown) {
    worker.send({ kind: "no-headers", fault: plainFault(Fault.from(thrown, "authenticate at the registry")) });
  }
}

async function removePartials(options: IngestOptions, pid: number): Promise<void> {
  await rm(partialPath(options.targetPath, pid), { force: true });
  if (options.keepBlobPath !== undefined) await rm(partialPath(options.keepBlobPath, pid), { force: true });
}

function shutdown(job: Job): Fault {
  return new Fault("cancelled", `unpack ${layerTopic(job.expected)}: shutting down`);
}

function cancellation(call: Call): Fault {
  const reason: unknown = call.signal.reason;
  return reason instanceof Fault ? reason : new Fault("cancelled", "cancelled");
}
