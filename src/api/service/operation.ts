import type { JsonObject, MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Progress } from "../../base/call.ts";
import type { OperationId } from "../../base/id.ts";
import { OperationService, type OperationSchema, type ProgressSchema } from "../../gen/croft/v1/operation_pb.ts";
import type { Operation } from "../../operation/contract.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";

export function operationService({ operations }: Pick<Needs, "operations">): Served {
  return serve(OperationService, {
    async listOperations() {
      return { operations: (await operations.list()).map(operationMessage) };
    },
    async getOperation({ id }) {
      return operationMessage(await operations.get(id as OperationId));
    },
    async *watchOperation({ id }, call) {
      for await (const operation of operations.watch(id as OperationId, call)) yield operationMessage(operation);
    },
    async cancelOperation({ id }) {
      await operations.cancel(id as OperationId);
      return operationMessage(await operations.get(id as OperationId));
    },
  });
}

export function operationMessage(operation: Operation): MessageInitShape<typeof OperationSchema> {
  const { id, kind, subject, status, startedMs, finishedMs, progress, result, fault } = operation;
  return {
    id,
    kind,
    subject,
    status,
    started: timestampFromMs(startedMs),
    progress: progress.map(progressMessage),
    ...(finishedMs !== undefined && { finished: timestampFromMs(finishedMs) }),
    ...(result !== undefined && result !== null && { result: asObject(result) }),
    ...(fault !== undefined && { fault: { ...fault, hint: fault.hint ?? "" } }),
  };
}

export function progressMessage({
  topic,
  state,
  done,
  total,
  unit,
}: Progress): MessageInitShape<typeof ProgressSchema> {
  return { topic, state, unit: unit ?? "", ...(done !== undefined && { done }), ...(total !== undefined && { total }) };
}

/** Results are JSON-safe by contract; what is no object, such as a list of names, goes under `value`. */
function asObject(result: unknown): JsonObject {
  const json = JSON.parse(JSON.stringify(result)) as JsonObject | JsonObject[string];
  return typeof json === "object" && json !== null && !Array.isArray(json) ? json : { value: json };
}
