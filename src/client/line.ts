import { Fault } from "../base/fault.ts";

/**
 * Streams of JSON travel as lines: one value, one line feed. Both ends of the API use this reader.
 *
 * A line longer than `limitBytes` is refused with `exhausted` before it is held in memory as a whole.
 */
export async function* readLines(chunks: AsyncIterable<Uint8Array>, limitBytes: number): AsyncGenerator<string> {
  let begun: Uint8Array[] = [];
  let begunBytes = 0;
  for await (const chunk of chunks) {
    let from = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, from)) {
      begun.push(chunk.subarray(from, end));
      if (begunBytes + (end - from) > limitBytes) throw tooLong(limitBytes);
      yield joined(begun);
      begun = [];
      begunBytes = 0;
      from = end + 1;
    }
    if (from < chunk.length) {
      begun.push(chunk.subarray(from));
      begunBytes += chunk.length - from;
      if (begunBytes > limitBytes) throw tooLong(limitBytes);
    }
  }
  if (begunBytes > 0) yield joined(begun);
}

function joined(parts: readonly Uint8Array[]): string {
  const [first] = parts;
  const whole =
    parts.length === 1 && first !== undefined
      ? Buffer.from(first.buffer, first.byteOffset, first.length)
      : Buffer.concat(parts);
  return whole.toString("utf8");
}

function tooLong(limitBytes: number): Fault {
  return new Fault("exhausted", `a line of the stream is longer than ${limitBytes} bytes`, {
    hint: "send the data in smaller pieces",
  });
}
