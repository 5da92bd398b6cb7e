import { Fault } from "../base/fault.ts";
import type { Context } from "./context.ts";
import { rawMode } from "./terminal.ts";

const enter = /[\r\n]/;
const controlC = "\u0003";
const controlD = "\u0004";
const controlU = "\u0015";
const backspaces = new Set(["\u0008", "\u007f"]);

/** A line typed in a terminal that does not show it. Throws `cancelled` at Ctrl-C. */
export async function readHidden({ keyboard, err }: Context, prompt: string): Promise<string> {
  await err.write(prompt);
  using _raw = rawMode(keyboard);
  let line = "";
  for await (const chunk of keyboard.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer | string>) {
    for (const key of chunk.toString()) {
      if (enter.test(key) || key === controlD) {
        await err.write("\r\n");
        return line;
      }
      if (key === controlC) {
        await err.write("\r\n");
        throw new Fault("cancelled", "interrupted");
      }
      if (key === controlU) line = "";
      else line = backspaces.has(key) ? line.slice(0, -1) : line + key;
    }
  }
  return line;
}
