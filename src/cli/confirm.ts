import { Fault } from "../base/fault.ts";
import type { Context } from "./context.ts";

/**
 * Asks a question that only "y" or "yes" answers with yes. Throws `precondition` off a terminal, where nobody can
 * answer: what a script does is said on its command line.
 */
export async function confirm(context: Context, question: string): Promise<boolean> {
  const { keyboard, err } = context;
  if (keyboard.isTTY !== true || !err.isTerminal) {
    throw new Fault("precondition", `there is no terminal to ask: ${question}`, { hint: "say --yes to go ahead" });
  }
  await err.write(`${err.paint(question, "bold")} [y/N] `);
  return /^y(es)?$/i.test((await readLine(context)).trim());
}

/** One line from the terminal; empty at its end. */
export async function readLine({ keyboard }: Pick<Context, "keyboard">): Promise<string> {
  let line = "";
  for await (const chunk of keyboard.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer | string>) {
    line += chunk.toString();
    const end = line.indexOf("\n");
    if (end >= 0) return line.slice(0, end);
  }
  return line;
}
