import { backgroundCall } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { readLog } from "../../monitor/log-file.ts";

/** A failure to start, with what QEMU or the guest's kernel said last, as far as they said anything. */
export async function withLastWords(error: unknown, logDir: string): Promise<Fault> {
  const fault = Fault.from(error, "start");
  const words = await lastWords(logDir);
  // Who called it off knows why.
  if (words === "" || fault.reason === "cancelled") return fault;
  const { hint, detail } = fault;
  return new Fault(fault.reason, `${fault.message}; its last words: ${words.slice(-2000)}`, {
    cause: error,
    detail,
    ...(hint === undefined ? {} : { hint }),
  });
}

async function lastWords(logDir: string): Promise<string> {
  const lines = readLog(
    logDir,
    { follow: false, tail: 5 },
    () => true,
    () => () => {},
    backgroundCall(),
  );
  const words: string[] = [];
  try {
    for await (const { stream, bytes } of lines) {
      if (stream === "stderr") words.push(Buffer.from(bytes).toString("utf8"));
    }
  } catch {
    // Without a log there are none.
  }
  return words.join("\n").trim();
}
