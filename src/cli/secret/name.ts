import { Fault } from "../../base/fault.ts";
import type { Context } from "../context.ts";
import { stackNamed } from "../stack-source.ts";

/** `shop/db-password`, or `db-password` for the stack of this folder. */
export async function secretNamed(
  text: string,
  context: Context,
): Promise<{ readonly stack: string; readonly name: string }> {
  const [first = "", second, ...more] = text.split("/");
  if (more.length > 0 || first === "" || second === "") {
    throw new Fault("invalid", `"${text}" is not a secret`, { hint: "write STACK/NAME" });
  }
  return second === undefined
    ? { stack: await stackNamed(undefined, context), name: first }
    : { stack: first, name: second };
}
