import { randomBytes } from "node:crypto";
import { closeSync, constants, openSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { basename, dirname } from "node:path";
import { Fault } from "../../base/fault.ts";

/** A guest that is not stuck answers sooner. */
const patienceMs = 10_000;

/**
 * Asks the guest's first process one question, and returns the words of its answer; `timeout` when it gives none,
 * `unavailable` when it is gone.
 */
export async function ask(path: string, question: string): Promise<readonly string[]> {
  const mark = randomBytes(4).toString("hex");
  const socket = connectAt(path);
  try {
    return await new Promise<readonly string[]>((resolve, reject) => {
      let rest = "";
      socket.setEncoding("utf8");
      socket.setTimeout(patienceMs, () => reject(new Fault("timeout", "the guest does not answer")));
      socket.once("error", (error) => reject(new Fault("unavailable", `ask the guest: ${error.message}`)));
      socket.once("close", () => reject(new Fault("unavailable", "the guest ended")));
      socket.on("data", (text: string) => {
        const lines = (rest + text).slice(-65_536).split("\n");
        rest = lines.pop() ?? "";
        const answer = lines.map((line) => line.split(" ")).find(([first]) => first === mark);
        if (answer !== undefined) resolve(answer.slice(1));
      });
      // Half a line of somebody who was killed may lie there.
      socket.once("connect", () => socket.write(`\n${mark} ${question}\n`));
    });
  } finally {
    socket.destroy();
  }
}

/** Whatever the length of the path: a socket's own name may have 107 bytes. */
export function connectAt(path: string): Socket {
  const directory = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  const socket = connect(`/proc/self/fd/${directory}/${basename(path)}`);
  const close = (): void => closeSync(directory);
  socket.once("connect", close);
  socket.once("error", close);
  return socket;
}
