import type { Call } from "../../../base/call.ts";
import type { LogLine } from "../../contract.ts";

/**
 * The lines of a serial console. Its bytes come one by one, so a line that is being written would be shown in pieces of a
 * few characters: pieces wait this long for what follows, which no prompt minds.
 */
const patienceMs = 150;

export async function* consoleLines(
  read: (call: Call) => AsyncGenerator<LogLine>,
  call: Call,
): AsyncGenerator<LogLine> {
  // Whoever stops listening while a line is waited for ends the waiting.
  const over = new AbortController();
  const lines = read({
    clock: call.clock,
    signal: AbortSignal.any([call.signal, over.signal]),
    report: (progress) => call.report(progress),
  });
  let open: LogLine | undefined;
  let next = lines.next();
  // Heard where it is waited for; in between, nobody listens.
  next.catch(() => {});
  try {
    for (;;) {
      const found = open === undefined ? await next : await within(next, call);
      if (found === "late") {
        if (open !== undefined) yield withoutReturn(open);
        open = undefined;
        continue;
      }
      if (found.done === true) break;
      next = lines.next();
      next.catch(() => {});
      const line: LogLine = found.value;
      if (open !== undefined && open.stream !== line.stream) {
        yield withoutReturn(open);
        open = undefined;
      }
      const whole: LogLine =
        open === undefined ? line : { ...line, timeMs: open.timeMs, bytes: Buffer.concat([open.bytes, line.bytes]) };
      open = whole.partial && whole.bytes.length < maxOpenBytes ? whole : undefined;
      if (open === undefined) yield withoutReturn(whole);
    }
    if (open !== undefined) yield withoutReturn(open);
  } finally {
    over.abort();
    await lines.return(undefined).catch(() => {});
  }
}

const maxOpenBytes = 64 * 1024;

async function within(next: Promise<IteratorResult<LogLine>>, call: Call): Promise<IteratorResult<LogLine> | "late"> {
  const patience = Promise.withResolvers<"late">();
  const stop = call.clock.after(patienceMs, () => patience.resolve("late"));
  try {
    return await Promise.race([next, patience.promise]);
  } finally {
    stop();
  }
}

/** A console ends its lines with a carriage return as well. */
function withoutReturn(line: LogLine): LogLine {
  let end = line.bytes.length;
  while (end > 0 && line.bytes[end - 1] === 0x0d) end -= 1;
  return end === line.bytes.length ? line : { ...line, bytes: line.bytes.subarray(0, end) };
}
