// What a linter does not know: names of files, their length, and words that must not be committed.
import { readFileSync } from "node:fs";
import { basename, relative } from "node:path";

const maxLines = 600;
const vague = /^(utils?|helpers?|common|misc|manager|shared|index)\.(ts|tsx|mjs)$/;
const kebab = /^[a-z0-9]+(-[a-z0-9]+)*(\.(host|e2e|guest|online))?(\.(test|fixture|d))?\.(ts|tsx|mjs)$/;

/** Returns what is wrong, one sentence a finding. */
export function checkHouse(root, files) {
  const findings = [];
  for (const file of files) {
    const name = basename(file);
    const shown = relative(root, file);
    if (shown.startsWith("src/gen/")) continue;
    if (!kebab.test(name)) findings.push(`${shown}: file names are kebab-case`);
    if (vague.test(name)) findings.push(`${shown}: "${name}" says nothing about what is in it`);
    const text = readFileSync(file, "utf8");
    const lines = text.split("\n").length;
    if (lines > maxLines) findings.push(`${shown}: ${lines} lines; more than ${maxLines} want a split`);
    if (/\b(TO\u0044O|FIX\u004dE|not implemented)\b/.test(text))
      findings.push(`${shown}: unfinished work is noted in the issue, not in code`);
    if (/\b(it|test|describe|suite)\.(only|skip|todo)\(/.test(text))
      findings.push(`${shown}: a test is marked only, skip or todo`);
  }
  return findings;
}
