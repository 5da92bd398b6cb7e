import type { Plan, Step } from "../stack/plan/step.ts";

/** What the loop says about a step that is offered to it. */
export type Answer = "begun" | "not now" | "full";

/**
 * A plan on its way. Each step is looked at a constant number of times, however large the plan: when it comes up, and once
 * for each step it waits for.
 */
export class PlanRun {
  readonly plan: Plan;
  readonly #open = new Map<string, number>();
  readonly #followers = new Map<string, Step[]>();
  /** Whose turn has come, in the order of the plan. */
  readonly #ready: Step[] = [];
  #next = 0;
  /** What another step made ready: goes first, the latest at the front, so that things are finished rather than begun. */
  readonly #eager: Step[] = [];

  constructor(plan: Plan) {
    this.plan = plan;
    for (const step of plan.steps) this.#open.set(step.key, 0);
    for (const step of plan.steps) {
      // What a plan does not hold needs not be waited for.
      const before = new Set(step.after.filter((key) => this.#open.has(key)));
      this.#open.set(step.key, before.size);
      for (const key of before) {
        const followers = this.#followers.get(key);
        if (followers === undefined) this.#followers.set(key, [step]);
        else followers.push(step);
      }
      // Waiting is nothing that could be begun: a new plan finds that it is over.
      if (before.size === 0 && step.action.kind !== "await-healthy") this.#ready.push(step);
    }
  }

  /**
   * Offers every step whose turn has come. One that is refused `not now` comes up again only in another plan; at `full`
   * the rest waits for the next offer.
   */
  offer(begin: (step: Step) => Answer): void {
    for (let step = this.#eager.at(-1); step !== undefined; step = this.#eager.at(-1)) {
      if (begin(step) === "full") return;
      this.#eager.pop();
    }
    for (let step = this.#ready[this.#next]; step !== undefined; step = this.#ready[this.#next]) {
      if (begin(step) === "full") return;
      this.#next += 1;
    }
  }

  /** Whether a step of this plan waits for that one. */
  isAwaited(key: string): boolean {
    return this.#followers.has(key);
  }

  done(key: string): void {
    for (const step of this.#followers.get(key) ?? []) {
      const open = (this.#open.get(step.key) ?? 0) - 1;
      this.#open.set(step.key, open);
      if (open === 0 && step.action.kind !== "await-healthy") this.#eager.push(step);
    }
    this.#followers.delete(key);
  }
}
