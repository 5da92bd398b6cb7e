import type { Progress, Call } from "../base/call.ts";
import type { OperationId } from "../base/id.ts";
import type { Reason } from "../base/fault.ts";

/** Long-running work that outlives the request that began it: watched, cancelled, and remembered. */
export interface Operations {
  /**
   * Records the operation and runs `work` in the background. `kind` is `stack.apply`, `image.pull`, …; `subject` what it
   * is about. A daemon that dies marks what was running as `interrupted` when it comes back.
   */
  begin<Result>(kind: string, subject: string, work: (call: Call) => Promise<Result>): Promise<Operation>;
  get(id: OperationId): Promise<Operation>;
  list(): Promise<readonly Operation[]>;
  /** Snapshots as they change; the last one is done. Each carries only the progress lines that changed since. */
  watch(id: OperationId, call: Call): AsyncIterable<Operation>;
  /** Asks it to stop; returns at once. `precondition` when it is done already. */
  cancel(id: OperationId): Promise<void>;
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
