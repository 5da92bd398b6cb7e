/** What an env file says, and what is wrong with it as `line: message`. */
export interface EnvFile {
  readonly values: ReadonlyMap<string, string>;
  readonly wrong: readonly { readonly line: number; readonly message: string }[];
}

/**
 * Reads `NAME=value` lines. Empty lines and lines that begin with `#` are skipped, `export ` before a name and one pair
 * of quotes around a value are taken off. Nothing is expanded: `$` is a character like any other.
 */
export function parseEnvFile(bytes: Uint8Array): EnvFile {
  const values = new Map<string, string>();
  const wrong: { line: number; message: string }[] = [];
  const text = new TextDecoder("utf-8", { ignoreBOM: false }).decode(bytes);
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    const match = /^(?:export\s+)?([^=\s\0]+)\s*=\s*([^\0]*)$/.exec(line);
    const [, name, value] = match ?? [];
    if (name === undefined || value === undefined) {
      wrong.push({ line: index + 1, message: "this is not NAME=value" });
      continue;
    }
    values.set(name, /^(["']).*\1$/s.test(value) && value.length >= 2 ? value.slice(1, -1) : value);
  }
  return { values, wrong };
}
