import type { Screen } from "./terminal.ts";

/** Lines that are drawn over themselves. They must fit the terminal, or what scrolled away is drawn again. */
export class LiveBlock {
  readonly #screen: Screen;
  #drawnLines = 0;

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  async draw(lines: readonly string[]): Promise<void> {
    // What was drawn before is overwritten line by line: erasing it first would flicker.
    const up = this.#drawnLines > 0 ? `\u001b[${this.#drawnLines}A` : "";
    this.#drawnLines = lines.length;
    await this.#screen.write(`${up}\r${lines.map((line) => `${line}\u001b[K\n`).join("")}\u001b[J`);
  }

  /** What was drawn stays; the next lines go beneath it. */
  leave(): void {
    this.#drawnLines = 0;
  }
}
