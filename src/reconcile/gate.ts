import type { Call } from "../base/call.ts";
import type { NewEvent } from "../event/contract.ts";
import type { Fault } from "../base/fault.ts";
import type { InstanceId } from "../base/id.ts";
import type { Engine, LogLine } from "../instance/contract.ts";
import type { Observed, Plan } from "../stack/plan/step.ts";
import { protectedBy, type StackRecord } from "./record.ts";
import type { StackState } from "./stack-state.ts";
import { judge } from "./verdict.ts";

/** Why a generation is not let through. */
export interface Failure {
  readonly why: string;
  readonly hint?: string;
  /** Whose last log lines tell more. */
  readonly instance?: InstanceId;
}

export type Outcome =
  | { readonly kind: "open" }
  | { readonly kind: "waiting"; readonly untilMs: number }
  | { readonly kind: "closed"; readonly failure: Failure };

/** A step that fails for one of these reasons will fail again: no use in waiting until the time is over. */
const finalReasons: ReadonlySet<string> = new Set([
  "invalid",
  "hostile",
  "corrupt",
  "unsupported",
  "protected",
  "not-found",
  "bug",
]);

/**
 * The health gate of one stack: a new generation passes when all its instances are well, and otherwise the stack goes
 * back by itself. What it remembers (first attempts) is in memory only: after a restart of the daemon the clock of what
 * was tried and never started begins anew.
 */
export class Gate {
  readonly #state: StackState;
  readonly #tell: (event: NewEvent) => void;
  readonly #attempts = new Map<InstanceId, { readonly sinceMs: number; starts: number }>();
  #closedOn: number | undefined;

  constructor(state: StackState, tell: (event: NewEvent) => void) {
    this.#state = state;
    this.#tell = tell;
  }

  begin(): void {
    this.#attempts.clear();
    this.#closedOn = undefined;
  }

  /** The generation that it closed on since it was opened last: whoever waits for that one hears that it failed. */
  get closedOn(): number | undefined {
    return this.#closedOn;
  }

  attempted(id: InstanceId, nowMs: number): void {
    if (!this.#attempts.has(id)) this.#attempts.set(id, { sinceMs: nowMs, starts: 0 });
  }

  started(id: InstanceId, nowMs: number): void {
    this.attempted(id, nowMs);
    const attempt = this.#attempts.get(id);
    if (attempt !== undefined) attempt.starts += 1;
  }

  judge(seen: {
    readonly observed: Observed;
    readonly planned: Plan;
    readonly startedMs: (id: InstanceId) => number | undefined;
    readonly message: (id: InstanceId) => string;
    /** Why steps fail, by their key. */
    readonly failures: ReadonlyMap<string, Fault>;
    /** Whether a step that fails did so too often to be waited for. */
    readonly isHopeless: (step: string) => boolean;
    readonly refusal: (holder: string) => Fault | undefined;
    readonly nowMs: number;
    readonly patience: (id: InstanceId) => number;
  }): Outcome {
    for (const [step, fault] of seen.failures) {
      if (finalReasons.has(fault.reason) || seen.isHopeless(step)) {
        return closed({ why: `${step}: ${fault.message}`, ...(fault.hint === undefined ? {} : { hint: fault.hint }) });
      }
    }
    const refused = this.refusedPort(seen.refusal);
    if (refused !== undefined) return closed(refused);
    const observed = new Map(seen.observed.instances.map((instance) => [instance.id, instance]));
    let untilMs = Infinity;
    let waiting = false;
    // A daemon that was started anew does not remember its attempts, but what started since is one.
    const appliedMs = this.#state.record?.updatedMs ?? 0;
    for (const instance of this.#state.desired().instances) {
      const attempt = this.#attempts.get(instance.id);
      const startedMs = seen.startedMs(instance.id);
      const verdict = judge({
        instance,
        observed: observed.get(instance.id),
        startedMs,
        attemptedMs: attempt?.sinceMs ?? (startedMs !== undefined && startedMs >= appliedMs ? startedMs : undefined),
        restarts: Math.max(0, (attempt?.starts ?? 0) - 1),
        message: seen.message(instance.id),
        nowMs: seen.nowMs,
        patience: seen.patience(instance.id),
      });
      if (verdict.kind === "bad") return closed({ why: verdict.why, instance: instance.id });
      if (verdict.kind === "waiting") {
        waiting = true;
        untilMs = Math.min(untilMs, verdict.untilMs ?? Infinity);
      }
    }
    if (waiting || seen.planned.steps.length > 0) return { kind: "waiting", untilMs };
    return { kind: "open" };
  }

  /** A published port of this stack that could not be had. */
  refusedPort(refusal: (holder: string) => Fault | undefined): Failure | undefined {
    for (const name of Object.keys(this.#state.current?.generation.spec.instances ?? {})) {
      const fault = refusal(`${this.#state.name}/${name}`);
      if (fault !== undefined) return { why: fault.message, ...(fault.hint === undefined ? {} : { hint: fault.hint }) };
    }
    return undefined;
  }

  /** The generation is good: the one before it is what it replaced. */
  async pass(call: Call): Promise<void> {
    const { record, current } = this.#state;
    if (record === undefined || current === undefined) return;
    await this.#state.mark(current.number, { status: "live" }, call);
    if (record.fallback !== undefined && record.fallback !== current.number) {
      await this.#state.mark(
        record.fallback,
        { status: record.fallback > current.number ? "rolled-back" : "superseded" },
        call,
      );
    }
    const moved = await this.#decide(
      current.number,
      (known) => ({ ...known, status: "live", fallback: current.number, updatedMs: call.clock.nowMs() }),
      call,
    );
    if (!moved) return;
    this.begin();
    this.#tell({
      kind: "generation.live",
      subject: this.#state.name,
      message: `generation ${current.number} of ${this.#state.name} is healthy`,
      detail: { generation: String(current.number) },
    });
  }

  /** Whether the generation still was the one that is judged: whoever moved the pointer meanwhile has the last word. */
  async #decide(number: number, edit: (record: StackRecord) => StackRecord, call: Call): Promise<boolean> {
    let moved = false;
    await this.#state.change((known) => {
      moved = known.current === number && known.status === "applying";
      return moved ? edit(known) : known;
    }, call);
    return moved;
  }

  /** The generation is not good: back to the last one that was, when there is one. */
  async close(failure: Failure, engineOf: (id: InstanceId) => Engine, call: Call): Promise<void> {
    const { record, current } = this.#state;
    if (record === undefined || current === undefined) return;
    const logs =
      failure.instance === undefined ? "" : await lastLines(engineOf(failure.instance), failure.instance, call);
    const text = [
      failure.why,
      ...(failure.hint === undefined ? [] : [failure.hint]),
      ...(logs === "" ? [] : ["last log lines:", logs]),
    ].join("\n");
    await this.#state.mark(current.number, { status: "failed", failure: text }, call);
    const back = record.fallback === current.number ? undefined : record.fallback;
    const spec = back === undefined ? undefined : (await this.#state.generation(back, call)).generation.spec;
    // Known before the pointer moves: where it went alone does not tell whether somebody else moved it.
    this.#closedOn = current.number;
    const moved = await this.#decide(
      current.number,
      (known) => ({
        ...known,
        ...(back === undefined ? { status: "failed" as const } : { status: "live" as const, current: back }),
        // What the failed one said of data ends with it: nothing of what it dropped goes, and what it let go is protected.
        pruneVolumes: false,
        ...(spec === undefined ? {} : { protectedVolumes: protectedBy(spec, known.protectedVolumes) }),
        updatedMs: call.clock.nowMs(),
      }),
      call,
    );
    if (!moved) {
      this.#closedOn = undefined;
      return;
    }
    this.#attempts.clear();
    if (back !== undefined) await this.#state.mark(back, { status: "live" }, call);
    const then = back === undefined ? "there is none to go back to" : `going back to ${back}`;
    this.#tell({
      kind: "generation.failed",
      subject: this.#state.name,
      message: `generation ${current.number} of ${this.#state.name} failed: ${failure.why}; ${then}`,
      detail: { generation: String(current.number) },
    });
  }
}

function closed(failure: Failure): Outcome {
  return { kind: "closed", failure };
}

const lastLineCount = 10;

async function lastLines(engine: Engine, id: InstanceId, call: Call): Promise<string> {
  const lines: string[] = [];
  try {
    const logged: AsyncIterable<LogLine> = engine.logs(id, { follow: false, tail: lastLineCount }, call);
    for await (const line of logged) lines.push(`  ${Buffer.from(line.bytes).toString("utf8").slice(0, 500)}`);
  } catch {
    // It never came as far as writing a log.
  }
  return lines.join("\n");
}
