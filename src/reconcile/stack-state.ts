import type { Call } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import type { InstanceId } from "../base/id.ts";
import { expand } from "../stack/plan/expand.ts";
import type { Desired, DesiredInstance } from "../stack/plan/step.ts";
import type { Entry, Store } from "../store/contract.ts";
import { Cell, keyOf, type GenerationRecord, type InstanceRecord, type StackRecord } from "./record.ts";

/** One stack's records, held in memory and written through. */
export class StackState {
  readonly name: string;
  readonly #store: Store;
  readonly #record: Cell<StackRecord>;
  readonly #instances = new Map<InstanceId, Cell<InstanceRecord>>();
  /** The current generation, and one that the pointer is about to move to: never is there a moment without it. */
  readonly #loaded = new Map<number, GenerationRecord>();
  /** `expand` of the current generation, until it or what is stopped changes. */
  #desired:
    | { readonly key: string; readonly desired: Desired; readonly byId: ReadonlyMap<string, DesiredInstance> }
    | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(name: string, store: Store, entry: Entry<StackRecord> | undefined) {
    this.name = name;
    this.#store = store;
    this.#record = new Cell(store, keyOf.stack(name), entry);
  }

  get record(): StackRecord | undefined {
    return this.#record.value;
  }

  /** The current generation, also of a stack that is down; undefined before the first. */
  get current(): GenerationRecord | undefined {
    return this.#loaded.get(this.record?.current ?? 0);
  }

  async load(instances: readonly Entry<InstanceRecord>[], call: Call): Promise<void> {
    for (const entry of instances) this.#instances.set(entry.value.id, new Cell(this.#store, entry.key, entry));
    const number = this.record?.current ?? 0;
    if (number === 0) return;
    try {
      this.#loaded.set(number, await this.generation(number, call));
    } catch (thrown) {
      // Erasing a stack takes its generations first. Where one is missing that is wanted, this stack alone stands still.
      if (!isFault(thrown, "not-found")) throw thrown;
    }
  }

  /**
   * Runs `work` when nobody else is between deciding about the pointer and moving it: two applies at once get two
   * numbers, and nothing is applied to a stack while it is erased.
   */
  async exclusively<Value>(work: () => Promise<Value>): Promise<Value> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return await turn;
  }

  /** Moves the pointer, or changes what belongs to it. The stack's first record is made by the same. */
  async establish(edit: (record: StackRecord | undefined) => StackRecord, call: Call): Promise<void> {
    await this.#record.update(async (record) => {
      const next = edit(record);
      if (next.current > 0 && !isGone(next)) this.#loaded.set(next.current, await this.generation(next.current, call));
      return next;
    }, call);
    for (const number of this.#loaded.keys()) if (number !== this.record?.current) this.#loaded.delete(number);
  }

  /** As `establish`, of a stack that exists: `not-found` when it was removed meanwhile. */
  async change(edit: (record: StackRecord) => StackRecord, call: Call): Promise<void> {
    await this.establish((record) => {
      if (record === undefined) throw new Fault("not-found", `stack ${this.name} was removed meanwhile`);
      return edit(record);
    }, call);
  }

  /**
   * Writes a generation that no pointer leads to yet, `exclusively`. A number that was written but never pointed to, by a
   * daemon that died between the two, is used again.
   */
  async addGeneration(record: GenerationRecord, call: Call): Promise<void> {
    await this.#store.put(keyOf.generation(this.name, record.number), record, "any", call);
    this.#loaded.set(record.number, record);
  }

  async generation(number: number, call: Call): Promise<GenerationRecord> {
    const known = this.#loaded.get(number);
    if (known !== undefined) return known;
    const entry = await this.#store.get<GenerationRecord>(keyOf.generation(this.name, number), call);
    if (entry === undefined) {
      throw new Fault("not-found", `stack ${this.name} has no generation ${number}`, {
        hint: `see: croft history ${this.name}`,
      });
    }
    return entry.value;
  }

  /** Newest first. */
  async generations(call: Call): Promise<readonly GenerationRecord[]> {
    const newest = this.record?.newest ?? 0;
    const entries = await this.#store.list<GenerationRecord>(`generation/${this.name}/`, call);
    return entries
      .map((entry) => entry.value)
      .filter(({ number }) => number <= newest)
      .toReversed();
  }

  /** Notes how a generation went. */
  async mark(
    number: number,
    outcome: Pick<GenerationRecord, "status"> & { readonly failure?: string },
    call: Call,
  ): Promise<void> {
    const key = keyOf.generation(this.name, number);
    const entry = await this.#store.get<GenerationRecord>(key, call);
    const isKnown = entry?.value.status === outcome.status && entry.value.failure === outcome.failure;
    if (entry === undefined || isKnown) return;
    const { failure: _, ...rest } = entry.value;
    const record = { ...rest, ...outcome };
    await this.#store.put(key, record, entry.revision, call);
    // `expand` knows generations by identity: the one that was read first stays.
    const known = this.#loaded.get(number);
    if (known !== undefined) this.#loaded.set(number, { ...record, generation: known.generation });
  }

  desired(): Desired {
    return this.#expanded().desired;
  }

  desiredInstance(id: InstanceId): DesiredInstance | undefined {
    return this.#expanded().byId.get(id);
  }

  instance(id: InstanceId): InstanceRecord | undefined {
    return this.#instances.get(id)?.value;
  }

  /** Changes what an instance was last asked to be; returning what was given writes nothing. */
  async putInstance(
    id: InstanceId,
    edit: (record: InstanceRecord | undefined) => InstanceRecord,
    call: Call,
  ): Promise<void> {
    let cell = this.#instances.get(id);
    if (cell === undefined) {
      cell = new Cell<InstanceRecord>(this.#store, keyOf.instance(id), undefined);
      this.#instances.set(id, cell);
    }
    await cell.update(edit, call);
  }

  async removeInstance(id: InstanceId, call: Call): Promise<void> {
    await this.#instances.get(id)?.remove(call);
    this.#instances.delete(id);
  }

  /** Instances that have a record. */
  instanceIds(): Iterable<InstanceId> {
    return this.#instances.keys();
  }

  /** Deletes the stack with its history. The pointer goes last: whatever interrupts this is done again. */
  async erase(call: Call): Promise<void> {
    for (const id of this.#instances.keys()) await this.removeInstance(id, call);
    const generations = await this.#store.list(`generation/${this.name}/`, call);
    await Promise.all(generations.map((entry) => this.#store.remove(entry.key, "any", call)));
    await this.#record.remove(call);
    this.#loaded.clear();
    this.#desired = undefined;
  }

  #expanded(): { readonly desired: Desired; readonly byId: ReadonlyMap<string, DesiredInstance> } {
    const { record } = this;
    const key = `${record?.current} ${record?.status} ${record?.stopped.join(" ")}/${record?.suspended?.join(" ")}`;
    if (this.#desired?.key === key) return this.#desired;
    const desired = this.#expand(record);
    this.#desired = { key, desired, byId: new Map(desired.instances.map((instance) => [instance.id, instance])) };
    return this.#desired;
  }

  #expand(record: StackRecord | undefined): Desired {
    if (record === undefined || record.current === 0 || isGone(record)) {
      return { stack: this.name, networks: [], volumes: [], instances: [] };
    }
    // An empty desired state would take everything away: what should be there is not known, so nothing may be done.
    if (this.current === undefined) {
      throw new Fault("corrupt", `generation ${record.current} of stack ${this.name} is missing from the store`);
    }
    return expand(this.current.generation, new Set(record.stopped), new Set(record.suspended));
  }
}

/** Whether nothing of the stack is desired. */
function isGone(record: StackRecord): boolean {
  return record.status === "removing" || record.status === "down";
}
