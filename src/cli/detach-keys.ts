const controlP = 0x10;
const controlQ = 0x11;

/** Finds Ctrl-P Ctrl-Q in what is typed, also when the two arrive apart. */
export class DetachKeys {
  #held = false;

  /** What to pass on of `chunk`. A Ctrl-P is held back until the next key says that it was meant for the process. */
  press(chunk: Uint8Array): { readonly pass: Uint8Array; readonly detach: boolean } {
    const pass: number[] = [];
    for (const key of chunk) {
      if (this.#held && key === controlQ) {
        this.#held = false;
        return { pass: Uint8Array.from(pass), detach: true };
      }
      if (this.#held) pass.push(controlP);
      this.#held = key === controlP;
      if (!this.#held) pass.push(key);
    }
    return { pass: Uint8Array.from(pass), detach: false };
  }
}
