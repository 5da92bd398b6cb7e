/** One way in which a server lets itself be convinced, from a `WWW-Authenticate` header. */
export interface Challenge {
  /** Lower-case: `bearer`, `basic`. */
  readonly scheme: string;
  /** Names in lower case; the first of equal names counts. */
  readonly parameters: ReadonlyMap<string, string>;
}

/** Tokens of RFC 9110. */
const tokenPattern = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
/** What stands between quotes; a backslash takes the next character as it is. */
const quotedPattern = /"((?:[^"\\]|\\.)*)"/y;

/**
 * Reads the challenges of a header, several of which may have been joined by commas. Never throws: what cannot be
 * understood is skipped, and a server that offers nothing understandable is one that we cannot log in to.
 */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  let at = 0;
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const found = pattern.exec(header);
    if (found !== null) at = pattern.lastIndex;
    return found;
  };
  while (at < header.length) {
    const token = match(tokenPattern)?.[0];
    if (token === undefined) {
      at += 1;
      continue;
    }
    const isParameter = match(/[ \t]*=[ \t]*/y) !== null;
    const current = challenges.at(-1);
    if (!isParameter) challenges.push({ scheme: token.toLowerCase(), parameters: new Map() });
    else if (current !== undefined) {
      const quoted = match(quotedPattern)?.[1]?.replaceAll(/\\(.)/g, "$1");
      const value = quoted ?? match(tokenPattern)?.[0] ?? "";
      const name = token.toLowerCase();
      if (!current.parameters.has(name)) current.parameters.set(name, value);
    }
  }
  return challenges;
}
