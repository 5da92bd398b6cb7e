/**
 * What a part of `config.json` may look like. A shape says what is wrong, naming the field as it is written in the file
 * (`mounts[2].options[0]`); what a shape does not know it leaves alone, as the specification demands.
 */
export type Shape = (value: unknown, at: string, say: (finding: string) => void) => void;

export type Json = Readonly<Record<string, unknown>>;

/** More than anybody reads; a file that is wrong everywhere does not make a message without end. */
const maxFindings = 8;

/** `at` is the field that `value` stands for, when it is not the whole file. */
export function findingsOf(shape: Shape, value: unknown, at = ""): readonly string[] {
  const findings: string[] = [];
  shape(value, at, (finding) => {
    if (findings.length < maxFindings) findings.push(finding);
  });
  return findings;
}

/** Any text without a NUL byte, at which every path and argument would end for the kernel. */
export const text: Shape = (value, at, say) => {
  if (typeof value !== "string") say(`${at}: expected a text, found ${shown(value)}`);
  else if (value.includes("\0")) say(`${at}: a text must not hold a NUL byte`);
};

export const filledText: Shape = (value, at, say) => {
  text(value, at, say);
  if (value === "") say(`${at}: must not be empty`);
};

export const absolutePath: Shape = (value, at, say) => {
  text(value, at, say);
  if (typeof value === "string" && !value.startsWith("/")) {
    say(`${at}: expected an absolute path, found ${shown(value)}`);
  }
};

export const flag: Shape = (value, at, say) => {
  if (typeof value !== "boolean") say(`${at}: expected true or false, found ${shown(value)}`);
};

export function matching(pattern: RegExp, expected: string): Shape {
  return (value, at, say) => {
    text(value, at, say);
    if (typeof value === "string" && !pattern.test(value)) say(`${at}: expected ${expected}, found ${shown(value)}`);
  };
}

export function oneOf(...values: readonly string[]): Shape {
  const known = new Set<unknown>(values);
  return (value, at, say) => {
    if (!known.has(value)) say(`${at}: expected one of ${values.join(", ")}, found ${shown(value)}`);
  };
}

/** A whole number. Numbers of 64 bits lose their last digits in JavaScript, which no bound depends on. */
export function whole(least: number, most: number): Shape {
  return (value, at, say) => {
    if (typeof value !== "number" || !Number.isInteger(value))
      say(`${at}: expected a whole number, found ${shown(value)}`);
    else if (value < least || value > most) {
      say(`${at}: expected a number from ${least} to ${most}, found ${value}`);
    }
  };
}

export const int64 = whole(-(2 ** 63), 2 ** 63);
export const uint64 = whole(0, 2 ** 64);
export const uint32 = whole(0, 2 ** 32 - 1);
export const uint16 = whole(0, 2 ** 16 - 1);

export function list(of: Shape, least = 0): Shape {
  return (value, at, say) => {
    if (!Array.isArray(value)) {
      say(`${at}: expected a list, found ${shown(value)}`);
      return;
    }
    if (value.length < least) say(`${at}: must not be empty`);
    for (const [index, entry] of value.entries()) of(entry, `${at}[${index}]`, say);
  };
}

/** An object with names of the file's own choice. */
export function map(of: Shape): Shape {
  return (value, at, say) => {
    if (!isJson(value)) {
      say(`${at}: expected an object, found ${shown(value)}`);
      return;
    }
    for (const [name, entry] of Object.entries(value)) {
      if (name === "") say(`${at}: a name must not be empty`);
      if (name.includes("\0")) say(`${at}: a name must not hold a NUL byte`);
      of(entry, `${at}.${name}`, say);
    }
  };
}

/** An object with these fields. `null` stands for what is absent, as Go programs write it. */
export function record(required: Readonly<Record<string, Shape>>, optional: Readonly<Record<string, Shape>>): Shape {
  const names = Object.keys(required);
  const optionals = Object.keys(optional);
  return (value, at, say) => {
    if (!isJson(value)) {
      say(`${at === "" ? "the file" : at}: expected an object, found ${shown(value)}`);
      return;
    }
    for (const name of names) {
      const place = at === "" ? name : `${at}.${name}`;
      const field = own(value, name);
      if (field === undefined || field === null) say(`${place}: is missing`);
      else required[name]?.(field, place, say);
    }
    for (const name of optionals) {
      const field = own(value, name);
      if (field === undefined || field === null) continue;
      optional[name]?.(field, at === "" ? name : `${at}.${name}`, say);
    }
  };
}

/** Several shapes at once. */
export function all(...shapes: readonly Shape[]): Shape {
  return (value, at, say) => {
    for (const shape of shapes) shape(value, at, say);
  };
}

export function isJson(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A field of the file itself, never one that every object has (`constructor`). */
export function own(value: unknown, name: string): unknown {
  return isJson(value) && Object.hasOwn(value, name) ? value[name] : undefined;
}

function shown(value: unknown): string {
  const json = JSON.stringify(value) ?? "nothing";
  return json.length > 60 ? `${json.slice(0, 57)}…` : json;
}

export function recordsIn(value: unknown, name: string): readonly Json[] {
  const field = own(value, name);
  return Array.isArray(field) ? field.filter(isJson) : [];
}
