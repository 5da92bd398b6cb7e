import { Fault } from "../base/fault.ts";
import { parseDurationMs, parseSizeBytes } from "../base/unit.ts";

/** A duration as the API takes it. Bare numbers are seconds, as docker has them. */
export function readGrace(text: string): string {
  const duration = /^[0-9]+$/.test(text) ? `${text}s` : text;
  parseDurationMs(duration);
  return duration;
}

/** A whole number that is not negative. */
export function readCount(text: string): number {
  if (!/^[0-9]{1,9}$/.test(text)) throw new Fault("invalid", `"${text}" is not a whole number`);
  return Number(text);
}

/** `NAME=VALUE` pairs as one record; a name alone takes its value from `env`, and is left out when that has none. */
export function readPairs(
  texts: readonly string[],
  env: Readonly<Record<string, string | undefined>> = {},
): Record<string, string> {
  const pairs: Record<string, string> = {};
  for (const text of texts) {
    const equals = text.indexOf("=");
    const name = equals < 0 ? text : text.slice(0, equals);
    if (name === "") throw new Fault("invalid", `"${text}" has no name`, { hint: "write NAME=VALUE" });
    const value = equals < 0 ? env[name] : text.slice(equals + 1);
    if (value !== undefined) pairs[name] = value;
  }
  return pairs;
}

/** A size as the API takes it. `512m` and bare numbers of bytes, as docker has them, become `512MiB` and `512B`. */
export function readSize(text: string): string {
  const match = /^([0-9.]+)([bkmgt]?)b?$/.exec(text);
  const [, amount = "", unit = ""] = match ?? [];
  const size = match === null ? text : `${amount}${unit === "" || unit === "b" ? "B" : `${unit.toUpperCase()}iB`}`;
  parseSizeBytes(size);
  return size;
}
