import type { Contender } from "../contender/contender.ts";
import { type Figures, median, type Row } from "../row.ts";

/** What a work measures on. */
export interface Ground {
  readonly contenders: readonly Contender[];
  /** How often each contender is measured, where once is quick. */
  readonly rounds: number;
  /** A folder of this run, gone afterwards. */
  readonly folder: string;
  /** A folder that stays for the next run, for what takes long to make. */
  readonly cacheFolder: string;
}

/** One entry of `--only`. */
export interface Work {
  readonly name: string;
  measure(ground: Ground): Promise<readonly Row[]>;
}

/**
 * Measures one contender after the other, round after round, so that whatever else the machine does meets all of them
 * alike; the median of each.
 */
export async function interleave(
  contenders: readonly Contender[],
  rounds: number,
  measure: (contender: Contender, round: number) => Promise<number> | number,
): Promise<Figures> {
  const figures = new Map(contenders.map(({ name }) => [name, [] as number[]] as const));
  for (let round = 0; round < rounds; round += 1) {
    for (const contender of contenders) figures.get(contender.name)?.push(await measure(contender, round));
  }
  return new Map([...figures].map(([name, values]) => [name, median(values)] as const));
}
