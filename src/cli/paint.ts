/** Colours as roles, not as looks: what is fine, wants attention, is wrong, or matters less. */
export type Tint = "good" | "warn" | "bad" | "accent" | "dim" | "bold";

const codes: Readonly<Record<Tint, readonly [on: number, off: number]>> = {
  good: [32, 39],
  warn: [33, 39],
  bad: [31, 39],
  accent: [36, 39],
  dim: [2, 22],
  bold: [1, 22],
};

export type Paint = (text: string, tint: Tint | undefined) => string;

/** Colours text by ANSI sequences, or leaves it as it is. */
export function painter(color: boolean): Paint {
  return (text, tint) => {
    if (!color || tint === undefined || text === "") return text;
    const [on, off] = codes[tint];
    return `\u001b[${on}m${text}\u001b[${off}m`;
  };
}
