import { createWriteStream } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { resolve } from "node:path";
import { Fault } from "../base/fault.ts";
import { say, type Context } from "./context.ts";

/** Writes a large answer into a file, or to standard output when none is named. */
export async function writeOut(
  bytes: AsyncIterable<Uint8Array>,
  output: string | undefined,
  context: Context,
): Promise<void> {
  if (output === undefined) {
    if (context.out.isTerminal) {
      throw new Fault("invalid", "an archive is nothing for a terminal", { hint: "write it into a file: -o FILE" });
    }
    for await (const chunk of bytes) await context.out.write(chunk);
    return;
  }
  // Under its own name only when it is whole.
  const path = resolve(context.directory, output);
  const part = `${path}.part`;
  try {
    const { pipeline } = await import("node:stream/promises");
    await pipeline(bytes, createWriteStream(part));
    await rename(part, path);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
  await say(context, `saved to ${output}`);
}
