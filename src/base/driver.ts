import type { Call } from "./call.ts";

/** What every driver of every noun answers: can it work on this host? */
export interface Driver {
  /** Short, stable, lower-case: `crun`, `overlay`, `bridge`, `memory`. */
  readonly name: string;
  /** Really tries, within a few seconds, and leaves nothing behind. Never throws for "cannot": that is `ok: false`. */
  probe(call: Call): Promise<Probe>;
}

export interface Probe {
  readonly ok: boolean;
  /** One line: what works and in which version, or why it does not. */
  readonly detail: string;
  /** What a person does to make it work; absent when `ok`. */
  readonly mend?: string;
}
