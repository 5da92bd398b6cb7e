import { closest } from "../../base/closest.ts";

/** `did you mean "db"?`, or what there is to choose from. */
export function suggest(word: string, candidates: readonly string[], none: string): string {
  const near = closest(word, candidates);
  if (near !== undefined) return `did you mean "${near}"?`;
  if (candidates.length === 0) return none;
  const shown = candidates.slice(0, 12).join(", ");
  return `there is: ${shown}${candidates.length > 12 ? ", …" : ""}`;
}
