import type { Call } from "../base/call.ts";
import type { Probe } from "../base/driver.ts";
import { Fault } from "../base/fault.ts";
import type { Engine } from "../instance/contract.ts";
import type { InstanceKind } from "../stack/model.ts";

export type EnginesByKind = Readonly<Partial<Record<InstanceKind, Engine>>>;

/** Why nothing of a kind can run here, and what a person does about it. */
export interface Unfit {
  readonly kind: InstanceKind;
  readonly why: string;
  readonly hint: string;
}

/**
 * The engines of this host by the kind of instance they run. One that cannot work here is no reason not to begin: what it
 * would run is refused, with its own reason, when somebody asks for it.
 */
export class Engines {
  readonly #byKind: EnginesByKind;
  readonly #all: readonly Engine[];
  /** Those that were seen to work, in this life of the daemon. One that failed is probed again: it may have been mended. */
  readonly #fit = new Map<Engine, Promise<Probe>>();

  readonly #call: Call;

  /** `call`: of the daemon. A probe goes on when whoever asked first has gone away: others wait for it too. */
  constructor(byKind: EnginesByKind, call: Call) {
    this.#byKind = byKind;
    this.#call = call;
    this.#all = [...new Set(Object.values(byKind))];
  }

  /** Each once. */
  all(): readonly Engine[] {
    return this.#all;
  }

  find(kind: InstanceKind): Engine | undefined {
    return this.#byKind[kind];
  }

  of(kind: InstanceKind): Engine {
    const engine = this.find(kind);
    if (engine !== undefined) return engine;
    const { why, hint } = absent(kind);
    throw new Fault("unsupported", why, { hint });
  }

  /** Kinds among these of which nothing can run here. */
  async unfit(kinds: Iterable<InstanceKind>): Promise<readonly Unfit[]> {
    const found = await Promise.all([...new Set(kinds)].map((kind) => this.#judge(kind)));
    return found.filter((unfit) => unfit !== undefined);
  }

  /** Throws `unsupported` when one of these kinds cannot run here. */
  async admit(kinds: Iterable<InstanceKind>): Promise<void> {
    const [first] = await this.unfit(kinds);
    if (first !== undefined) throw new Fault("unsupported", first.why, { hint: first.hint });
  }

  async #judge(kind: InstanceKind): Promise<Unfit | undefined> {
    const engine = this.find(kind);
    if (engine === undefined) return absent(kind);
    const { ok, detail, mend } = await this.#probe(engine);
    if (ok) return undefined;
    return { kind, why: `no ${kind} can run here: ${detail}`, hint: mend ?? "see: croft doctor" };
  }

  async #probe(engine: Engine): Promise<Probe> {
    const known = this.#fit.get(engine);
    if (known !== undefined) return await known;
    const asked = engine.probe(this.#call);
    this.#fit.set(engine, asked);
    try {
      const probe = await asked;
      if (!probe.ok) this.#fit.delete(engine);
      return probe;
    } catch (thrown) {
      this.#fit.delete(engine);
      throw thrown;
    }
  }
}

function absent(kind: InstanceKind): Unfit {
  return { kind, why: `this daemon has no engine for a ${kind}`, hint: "see: croft doctor" };
}
