import { type Call, throwIfCancelled } from "../../base/call.ts";

/** What `work` comes to; a rejection as soon as the call is cancelled, which the work does not hear of. */
export async function orCancelled<Value>(work: Promise<Value>, call: Call): Promise<Value> {
  const { promise: cancelled, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => {
    try {
      throwIfCancelled(call);
    } catch (error) {
      reject(error);
    }
  };
  call.signal.addEventListener("abort", onAbort, { once: true });
  onAbort();
  try {
    return await Promise.race([work, cancelled]);
  } finally {
    call.signal.removeEventListener("abort", onAbort);
  }
}
