import { parseInstanceId, type InstanceId } from "../base/id.ts";
import type { StackRecord } from "./record.ts";

/** How `stopped` and `suspended` of a stack name one replica. */
export function slotKey(id: InstanceId): string {
  const { name = "", ordinal = 1 } = parseInstanceId(id) ?? {};
  return `${name}.${ordinal}`;
}

/** The record in which this replica is to run, to be stopped or to be suspended; itself when it says so already. */
export function marked(record: StackRecord, id: InstanceId, mark: "run" | "stop" | "suspend"): StackRecord {
  const key = slotKey(id);
  const { stopped, suspended = [] } = record;
  if (stopped.includes(key) === (mark === "stop") && suspended.includes(key) === (mark === "suspend")) return record;
  const without = (keys: readonly string[]): readonly string[] => keys.filter((known) => known !== key);
  return {
    ...record,
    stopped: mark === "stop" ? [...without(stopped), key] : without(stopped),
    suspended: mark === "suspend" ? [...without(suspended), key] : without(suspended),
  };
}
