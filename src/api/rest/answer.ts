import type { IncomingMessage, ServerResponse } from "node:http";
import type { Fault } from "../../base/fault.ts";
import { statuses } from "../status.ts";

/** HTTP/1.1 and HTTP/2 look alike from here: Node's compatibility classes have all that is used of these. */
export type Request = IncomingMessage;
export type Answer = ServerResponse;

export type Headers = Readonly<Record<string, string | number>>;

/** A Fault as JSON. `code` is the gRPC status code, for clients that know only those. */
export function faultJson(fault: Fault): string {
  const { reason, message, hint = "", detail } = fault;
  return JSON.stringify({ error: { code: statuses[reason].grpc, reason, message, hint, detail } });
}

/** Sends a whole answer. */
export function sendAll(answer: Answer, status: number, headers: Headers, body: string | Uint8Array): void {
  if (answer.destroyed || answer.headersSent) return;
  const bytes = typeof body === "string" ? Buffer.from(body) : body;
  answer.writeHead(status, { ...headers, "content-length": bytes.length });
  answer.end(bytes);
}

export function sendFault(
  answer: Answer,
  fault: Fault,
  headers: Headers = {},
  status = statuses[fault.reason].http,
): void {
  sendAll(answer, status, { "content-type": "application/json", ...headers }, faultJson(fault));
}

/** Writes and waits until the client has taken enough of it. Returns at once when the client is gone. */
export function write(answer: Answer, data: string | Uint8Array): Promise<void> {
  return new Promise((resolve) => {
    if (answer.destroyed || answer.write(data)) return resolve();
    const proceed = (): void => {
      answer.off("drain", proceed);
      answer.off("close", proceed);
      resolve();
    };
    answer.on("drain", proceed);
    answer.on("close", proceed);
  });
}
