/**
 * The text of a `config.json` with another `ociVersion`, and not a byte changed besides: numbers of 64 bits do not
 * survive being read and written. `text` is valid JSON whose top is an object.
 */
export function withVersion(text: string, version: string): string {
  let depth = 0;
  let index = 0;
  while (index < text.length) {
    const character = text[index];
    if (character === '"') {
      const end = endOfString(text, index);
      const isKey = depth === 1 && text.slice(index, end) === '"ociVersion"' && /^\s*:/.test(text.slice(end, end + 64));
      index = end;
      if (isKey) {
        const start = text.indexOf('"', end);
        return `${text.slice(0, start)}"${version}"${text.slice(endOfString(text, start))}`;
      }
      continue;
    }
    if (character === "{" || character === "[") depth += 1;
    if (character === "}" || character === "]") depth -= 1;
    index += 1;
  }
  return text;
}

/** The position after the string that begins at `start`. */
function endOfString(text: string, start: number): number {
  let index = start + 1;
  while (index < text.length && text[index] !== '"') index += text[index] === "\\" ? 2 : 1;
  return index + 1;
}
