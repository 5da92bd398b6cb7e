import type { Progress } from "../../base/call.ts";
import { Fault, type Reason } from "../../base/fault.ts";
import type { FileSource } from "./blob-source.ts";
import type { IngestOptions, LayerExpectation, LayerFacts } from "./ingest.ts";
import type { LayerLimits } from "./limit.ts";

/** What the daemon and a layer worker say to each other. A worker has one job at a time. */
export type ToWorker =
  | {
      readonly kind: "ingest";
      readonly source: FileSource | { readonly kind: "http"; readonly url: string };
      readonly options: IngestOptions;
      readonly expected: LayerExpectation;
      readonly limits: LayerLimits;
    }
  | { readonly kind: "cancel"; readonly fault: PlainFault }
  | { readonly kind: "headers"; readonly headers: Readonly<Record<string, string>> }
  | { readonly kind: "no-headers"; readonly fault: PlainFault };

export type FromWorker =
  | { readonly kind: "progress"; readonly progress: Progress }
  | { readonly kind: "need-headers" }
  | { readonly kind: "done"; readonly facts: LayerFacts }
  | { readonly kind: "failed"; readonly fault: PlainFault };

/** A Fault as it can be copied between processes. */
export interface PlainFault {
  readonly reason: Reason;
  readonly message: string;
  readonly hint?: string | undefined;
  readonly detail: Readonly<Record<string, string>>;
  readonly cause?: string | undefined;
}

export function plainFault(fault: Fault): PlainFault {
  const { reason, message, hint, detail, cause } = fault;
  const text = cause instanceof Error ? (cause.stack ?? cause.message) : undefined;
  return { reason, message, hint, detail, cause: text };
}

export function faultFrom(plain: PlainFault): Fault {
  return new Fault(plain.reason, plain.message, {
    detail: plain.detail,
    ...(plain.hint === undefined ? {} : { hint: plain.hint }),
    ...(plain.cause === undefined ? {} : { cause: plain.cause }),
  });
}
