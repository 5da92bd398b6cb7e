/**
 * The value of a secret on its way to the one instance that uses it. However it ends up in a log line, an error, a JSON
 * document or a template, it shows as `[secret]`; whoever needs the value says so with `reveal`.
 */
export class Secret {
  readonly #value: Uint8Array;

  constructor(value: Uint8Array) {
    this.#value = value;
  }

  /** The bytes. */
  reveal(): Uint8Array {
    return this.#value;
  }

  /** The bytes as UTF-8, for an environment variable. */
  revealText(): string {
    return new TextDecoder().decode(this.#value);
  }

  toString(): string {
    return "[secret]";
  }

  toJSON(): string {
    return "[secret]";
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return "[secret]";
  }
}
