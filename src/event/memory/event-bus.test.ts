import { eventSuite } from "../suite.ts";
import { MemoryEventBus } from "./event-bus.ts";

eventSuite("memory", (clock, retention) => {
  const bus = new MemoryEventBus(clock, retention);
  return { bus, [Symbol.asyncDispose]: () => bus.close() };
});
