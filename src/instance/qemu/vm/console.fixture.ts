import assert from "node:assert/strict";
import type { Call } from "../../../base/call.ts";
import type { Engine, Session } from "../../contract.ts";
import type { InstanceId } from "../../../base/id.ts";
import { lines, textOf } from "../../contract-suite.ts";

/** For the tiny guest: it does what is typed at its console. */
export const obedient = `stty -echo; echo ready; while read -r line; do eval "$line"; done`;

/** A person at a machine's console, who types and waits for what appears. */
export class Typist {
  readonly #session: Session;
  readonly #call: Call;
  #text = "";
  #wake: (() => void) | undefined;
  #ended = false;

  private constructor(session: Session, call: Call) {
    this.#session = session;
    this.#call = call;
    void this.#read();
  }

  static async at(engine: Engine, id: InstanceId, call: Call): Promise<Typist> {
    assert.ok(engine.console !== undefined);
    return new Typist(await engine.console.console(id, call), call);
  }

  /** Types a command and returns what it printed, by a mark that it prints at the end. */
  async ask(command: string): Promise<string> {
    this.#text = "";
    await this.#session.write(Buffer.from(`${command}; echo E"O"A\n`));
    const seen = await this.until(/EOA\r?\n/);
    return seen
      .replaceAll("\r", "")
      .replace(/EOA\n[^]*$/, "")
      .trim();
  }

  async until(pattern: RegExp, limitMs = 120_000): Promise<string> {
    const deadlineMs = this.#call.clock.monotonicMs() + limitMs;
    while (!pattern.test(this.#text)) {
      if (this.#ended || this.#call.clock.monotonicMs() > deadlineMs)
        assert.fail(`not seen: ${pattern}\n${this.#text}`);
      const stop = this.#call.clock.after(200, () => this.#wake?.());
      await new Promise<void>((resolve) => (this.#wake = resolve));
      stop();
    }
    return this.#text;
  }

  async type(text: string): Promise<void> {
    await this.#session.write(Buffer.from(text));
  }

  async leave(): Promise<void> {
    await this.#session.close();
  }

  async #read(): Promise<void> {
    for await (const { bytes } of this.#session.output) {
      this.#text += Buffer.from(bytes).toString("latin1");
      this.#wake?.();
    }
    this.#ended = true;
    this.#wake?.();
  }
}

/** Waits until the console said it; firmware of the larger kind takes its time where nothing is accelerated. */
export async function untilSaid(engine: Engine, id: InstanceId, pattern: RegExp, call: Call): Promise<string> {
  let text = "";
  for (let tries = 0; tries < 360; tries += 1) {
    text = (await lines(engine, id, { follow: false }, call)).map(textOf).join("\n");
    if (pattern.test(text)) return text;
    await call.clock.sleep(500);
  }
  assert.fail(`never said ${pattern}:\n${text}`);
}
