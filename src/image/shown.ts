/** A stranger's words as they may stand in a message: not long, and nothing in them that a terminal would obey. */
export function shown(text: string, maxLength = 100): string {
  return text.slice(0, maxLength).replaceAll(/\p{Cc}/gu, " ");
}
