import type { Clock } from "../../base/call.ts";

/** Wakes one who waits. A ring while nobody waits is heard by whoever comes next; several are heard as one. */
export class Bell {
  #rung = false;
  #wake: (() => void) | undefined;

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  async heard(): Promise<void> {
    if (!this.#rung) await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#rung = false;
    this.#wake = undefined;
  }

  /** False when it was not rung in that time. */
  async heardWithin(limitMs: number, clock: Clock): Promise<boolean> {
    let isLate = false;
    const stopWaiting = clock.after(limitMs, () => {
      isLate = true;
      this.ring();
    });
    await this.heard();
    stopWaiting();
    return !isLate;
  }
}
