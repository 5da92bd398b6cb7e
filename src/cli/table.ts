import type { Paint, Tint } from "./paint.ts";
import { displayWidth, harmless, truncate } from "./width.ts";

export type Cell = string | { readonly text: string; readonly tint?: Tint };

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => Cell;
  readonly align?: "right";
  /** How readily it gives way when the terminal is narrow: the highest first. Absent: it is always shown whole. */
  readonly yields?: number;
  /** Left out when no row has anything to say. */
  readonly optional?: true;
}

export interface TableOptions {
  readonly paint: Paint;
  /** Infinity where nobody looks at it. */
  readonly columns: number;
}

const gap = 2;
const leastWidth = 6;

/** Rows in aligned columns beneath their titles, each line with its end. Nothing at all without rows. */
export function renderTable<Row>(
  declared: readonly Column<Row>[],
  rows: readonly Row[],
  options: TableOptions,
): string {
  if (rows.length === 0) return "";
  const all = declared.map((column) => ({ column, cells: rows.map((row) => cellOf(column.cell(row))) }));
  const shown = all.filter(({ column, cells }) => column.optional !== true || cells.some(({ text }) => text !== ""));
  const widths = fit(
    shown.map(({ column, cells }) => ({
      natural: Math.max(displayWidth(column.title), ...cells.map(({ text }) => displayWidth(text))),
      least: Math.max(displayWidth(column.title), leastWidth),
      yields: column.yields,
    })),
    options.columns,
  );
  const line = (pick: (index: number) => { readonly text: string; readonly tint?: Tint | undefined }): string => {
    const parts = shown.map(({ column }, index) => {
      const { text, tint } = pick(index);
      const width = widths[index] ?? 0;
      const cut = truncate(text, width);
      const painted = options.paint(cut, tint);
      const padding = " ".repeat(Math.max(0, width - displayWidth(cut)));
      return column.align === "right" ? padding + painted : painted + padding;
    });
    return `${parts.join(" ".repeat(gap)).trimEnd()}\n`;
  };
  const head = line((index) => ({ text: shown[index]?.column.title ?? "", tint: "dim" }));
  const body = rows.map((_, row) => line((index) => shown[index]?.cells[row] ?? { text: "" }));
  return head + body.join("");
}

function cellOf(cell: Cell): { readonly text: string; readonly tint?: Tint | undefined } {
  return typeof cell === "string" ? { text: harmless(cell) } : { ...cell, text: harmless(cell.text) };
}

interface Want {
  readonly natural: number;
  readonly least: number;
  readonly yields: number | undefined;
}

/** Widths whose sum fits, if those that yield are narrow enough then. */
function fit(wants: readonly Want[], available: number): readonly number[] {
  const widths = wants.map(({ natural }) => natural);
  let over = widths.reduce((sum, width) => sum + width, gap * Math.max(0, wants.length - 1)) - available;
  const order = wants
    .map(({ yields }, index) => ({ index, yields: yields ?? 0 }))
    .filter(({ yields }) => yields > 0)
    .sort((left, right) => right.yields - left.yields);
  for (const { index } of order) {
    if (over <= 0) break;
    const { natural, least } = wants[index] as Want;
    const narrowed = Math.max(Math.min(natural, least), natural - over);
    over -= natural - narrowed;
    widths[index] = narrowed;
  }
  return widths;
}
