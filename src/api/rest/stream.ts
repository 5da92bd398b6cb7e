import type { DescMethod } from "@bufbuild/protobuf";
import type { Clock } from "../../base/call.ts";
import type { Fault } from "../../base/fault.ts";
import { faultJson, sendFault, write, type Answer } from "./answer.ts";
import { encode } from "./message.ts";

export interface StreamOptions {
  /** Send the chunks themselves instead of lines of JSON. */
  readonly plain: boolean;
  readonly clock: Clock;
  readonly fault: (thrown: unknown) => Fault;
}

/**
 * A stream that has nothing to say yet sends its head after this time, so that whoever waits knows that it was
 * accepted. A refusal usually comes sooner and then has its own HTTP status.
 */
const headDelayMs = 100;

/** Sends messages as they come: lines `{"result":…}`, and when it fails after it began, a last line `{"error":…}`. */
export async function sendStream(
  answer: Answer,
  messages: AsyncIterable<object>,
  method: DescMethod,
  options: StreamOptions,
): Promise<void> {
  const contentType = options.plain ? "application/octet-stream" : "application/x-ndjson";
  const begin = (): void => {
    if (!answer.headersSent && !answer.destroyed) answer.writeHead(200, { "content-type": contentType });
  };
  const cancelHead = options.clock.after(headDelayMs, () => {
    begin();
    answer.flushHeaders();
  });
  try {
    for await (const message of messages) {
      begin();
      if (answer.destroyed) return;
      if (options.plain) await write(answer, (message as { chunk: Uint8Array }).chunk);
      else await write(answer, `{"result":${encode(method.output, message)}}\n`);
    }
    begin();
    answer.end();
  } catch (thrown) {
    const fault = options.fault(thrown);
    if (!answer.headersSent) return sendFault(answer, fault);
    // Plain bytes leave no place to say why; a connection that breaks at least does not look like the end.
    if (options.plain) return void answer.destroy();
    await write(answer, `${faultJson(fault)}\n`);
    answer.end();
  } finally {
    cancelHead();
  }
}
