import { Fault } from "../../base/fault.ts";
import { argument, command as define } from "../command.ts";
import { printJson } from "../context.ts";
import { stackNamed } from "../stack-source.ts";

export const command = define({
  detail: "Without numbers: the current generation against the one before. With one: that one against the current.",
  examples: [
    ["croft diff", "what the last apply changed"],
    ["croft diff shop 3 5", "from generation 3 to 5"],
  ],
  args: { words: argument.any("[STACK] [A] [B]", "The stack and two generations", { offers: "stack" }) },
  async run({ args }, context) {
    const { named, numbers } = readWords(args.words, 2);
    const stack = await stackNamed(named, context);
    const [from = 0, to = 0] = numbers;
    const diff = await context.client.stacks.diffGenerations({ stack, from, to, color: context.out.color });
    if (context.json) await printJson(context, diff);
    else await context.out.write(diff.text);
  },
});

/** A stack's name and generations, in this order; either may be left out. A stack named by digits alone must be first. */
export function readWords(
  words: readonly string[],
  most: number,
): { readonly named: string | undefined; readonly numbers: readonly number[] } {
  const [first, ...rest] = words;
  const hasName = first !== undefined && (!isGeneration(first) || words.length > most);
  const numbers = hasName ? rest : words;
  const odd = numbers.find((word) => !isGeneration(word)) ?? numbers[most];
  if (odd !== undefined) {
    throw new Fault("invalid", `"${odd}" is not a generation`, { hint: "croft history lists them by number" });
  }
  return { named: hasName ? first : undefined, numbers: numbers.map(Number) };
}

function isGeneration(word: string): boolean {
  return /^[0-9]{1,9}$/.test(word);
}
