import type { DesiredInstance, ObservedInstance } from "../stack/plan/step.ts";
import { displayName } from "./launch.ts";

/** How one instance of a new generation is doing. */
export type Verdict =
  | { readonly kind: "good" }
  | { readonly kind: "waiting"; readonly untilMs?: number }
  | { readonly kind: "bad"; readonly why: string };

/** What is known of the instance that is judged. */
export interface Evidence {
  readonly instance: DesiredInstance;
  readonly observed: ObservedInstance | undefined;
  readonly startedMs: number | undefined;
  /** When the loop first tried to bring it up in this generation; undefined: its turn has not come. */
  readonly attemptedMs: number | undefined;
  /** How often it was started again in this generation. */
  readonly restarts: number;
  /** What its steps or its health check said last. */
  readonly message: string;
  readonly nowMs: number;
  /** Of its engine. */
  readonly patience: number;
}

/** An instance without a health check is taken for good when it has run this long. */
const settleMs = 1000;
/** A new instance that exits this often is not going to become healthy. */
const restartLimit = 3;

/** Judges one instance for the health gate. Pure. */
export function judge(input: Evidence): Verdict {
  const { instance, observed, nowMs } = input;
  const { section } = instance;
  const name = displayName(instance);
  if (!instance.running) return { kind: "good" };
  if (observed?.status === "running" || observed?.status === "frozen") {
    if (section.health !== undefined && observed.health === "healthy") return { kind: "good" };
    // What was sick before this generation touched it is about to be started again.
    const judged = input.attemptedMs !== undefined || section.restart === "never";
    if (section.health !== undefined && observed.health === "unhealthy" && judged) {
      return { kind: "bad", why: `${name} is unhealthy: ${input.message}` };
    }
    if (section.health === undefined) {
      const settledMs = (input.startedMs ?? nowMs) + settleMs;
      // What was running before this generation has proven itself.
      if (input.attemptedMs === undefined || nowMs >= settledMs) return { kind: "good" };
      return { kind: "waiting", untilMs: settledMs };
    }
  }
  if (observed?.status === "exited" && section.restart !== "always") {
    if (observed.exitCode === 0) return { kind: "good" };
    if (section.restart === "never") {
      // How a run of an earlier generation ended says nothing about this one.
      if (input.attemptedMs === undefined) return { kind: "good" };
      return { kind: "bad", why: `${name} exited with code ${observed.exitCode ?? "unknown"}` };
    }
  }
  if (input.restarts >= restartLimit) {
    if (observed?.exitCode === undefined && input.message !== "") {
      return { kind: "bad", why: `${name} did not start, ${input.restarts + 1} times: ${input.message}` };
    }
    return {
      kind: "bad",
      why: `${name} exited ${input.restarts + 1} times, last with code ${observed?.exitCode ?? "unknown"}`,
    };
  }
  if (input.attemptedMs === undefined) return { kind: "waiting" };
  const withinMs = section.update.healthyWithinMs * input.patience;
  const untilMs = input.attemptedMs + withinMs;
  if (nowMs >= untilMs) {
    const why = input.message === "" ? "" : `: ${input.message}`;
    return { kind: "bad", why: `${name} was not healthy within ${withinMs / 1000} s${why}` };
  }
  return { kind: "waiting", untilMs };
}
