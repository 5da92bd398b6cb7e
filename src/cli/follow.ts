import { Fault, isFault, type Reason } from "../base/fault.ts";
import type { Operation } from "../client/message.ts";
import { printJsonLine, type Context } from "./context.ts";
import { progressView, type ProgressView } from "./progress.ts";

/** How long a daemon that went away is waited for: one that is being upgraded is back within seconds. */
const absenceMs = 30_000;
const retryMs = 200;

/**
 * Shows an operation until it ends, and returns it when it succeeded. With `--json` its snapshots are printed, one a
 * line. Throws its Fault when it failed; `Interrupted` at Ctrl-C, while the daemon goes on with it. A daemon that is
 * restarted meanwhile is waited for.
 */
export async function follow(begun: Operation, context: Context): Promise<Operation> {
  const interrupt = new AbortController();
  const onInterrupt = (): void => interrupt.abort(new Interrupted(begun));
  process.once("SIGINT", onInterrupt);
  const view = progressView(context.err, context.clock, context.quiet || context.json);
  try {
    return outcome(await watch(begun, view, context, interrupt.signal));
  } finally {
    process.off("SIGINT", onInterrupt);
    view.finish();
  }
}

async function watch(begun: Operation, view: ProgressView, context: Context, signal: AbortSignal): Promise<Operation> {
  let last = begun;
  let absentSinceMs: number | undefined;
  for (;;) {
    try {
      for await (const snapshot of context.client.operations.watch({ id: begun.id }, { signal })) {
        absentSinceMs = undefined;
        if (context.json) await printJsonLine(context, snapshot);
        for (const progress of snapshot.progress) view.update(progress);
        last = snapshot;
      }
      if (last.status !== "running") return last;
      throw new Fault("unavailable", `operation ${begun.id}: the daemon stopped telling about it`);
    } catch (thrown) {
      if (signal.aborted) throw signal.reason;
      if (!isFault(thrown, "unavailable")) throw thrown;
      const nowMs = context.clock.monotonicMs();
      if (absentSinceMs === undefined) view.update({ topic: "daemon", state: "not there, waiting for it", unit: "" });
      absentSinceMs ??= nowMs;
      if (nowMs - absentSinceMs > absenceMs) throw thrown;
      await context.clock.sleep(retryMs);
    }
  }
}

function outcome(operation: Operation): Operation {
  const { id, status, fault, kind, subject } = operation;
  switch (status) {
    case "succeeded":
      return operation;
    case "failed":
      throw new Fault((fault?.reason ?? "failed") as Reason, fault?.message ?? `${kind} of ${subject} failed`, {
        hint: fault?.hint ?? "",
        ...(fault !== undefined && { detail: fault.detail }),
      });
    case "interrupted":
      throw new Fault("unavailable", `the daemon was restarted while it worked on ${subject}`, {
        hint: "it goes on by itself: see croft ps, or give the command again",
      });
    default:
      throw new Fault("cancelled", `operation ${id} was cancelled`);
  }
}

/** Ctrl-C while an operation was followed. */
export class Interrupted extends Fault {
  constructor({ id, kind, subject }: Operation) {
    super("cancelled", `stopped following ${kind} of ${subject}; the daemon goes on with it`, {
      hint: `follow it again: croft operation watch ${id}\nstop it:         croft operation cancel ${id}`,
    });
  }
}
