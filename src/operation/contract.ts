import type { Progress, Call } from "../base/call.ts";
import type { OperationId } from "../base/id.ts";
import type { Reason } from "../base/fault.ts";

/** Long-running work that outlives the request that began it: watched, cancelled, and remembered. */
export interface Operations {
  /**
   * Records the operation and runs `work` in the background. `kind` is `stack.apply`, `image.pull`, …; `subject` what it
   * is about. Resolves when the record is durable and `work` has begun. A daemon that dies marks what was running as
   * `interrupted` when it comes back. What `work` returns must be JSON-safe and, like what it throws, is kept: no secrets.
   */
  begin<Result>(kind: string, subject: string, work: (call: Call) => Promise<Result>): Promise<Operation>;
  /** Throws `not-found` when it never was or is no longer remembered. */
  get(id: OperationId): Promise<Operation>;
  /** The newest first. */
  list(): Promise<readonly Operation[]>;
  /**
   * Snapshots as they change, at most a few each second; the last one is done, and durable. The first carries every
   * progress line, the others only those that changed since. Throws `not-found`, or `cancelled` when the call is.
   */
  watch(id: OperationId, call: Call): AsyncIterable<Operation>;
  /** Asks it to stop; returns at once. `precondition` when it is done already. */
  cancel(id: OperationId): Promise<void>;
  /** Interrupts what is running and waits until it has ended and is recorded. */
  close(): Promise<void>;
}

export interface Operation {
  readonly id: OperationId;
  readonly kind: string;
  readonly subject: string;
  readonly status: "running" | "succeeded" | "failed" | "cancelled" | "interrupted";
  readonly startedMs: number;
  readonly finishedMs?: number;
  readonly progress: readonly Progress[];
  /** JSON-safe, when it succeeded. */
  readonly result?: unknown;
  readonly fault?: { readonly reason: Reason; readonly message: string; readonly hint?: string };
}
