import { readlinkSync } from "node:fs";
import { shortHash } from "../../base/id.ts";
import { nftGeneration, runNft } from "../../host/nftables.ts";
import { readBootId } from "../../host/proc.ts";
import type { Records } from "./record.ts";
import { families, nothing, noTable, type Ruleset, tableChanges, wholeTable } from "./ruleset.ts";

/** What the tables were made, and the number the rules of this host had then. */
export interface AppliedRuleset {
  readonly ruleset: Ruleset;
  readonly generation: number;
  /**
   * Boot and network namespace: the same number of another one means nothing. And what the chains are: those that another
   * release of Croft made are not changed but replaced.
   */
  readonly epoch: string;
}

/**
 * Our tables on the host, taken as one: knows what is in it, also after a restart, and notices when someone else changed it.
 *
 * The kernel numbers every change of any rule. While the number is the one of our own last change, nothing needs to be
 * read back. When it moved on, someone changed something: the table is read and compared with how it looked before, if
 * that was looked at, and otherwise taken for changed. A change of the unchanged table is a difference; a changed table is
 * written anew. Both are one transaction.
 */
export class Table {
  readonly name: string;
  readonly #records: Records<AppliedRuleset>;
  readonly #epoch: string;
  /** How nft shows the table since our last change; undefined until it was looked at. */
  #listing: string | undefined;

  constructor(name: string, records: Records<AppliedRuleset>) {
    this.name = name;
    this.#records = records;
    const chains = shortHash(wholeTable(name, nothing), 8);
    this.#epoch = `${readBootId()} ${readlinkSync("/proc/self/ns/net")} ${chains}`;
  }

  /** Makes the table so. An equal state costs one question to the kernel. */
  apply(ruleset: Ruleset): void {
    const applied = this.#intact();
    const commands =
      applied === undefined ? wholeTable(this.name, ruleset) : tableChanges(this.name, applied.ruleset, ruleset);
    if (commands === "") return;
    const before = applied?.generation ?? nftGeneration();
    runNft(commands, `write the rules of table ${this.name}`);
    this.#listing = undefined;
    // One transaction is one step. Asking instead could count in what someone else changed meanwhile.
    this.#record(ruleset, before + 1);
  }

  /** Whether the table is on the host as it was last applied. Nothing applied and no table is intact. */
  isIntact(): boolean {
    const applied = this.#intact();
    if (applied === undefined) return this.#applied() === undefined && this.#list() === undefined;
    this.#listing ??= this.#list();
    return true;
  }

  /** Idempotent: where there is none, nothing on the host changes. */
  remove(): void {
    if (this.#applied() === undefined && this.#list() === undefined) return;
    runNft(noTable(this.name), `remove table ${this.name}`);
    this.#records.remove(record);
    this.#listing = undefined;
  }

  /** The state of before, if the table still is that. */
  #intact(): AppliedRuleset | undefined {
    const applied = this.#applied();
    if (applied === undefined) return undefined;
    const generation = nftGeneration();
    if (applied.generation === generation) return applied;
    if (this.#listing === undefined || this.#list() !== this.#listing) return undefined;
    // Someone changed other rules: docker, a firewall, another home.
    return this.#record(applied.ruleset, generation);
  }

  #applied(): AppliedRuleset | undefined {
    const applied = this.#records.get(record);
    return applied?.epoch === this.#epoch ? applied : undefined;
  }

  #record(ruleset: Ruleset, generation: number): AppliedRuleset {
    const applied = { ruleset, generation, epoch: this.#epoch };
    this.#records.put(record, applied);
    return applied;
  }

  /** Undefined when there is neither of them. */
  #list(): string | undefined {
    const tables = runNft("list tables", "list tables").split("\n");
    const there = families.filter((family) => tables.includes(`table ${family} ${this.name}`));
    if (there.length === 0) return undefined;
    // One after the other: nft looks for the second in the family of the first.
    return there.map((family) => runNft(`list table ${family} ${this.name}`, `read table ${this.name}`)).join("");
  }
}

const record = "table";
