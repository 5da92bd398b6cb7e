import { randomBytes } from "node:crypto";
import { backgroundCall, throwIfCancelled, type Call, type Clock } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import type { OperationId } from "../base/id.ts";
import { Wake } from "../base/wake.ts";
import type { Store } from "../store/contract.ts";
import type { Operation, Operations } from "./contract.ts";
import { ProgressBoard } from "./progress-board.ts";

const keyPrefix = "operation/";

/** Watchers are told of progress this long after the first report they have not seen, however many followed. */
const coalesceMs = 50;

/** How many lines of progress the durable record keeps. */
const recordedLines = 256;

export interface OperationOptions {
  /** How many finished operations are remembered. */
  readonly retainCount?: number;
  /** For how long finished operations are remembered. */
  readonly retainMs?: number;
  /** Told of what is not a Fault and of records that could not be written: for the log of the daemon. */
  readonly onUnexpected?: (attempted: string, thrown: unknown) => void;
}

/** What is running and only this process knows. */
interface Live {
  operation: Operation;
  readonly board: ProgressBoard;
  readonly controller: AbortController;
  readonly wake: Wake;
  armed: boolean;
  /** Resolves when the end is recorded. */
  ended: Promise<void>;
}

/**
 * Operations that keep one record each in the store: written when the work begins and when it ends, so that progress,
 * however frequent, never touches the disk.
 */
export class StoredOperations implements Operations {
  readonly #store: Store;
  readonly #call: Call;
  readonly #retainCount: number;
  readonly #retainMs: number;
  readonly #onUnexpected: (attempted: string, thrown: unknown) => void;
  readonly #live = new Map<OperationId, Live>();
  /** When each finished operation ended, the oldest first. */
  readonly #finished = new Map<OperationId, number>();
  #lastIdMs = 0;
  #closing = false;

  /** Marks what a daemon that died left running as `interrupted`, then takes new work. */
  static async open(store: Store, clock: Clock, options: OperationOptions = {}): Promise<StoredOperations> {
    const operations = new StoredOperations(store, clock, options);
    await operations.#recover();
    return operations;
  }

  private constructor(store: Store, clock: Clock, options: OperationOptions) {
    this.#store = store;
    this.#call = backgroundCall(clock);
    this.#retainCount = options.retainCount ?? 1_000;
    this.#retainMs = options.retainMs ?? 30 * 86_400_000;
    this.#onUnexpected = options.onUnexpected ?? (() => {});
  }

  async begin<Result>(kind: string, subject: string, work: (call: Call) => Promise<Result>): Promise<Operation> {
    if (this.#closing) throw stopping(`begin ${kind} of ${subject}`);
    const id = this.#newId();
    const operation: Operation = {
      id,
      kind,
      subject,
      status: "running",
      startedMs: this.#call.clock.nowMs(),
      progress: [],
    };
    await this.#store.put(keyPrefix + id, operation, "absent", this.#call);
    const live = liveOf(operation);
    if (this.#closing) live.controller.abort(stopping(`${kind} of ${subject}`));
    this.#live.set(id, live);
    live.ended = this.#run(live, work);
    return operation;
  }

  async get(id: OperationId): Promise<Operation> {
    const live = this.#live.get(id);
    if (live !== undefined) return { ...live.operation, progress: live.board.since(0) };
    const entry = await this.#store.get<Operation>(keyPrefix + id, this.#call);
    if (entry === undefined) {
      throw new Fault("not-found", `there is no operation ${id}`, { hint: "croft events shows what happened" });
    }
    return entry.value;
  }

  async list(): Promise<readonly Operation[]> {
    const entries = await this.#store.list<Operation>(keyPrefix, this.#call);
    return entries
      .map(({ value }) => {
        const live = this.#live.get(value.id);
        return live === undefined ? value : Object.assign(value, live.operation, { progress: live.board.since(0) });
      })
      .toReversed();
  }

  async *watch(id: OperationId, call: Call): AsyncIterable<Operation> {
    throwIfCancelled(call);
    const live = this.#live.get(id);
    if (live === undefined) {
      yield await this.get(id);
      return;
    }
    let seen = -1;
    for (;;) {
      const { operation, board } = live;
      if (board.version > seen || operation.status !== "running") {
        const progress = board.since(seen);
        seen = board.version;
        yield { ...operation, progress };
        if (operation.status !== "running") return;
        throwIfCancelled(call);
      } else {
        await live.wake.next(call.signal);
      }
    }
  }

  async cancel(id: OperationId): Promise<void> {
    const live = this.#live.get(id);
    if (live?.operation.status === "running") {
      live.controller.abort(new Fault("cancelled", `${live.operation.kind} of ${live.operation.subject}: cancelled`));
      return;
    }
    const { kind, subject, status } = await this.get(id);
    throw new Fault("precondition", `cancel ${kind} of ${subject}: it has ${status} already`);
  }

  async close(): Promise<void> {
    this.#closing = true;
    const ends = [...this.#live.values()].map((live) => {
      live.controller.abort(stopping(`${live.operation.kind} of ${live.operation.subject}`));
      return live.ended;
    });
    await Promise.all(ends);
  }

  /** Never rejects: whatever happens becomes the operation's end. */
  async #run<Result>(live: Live, work: (call: Call) => Promise<Result>): Promise<void> {
    const { signal } = live.controller;
    let end: Pick<Operation, "status" | "result" | "fault">;
    try {
      const result = await work({
        signal,
        clock: this.#call.clock,
        report: (progress) => this.#report(live, progress),
      });
      end = { status: "succeeded", ...(result === undefined ? {} : { result }) };
    } catch (thrown) {
      end = { status: statusOf(signal), fault: this.#recordable(live.operation, thrown) };
    }
    await this.#finish(live, end);
  }

  async #finish(live: Live, end: Pick<Operation, "status" | "result" | "fault">): Promise<void> {
    const { id, kind, subject } = live.operation;
    const finishedMs = this.#call.clock.nowMs();
    const done: Operation = { ...live.operation, ...end, finishedMs };
    const progress = live.board.since(0).slice(-recordedLines);
    try {
      await this.#store.put(keyPrefix + id, { ...done, progress }, "any", this.#call);
      this.#live.delete(id);
    } catch (thrown) {
      // It stays known to this process; the next one will call it interrupted, which is as much as it can know.
      this.#onUnexpected(`record the end of ${kind} of ${subject}`, thrown);
    }
    live.operation = done;
    live.wake.ring();
    this.#finished.set(id, finishedMs);
    await this.#forgetOld(finishedMs);
  }

  #report(live: Live, progress: Parameters<Call["report"]>[0]): void {
    live.board.report(progress);
    if (live.armed) return;
    live.armed = true;
    this.#call.clock.after(coalesceMs, () => {
      live.armed = false;
      live.wake.ring();
    });
  }

  /** A Fault says what is fit to be kept. The text of anything else may hold whatever it stumbled over. */
  #recordable(operation: Operation, thrown: unknown): NonNullable<Operation["fault"]> {
    const attempted = `${operation.kind} of ${operation.subject}`;
    if (thrown instanceof Fault) {
      const { reason, message, hint } = thrown;
      return hint === undefined ? { reason, message } : { reason, message, hint };
    }
    this.#onUnexpected(attempted, thrown);
    if (thrown instanceof Error && thrown.name === "AbortError") {
      return { reason: "cancelled", message: `${attempted}: cancelled` };
    }
    const name = thrown instanceof Error ? thrown.name : typeof thrown;
    return { reason: "bug", message: `${attempted}: an unexpected ${name}`, hint: "the daemon's log has the details" };
  }

  async #recover(): Promise<void> {
    const nowMs = this.#call.clock.nowMs();
    const entries = await this.#store.list<Operation>(keyPrefix, this.#call);
    const lost = entries.filter(({ value }) => value.status === "running");
    const fault = {
      reason: "unavailable",
      message: "the daemon stopped before this was done",
      hint: "repeat it",
    } as const;
    await Promise.all(
      lost.map(async ({ key, value, revision }) => {
        const ended: Operation = { ...value, status: "interrupted", finishedMs: nowMs, fault };
        try {
          await this.#store.put(key, ended, revision, this.#call);
        } catch (thrown) {
          // A full disk must not keep the daemon from starting: this process knows, and the next one tries again.
          this.#onUnexpected(`record the end of ${value.kind} of ${value.subject}`, thrown);
          this.#live.set(value.id, liveOf(ended));
        }
      }),
    );
    const ended = entries.map(({ value }) => [value.id, value.finishedMs ?? nowMs] as const);
    for (const [id, finishedMs] of ended.sort(([, left], [, right]) => left - right))
      this.#finished.set(id, finishedMs);
    await this.#forgetOld(nowMs);
  }

  async #forgetOld(nowMs: number): Promise<void> {
    const old: OperationId[] = [];
    for (const [id, finishedMs] of this.#finished) {
      if (this.#finished.size - old.length <= this.#retainCount && nowMs - finishedMs <= this.#retainMs) break;
      old.push(id);
    }
    for (const id of old) {
      this.#finished.delete(id);
      this.#live.delete(id);
    }
    const removals = old.map((id) => this.#store.remove(keyPrefix + id, "any", this.#call));
    for (const outcome of await Promise.allSettled(removals)) {
      if (outcome.status === "rejected") this.#onUnexpected("forget an old operation", outcome.reason);
    }
  }

  /** `op-`, nine digits of time and eight of chance. Ids sort by when they began, also those of one millisecond. */
  #newId(): OperationId {
    this.#lastIdMs = Math.max(this.#lastIdMs + 1, this.#call.clock.nowMs());
    const time = this.#lastIdMs.toString(36).padStart(9, "0");
    return `op-${time}-${randomBytes(4).toString("hex")}` as OperationId;
  }
}

function liveOf(operation: Operation): Live {
  return {
    operation,
    board: new ProgressBoard(),
    controller: new AbortController(),
    wake: new Wake(),
    armed: false,
    ended: Promise.resolve(),
  };
}

/** Work that was asked to stop often fails with what the stop did to it: a killed process, a closed connection. */
function statusOf(signal: AbortSignal): "failed" | "cancelled" | "interrupted" {
  if (!signal.aborted) return "failed";
  return isFault(signal.reason, "unavailable") ? "interrupted" : "cancelled";
}

function stopping(attempted: string): Fault {
  return new Fault("unavailable", `${attempted}: the daemon is stopping`, { hint: "repeat it once it is back" });
}
