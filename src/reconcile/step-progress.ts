import type { Progress } from "../base/call.ts";
import type { Fault } from "../base/fault.ts";
import type { InstanceId } from "../base/id.ts";
import type { Step } from "../stack/plan/step.ts";
import { subjectOf } from "./actor.ts";
import { doingWords, doneWords, groundSteps } from "./step-word.ts";

/** Tells whoever listens how the steps of one stack go, by what they are about. */
export class StepProgress {
  readonly #listeners = new Set<(progress: Progress) => void>();

  /** Everything from now on, until the returned function is called. */
  listen(listener: (progress: Progress) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** `isFailing`: its last attempt failed, and is told as failing until one does not. */
  begun(step: Step, isFailing: boolean): void {
    const doing = doingWords[step.action.kind];
    if (doing !== undefined && !isFailing) this.#tell(topicOf(step), doing);
  }

  done(step: Step, wasFailing: boolean): void {
    const { kind } = step.action;
    const done = doneWords[kind];
    // Networks and volumes are made at once: that is worth a word only when it was said to fail.
    const isSilent = groundSteps.has(kind) && doingWords[kind] === undefined && !wasFailing;
    if (done !== undefined && !isSilent) this.#tell(topicOf(step), done);
  }

  failed(step: Step, fault: Fault): void {
    this.#tell(topicOf(step), `failed: ${fault.message}`);
  }

  /** What happened to an instance by itself. */
  became(id: InstanceId, state: string): void {
    this.#tell(subjectOf(id), state);
  }

  #tell(topic: string, state: string): void {
    for (const listener of this.#listeners) listener({ topic, state });
  }
}

/** What a step works on, as people name it: `shop/web-1`, `network shop/back`, `volume shop/data`, `disk data of shop/files-1`. */
function topicOf({ action }: Step): string {
  if ("network" in action) return `network ${action.network.replace(".", "/")}`;
  if ("volume" in action) return `volume ${action.volume.replace(".", "/")}`;
  const instance = subjectOf(action.instance);
  return "disk" in action ? `disk ${action.disk} of ${instance}` : instance;
}
