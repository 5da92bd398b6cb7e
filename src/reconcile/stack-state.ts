import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
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
  #current: GenerationRecord | undefined;
  /** `expand` of the current generation, until it or what is stopped changes. */
  #desired:
    | { readonly key: string; readonly desired: Desired; readonly byId: ReadonlyMap<string, DesiredInstance> }
    | undefined;

  constructor(name: string, store: Store, entry: Entry<StackRecord> | undefined) {
    this.name = name;
    this.#store = store;
    this.#record = new Cell(store, keyOf.stack(name), entry);
  }

  get record(): StackRecord | undefined {
    return this.#record.value;
  }

  /** The current generation; undefined before the first and when the stack is down. */
  get current(): GenerationRecord | undefined {
    return this.#current;
  }

  async load(instances: readonly Entry<InstanceRecord>[], call: Call): Promise<void> {
    for (const entry of instances) this.#instances.set(entry.value.id, new Cell(this.#store, entry.key, entry));
    await this.#loadCurrent(call);
  }

  /** Moves the pointer, or changes what belongs to it, by compare-and-set. */
  async change(edit: (record: StackRecord | undefined) => StackRecord, call: Call): Promise<void> {
    const before = this.record?.current;
    await this.#record.put(edit(this.record), call);
    if (this.record?.current !== before) await this.#loadCurrent(call);
    this.#desired = undefined;
  }

  /** Writes a new generation and remembers it, so that moving the pointer to it reads nothing. */
  async addGeneration(record: GenerationRecord, call: Call): Promise<void> {
    await this.#store.put(keyOf.generation(this.name, record.number), record, "absent", call);
    this.#added = record;
  }
  #added: GenerationRecord | undefined;

  async generation(number: number, call: Call): Promise<GenerationRecord> {
    if (this.#current?.number === number) return this.#current;
    if (this.#added?.number === number) return this.#added;
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
    const entries = await this.#store.list<GenerationRecord>(`generation/${this.name}/`, call);
    return entries.map((entry) => entry.value).toReversed();
  }

  /** Notes how a generation went. */
  async mark(
    number: number,
    outcome: Pick<GenerationRecord, "status"> & { readonly failure?: string },
    call: Call,
  ): Promise<void> {
    const key = keyOf.generation(this.name, number);
    const entry = await this.#store.get<GenerationRecord>(key, call);
    if (entry === undefined || entry.value.status === outcome.status) return;
    const record = { ...entry.value, ...outcome };
    await this.#store.put(key, record, entry.revision, call);
    if (this.#current?.number === number) this.#current = record;
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

  async putInstance(record: InstanceRecord, call: Call): Promise<void> {
    let cell = this.#instances.get(record.id);
    if (cell === undefined) {
      cell = new Cell<InstanceRecord>(this.#store, keyOf.instance(record.id), undefined);
      this.#instances.set(record.id, cell);
    }
    await cell.put(record, call);
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
    this.#current = undefined;
    this.#desired = undefined;
  }

  async #loadCurrent(call: Call): Promise<void> {
    this.#desired = undefined;
    const number = this.record?.current ?? 0;
    if (number === 0) this.#current = undefined;
    else if (this.#added?.number === number) this.#current = this.#added;
    else {
      this.#current = undefined;
      this.#current = await this.generation(number, call);
    }
    this.#added = undefined;
  }

  #expanded(): { readonly desired: Desired; readonly byId: ReadonlyMap<string, DesiredInstance> } {
    const { record } = this;
    const key = `${record?.current} ${record?.status} ${record?.stopped.join(" ")}`;
    if (this.#desired?.key === key) return this.#desired;
    const wanted =
      record !== undefined && record.status !== "removing" && record.status !== "down" ? this.#current : undefined;
    const desired =
      wanted === undefined
        ? { stack: this.name, networks: [], volumes: [], instances: [] }
        : expand(wanted.generation, new Set(record?.stopped));
    this.#desired = { key, desired, byId: new Map(desired.instances.map((instance) => [instance.id, instance])) };
    return this.#desired;
  }
}
