import { Fault } from "../../base/fault.ts";

/** Throws `invalid` for a field that a client has to fill in and did not. */
export function required(value: string, field: string): void {
  if (value === "") throw new Fault("invalid", `${field} is missing`);
}
