import type { Call } from "../base/call.ts";
import type { InstanceId, NetworkId } from "../base/id.ts";
import type { Entry, Store } from "../store/contract.ts";
import type { Generation, InstanceSection, StackSpec } from "../stack/model.ts";
import type { DesiredInstance } from "../stack/plan/step.ts";

/**
 * What the loop keeps in the store, and under which key. Everything else it knows it can observe.
 *
 *     stack/<name>                    StackRecord       the pointer; moved by compare-and-set
 *     generation/<stack>/<number>     GenerationRecord  immutable but for how it went
 *     network/<id>                    NetworkRecord     subnet and addresses, so that they stay stable
 *     instance/<id>                   InstanceRecord    what an instance was last asked to be
 */
export interface StackRecord {
  readonly name: string;
  readonly origin: "file" | "run";
  /** The current generation's number. Numbers grow and are never used again. */
  readonly current: number;
  /** The highest number ever used. */
  readonly newest: number;
  /**
   * `applying`: the health gate is open. `live`: it became healthy. `failed`: it did not, and there was nothing to go
   * back to. `removing`: going away, as `removal` says. `down`: gone but for volumes, secrets and history.
   */
  readonly status: "applying" | "live" | "failed" | "removing" | "down";
  /** The generation to return to when the gate closes on `current`; absent: none was ever live. */
  readonly fallback?: number;
  /** Instances somebody stopped by hand: `web-1`. An apply starts them again. */
  readonly stopped: readonly string[];
  /** The same for `croft suspend`; absent: none. Who is in both is stopped. */
  readonly suspended?: readonly string[];
  /** Volumes that the last generation which named them protects: also when a later one names them no more. */
  readonly protectedVolumes: readonly string[];
  /** Volumes that are no longer in the file go as well, once what is in the file is live: see `prunes`. */
  readonly pruneVolumes: boolean;
  readonly removal?: { readonly volumes: boolean };
  /** `croft run --rm`: remove the stack when its instance exited. */
  readonly removeOnExit?: boolean;
  readonly updatedMs: number;
}

export interface GenerationRecord {
  readonly stack: string;
  readonly number: number;
  readonly digest: string;
  readonly generation: Generation;
  readonly createdMs: number;
  readonly author: string;
  readonly message: string;
  readonly status: "applying" | "live" | "superseded" | "failed" | "rolled-back";
  readonly changes: readonly string[];
  readonly failure?: string;
}

export interface NetworkRecord {
  readonly id: NetworkId;
  readonly subnet: string;
  /** By instance id. */
  readonly addresses: Readonly<Record<string, string>>;
  /** The last address of each slot (`shop.web.1`), so that a new version of an instance gets the old one's. */
  readonly slots: Readonly<Record<string, string>>;
}

export interface InstanceRecord {
  readonly id: InstanceId;
  readonly section: InstanceSection;
  /** What of it the generation pinned. Absent: written by a croft that did not note it. */
  readonly pinned?: Pick<DesiredInstance, "secrets" | "files" | "diskImages">;
  readonly createdMs: number;
  readonly restarts: number;
  /**
   * The run of this process is over by request: while it lives it is to end, and how it ended says nothing. 0 when none
   * was running. Taken away by the next start. A process id and no time, so that a clock that is set back does no harm.
   */
  readonly endedPid?: number;
  /** Somebody asked for it to go back to a snapshot. `mark` names the request; taken away when it was done. */
  readonly revert?: { readonly snapshot: string; readonly mark: string };
}

/** The record of a stack before its first generation. */
export function newRecord(name: string): StackRecord {
  return {
    name,
    origin: "file",
    current: 0,
    newest: 0,
    status: "applying",
    stopped: [],
    protectedVolumes: [],
    pruneVolumes: false,
    updatedMs: 0,
  };
}

/** The same stack on its way out: nothing of it is desired any more. */
export function removing(record: StackRecord, volumes: boolean, nowMs: number): StackRecord {
  const { fallback: _, ...kept } = record;
  return { ...kept, status: "removing", removal: { volumes }, pruneVolumes: volumes, updatedMs: nowMs };
}

/**
 * Whether data that nobody wants any more is removed now. Not while the gate is open: the generation may go back to the
 * one before it, which still has its data.
 */
export function prunes(record: StackRecord | undefined): boolean {
  return record?.pruneVolumes === true && (record.status === "live" || record.status === "removing");
}

/** A generation decides about the volumes it names; of the others, what was protected `before` stays so. */
export function protectedBy(spec: StackSpec, before: readonly string[]): readonly string[] {
  const names = new Set(before.filter((name) => spec.volumes[name] === undefined));
  for (const [name, section] of Object.entries(spec.volumes)) if (section.protect) names.add(name);
  return [...names].sort();
}

export const keyOf = {
  stack: (name: string): string => `stack/${name}`,
  generation: (stack: string, number: number): string => `generation/${stack}/${String(number).padStart(8, "0")}`,
  network: (id: NetworkId): string => `network/${id}`,
  instance: (id: InstanceId): string => `instance/${id}`,
};

/**
 * A record with the revision it was read or written at: the loop's copy of one key. The store is written first. Writes
 * follow one another, and one whose end is unknown is looked up before the next: it may have come through after all.
 */
export class Cell<Value> {
  readonly #store: Store;
  readonly key: string;
  #entry: Entry<Value> | undefined;
  #inDoubt = false;
  #last: Promise<unknown> = Promise.resolve();

  constructor(store: Store, key: string, entry: Entry<Value> | undefined) {
    this.#store = store;
    this.key = key;
    this.#entry = entry;
  }

  get value(): Value | undefined {
    return this.#entry?.value;
  }

  /** Compare-and-set: `edit` is given the newest value; what it returns is written unless it is that same object. */
  async update(edit: (value: Value | undefined) => Value | Promise<Value>, call: Call): Promise<void> {
    await this.#inTurn(async () => {
      await this.#settleDoubt(call);
      const value = await edit(this.#entry?.value);
      if (value === this.#entry?.value) return;
      this.#inDoubt = true;
      const revision = await this.#store.put(this.key, value, this.#entry?.revision ?? "absent", call);
      this.#entry = { key: this.key, value, revision };
      this.#inDoubt = false;
    });
  }

  async remove(call: Call): Promise<void> {
    await this.#inTurn(async () => {
      await this.#settleDoubt(call);
      if (this.#entry === undefined) return;
      this.#inDoubt = true;
      await this.#store.remove(this.key, this.#entry.revision, call);
      this.#entry = undefined;
      this.#inDoubt = false;
    });
  }

  async #settleDoubt(call: Call): Promise<void> {
    if (!this.#inDoubt) return;
    this.#entry = await this.#store.get<Value>(this.key, call);
    this.#inDoubt = false;
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }
}
