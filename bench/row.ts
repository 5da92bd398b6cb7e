import type { PeerName } from "./contender/contender.ts";

/** What a figure must keep to: against a peer's figure in the same run, or as it is. */
export interface Bound {
  readonly sense: "at most" | "at least";
  readonly factor: number;
  /** Left out: the factor is a figure in the row's own unit. */
  readonly of?: PeerName;
  /** In the row's own unit, on top. */
  readonly plus?: number;
}

/** One line of the result. */
export interface Row {
  readonly work: string;
  readonly unit: string;
  readonly croft: number;
  readonly peers: Readonly<Partial<Record<PeerName, number>>>;
  /** Croft's figure divided by the peer's. */
  readonly ratio: Readonly<Partial<Record<PeerName, number>>>;
  readonly reach: string;
  /** Null where nothing was promised. */
  readonly ok: boolean | null;
}

export type Figures = ReadonlyMap<"croft" | PeerName, number>;

/** Judges measured figures by what was promised. A bound whose peer is missing is not kept. */
export function rowOf(work: string, unit: string, figures: Figures, bounds: readonly Bound[]): Row {
  const croft = figures.get("croft") ?? Number.NaN;
  const others = [...figures].filter((entry): entry is [PeerName, number] => entry[0] !== "croft");
  const keeps = ({ sense, factor, of, plus }: Bound): boolean => {
    const limit = factor * (of === undefined ? 1 : (figures.get(of) ?? Number.NaN)) + (plus ?? 0);
    return sense === "at most" ? croft <= limit : croft >= limit;
  };
  return {
    work,
    unit,
    croft: rounded(croft),
    peers: Object.fromEntries(others.map(([name, figure]) => [name, rounded(figure)])),
    ratio: Object.fromEntries(others.map(([name, figure]) => [name, rounded(croft / figure)])),
    reach: bounds.map((bound) => sentence(bound, unit)).join(", "),
    ok: bounds.length === 0 ? null : bounds.every(keeps),
  };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** Three digits say all that a measurement on a shared machine knows. */
export function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

function sentence({ sense, factor, of, plus }: Bound, unit: string): string {
  const sign = sense === "at most" ? "≤" : "≥";
  if (of !== undefined && plus !== undefined) return `${sign} ${factor} × ${of} + ${plus} ${unit}`;
  return of === undefined ? `${sign} ${factor} ${unit}` : `${sign} ${factor} × ${of}`;
}
