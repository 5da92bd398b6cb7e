import type { InstanceId } from "../../base/id.ts";
import type { Action, Cost, Plan, Step } from "./step.ts";

interface Extra {
  readonly after?: readonly string[];
  readonly notBeforeMs?: number | undefined;
}

/** A plan being written. Keys are unique: the same action on the same thing is added once. */
export class Draft {
  readonly #steps = new Map<string, Step>();
  readonly #refusals: Plan["refusals"][number][] = [];
  /** Steps that stay only when another step names them. */
  readonly #onlyIfAwaited = new Set<string>();

  /** Adds a step and returns its key, for others' `after`. */
  add(action: Action, cost: Cost, why: string, extra: Extra = {}): string {
    const key = `${action.kind} ${subject(action)}`;
    if (!this.#steps.has(key)) {
      const { after = [], notBeforeMs } = extra;
      this.#steps.set(key, { key, action, cost, why, after, ...(notBeforeMs === undefined ? {} : { notBeforeMs }) });
    }
    return key;
  }

  /** As `add`, but the step is in the plan only when another one comes after it. */
  addIfAwaited(action: Action, cost: Cost, why: string): string {
    const key = this.add(action, cost, why);
    this.#onlyIfAwaited.add(key);
    return key;
  }

  /** More that must be done before the step; for what is only known once the rest is planned. */
  delay(key: string, after: readonly string[]): void {
    const step = this.#steps.get(key);
    if (step !== undefined && after.length > 0) this.#steps.set(key, { ...step, after: [...step.after, ...after] });
  }

  /** The key of the step of this kind about an instance, when there is one. */
  of(instance: InstanceId, kind: Action["kind"]): readonly string[] {
    const key = `${kind} ${instance}`;
    return this.#steps.has(key) ? [key] : [];
  }

  refuse(subject: string, why: string, hint: string): void {
    this.#refusals.push({ subject, why, hint });
  }

  finish(): Plan {
    const steps = [...this.#steps.values()];
    if (this.#onlyIfAwaited.size === 0) return { steps, refusals: this.#refusals };
    const awaited = new Set(steps.flatMap((step) => step.after));
    return {
      steps: steps.filter((step) => !this.#onlyIfAwaited.has(step.key) || awaited.has(step.key)),
      refusals: this.#refusals,
    };
  }
}

function subject(action: Action): string {
  if ("network" in action) return action.network;
  if ("volume" in action) return action.volume;
  if ("disk" in action) return `${action.instance}/${action.disk}`;
  return action.instance;
}
