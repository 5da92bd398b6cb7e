import type { PeerName } from "./contender/contender.ts";
import type { Row } from "./row.ts";

const peers: readonly PeerName[] = ["docker", "podman", "ctr", "crun", "runc", "virsh", "qemu", "cold"];
const bare: ReadonlyMap<PeerName, string> = new Map([
  ["crun", "bare crun"],
  ["qemu", "bare qemu"],
]);
const heads = ["", "unit", "croft", ...peers.map((peer) => bare.get(peer) ?? peer), "reach", ""];

/** The rows as a person likes to read them, each ratio beneath the figure that it compares with. */
export function table(rows: readonly Row[]): string {
  const cells = rows.flatMap((row) =>
    Object.keys(row.ratio).length === 0 ? [figures(row)] : [figures(row), ratios(row)],
  );
  const widths = heads.map((head, at) => Math.max(head.length, ...cells.map((line) => (line[at] ?? "").length)));
  const isText = (at: number): boolean => at < 2 || at >= heads.length - 2;
  const show = (line: readonly string[]): string =>
    line
      .map((cell, at) => (isText(at) ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
      .join("  ")
      .trimEnd();
  return [show(heads), show(widths.map((width) => "─".repeat(width))), ...cells.map(show)].join("\n");
}

function figures({ work, unit, croft, peers: others, reach, ok }: Row): string[] {
  const verdict = ok === null ? "" : ok ? "reached" : "missed";
  return [work, unit, String(croft), ...peers.map((peer) => String(others[peer] ?? "–")), reach, verdict];
}

function ratios({ ratio }: Row): string[] {
  const shown = peers.map((peer) => (ratio[peer] === undefined ? "" : `× ${ratio[peer]}`));
  return ["", "", "", ...shown, "", ""];
}
